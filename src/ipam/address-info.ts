import type { SpiderIPPool } from '../api/spiderippool.ts';
import { rangeContains, type IpRange } from '../core/ip-range.ts';
import { formatIp, parseIp, parsePrefix, prefixContainsIp, type IpAddress } from '../core/ip.ts';
import { decodeAllocatedIps, type AllocationRecord } from './allocated-ips.ts';
import type { EndpointClaim } from './audit.ts';
import { isPodAlive, type IpamPod } from './pod.ts';
import { mergedAddresses, parseRanges } from './pool-addresses.ts';

/** What one address is to the pools: who has it, or why nobody can get it. */

export type AddressState =
  /** A pool records it for a pod. */
  | 'allocated'
  | 'free'
  /** A SpiderReservedIP names it. */
  | 'reserved'
  /** In `ips` and `excludeIPs` of its pool. */
  | 'excluded'
  | 'gateway'
  /** In a pool's subnet, and in no pool's addresses. */
  | 'not pooled'
  /** In no pool's subnet. */
  | 'unknown';

export interface AddressInfo {
  readonly address: string;
  readonly state: AddressState;
  /** Of the pool that records or holds it. */
  readonly pool?: string;
  readonly record?: AllocationRecord;
}

/** Throws invalid_resource when the records of a pool cannot be read. */
export function addressInfo(ip: IpAddress, pools: readonly SpiderIPPool[], reserved: readonly IpRange[]): AddressInfo {
  const address = formatIp(ip);
  for (const pool of pools) {
    const record = decodeAllocatedIps(pool.status?.allocatedIPs, nameOf(pool)).get(address);
    if (record !== undefined) return { address, state: 'allocated', pool: nameOf(pool), record };
  }
  const holds = (ranges: readonly IpRange[]): boolean => ranges.some((range) => rangeContains(range, ip));
  const own = pools.find((pool) => holds(mergedAddresses(pool.spec)));
  if (own !== undefined) return { address, state: holds(reserved) ? 'reserved' : 'free', pool: nameOf(own) };
  const excluding = pools.find(({ spec }) => holds(parseRanges(spec.ips).ranges));
  const gateway = pools.find(({ spec }) => isAddress(spec.gateway ?? '', ip));
  if (gateway !== undefined) return { address, state: 'gateway', pool: nameOf(gateway) };
  if (excluding !== undefined) return { address, state: 'excluded', pool: nameOf(excluding) };
  const subnet = pools.find(({ spec }) => isInSubnet(spec.subnet, ip));
  return subnet === undefined ? { address, state: 'unknown' } : { address, state: 'not pooled', pool: nameOf(subnet) };
}

export interface ReleaseScene {
  readonly pod: IpamPod | undefined;
  readonly endpoints: readonly EndpointClaim[];
  /** Where the address is on an interface, in words. */
  readonly onInterfaces: readonly string[];
}

/** Why the record must stay; undefined when nobody has the address any more. */
export function releaseObjection(address: string, record: AllocationRecord, scene: ReleaseScene): string | undefined {
  const { pod } = scene;
  if (pod?.metadata?.uid === record.podUid && isPodAlive(pod)) {
    const where = pod.spec?.nodeName === undefined ? '' : ` on ${pod.spec.nodeName}`;
    return `pod ${record.pod} (${pod.status?.phase ?? 'Pending'}${where}) has it on ${record.interface}`;
  }
  const kept = scene.endpoints.find(
    (claim) =>
      claim.kept &&
      `${claim.namespace}/${claim.name}` === record.pod &&
      claim.addresses.some((one) => one.address === address),
  );
  if (kept !== undefined) return `it is kept for ${record.pod}, which gets it again when it comes back`;
  if (scene.onInterfaces.length > 0) return `it is still on ${scene.onInterfaces.join(' and ')}`;
  return undefined;
}

function isAddress(text: string, ip: IpAddress): boolean {
  const other = parseIp(text);
  return other?.family === ip.family && other.value === ip.value;
}

function isInSubnet(subnet: string, ip: IpAddress): boolean {
  const prefix = parsePrefix(subnet);
  return prefix !== undefined && prefixContainsIp(prefix, ip);
}

function nameOf(pool: SpiderIPPool): string {
  return pool.metadata.name ?? '';
}
