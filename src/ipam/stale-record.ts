import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import { multusAnnotations } from '../api/spider.ts';
import { addressesOf } from './endpoint-record.ts';
import { formatIp } from '../core/ip.ts';
import { isPodAlive, type IpamPod } from './pod.ts';

/**
 * Whether a running pod still uses an address that a pool records for it. An ADD that died half way, and was done again
 * with another outcome, leaves a record that only the pod's end would return otherwise.
 */

/** The pod has been given all it asked for: no ADD is waited for. */
export function isSettled(pod: IpamPod): boolean {
  return isPodAlive(pod) && pod.status?.phase === 'Running' && (pod.status.podIPs ?? []).length > 0;
}

/** What the runtime told Kubernetes, and Multus everybody. Addresses in canonical text. */
export function showsAddress({ metadata, status }: IpamPod, address: string): boolean {
  if ((status?.podIPs ?? []).some(({ ip }) => ip === address)) return true;
  return metadata?.annotations?.[multusAnnotations.networkStatus]?.includes(JSON.stringify(address)) ?? false;
}

/**
 * Whether the SpiderEndpoint has the address, on any interface: Spiderpool's records do not name theirs. Undefined when
 * it says nothing about this pod; then nothing may be concluded.
 */
export function endpointHas(
  endpoint: SpiderEndpoint | undefined,
  podUid: string,
  address: string,
): boolean | undefined {
  const current = endpoint?.status?.current;
  if (current === undefined || current.uid !== podUid || current.ips.length === 0) return undefined;
  return current.ips.some((entry) => addressesOf(entry).some((recorded) => formatIp(recorded.address) === address));
}
