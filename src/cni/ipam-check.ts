import type { CniRequest } from '../api/cni.ts';
import { parseIp, parsePrefix, prefixContainsIp, type IpAddress } from '../core/ip.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import { CniError } from './error.ts';
import { isRecordOf, requirePodReference, type IpamState } from './ipam-state.ts';

/**
 * CHECK: every address of prevResult that lies in a pool's subnet is on record for this pod and interface, and there
 * is one at least. Asks the API server, not the cache.
 */
export async function checkAddresses(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<void> {
  const reference = requirePodReference(request);
  const pools = await state.deps.pools.readAll(signal);
  const recorded = new Set<string>();
  for (const pool of pools) {
    for (const [address, record] of decodeAllocatedIps(pool.status?.allocatedIPs, pool.metadata.name ?? '')) {
      if (isRecordOf(record, reference, request.ifName)) recorded.add(address);
    }
  }
  const owner = `${reference.namespace}/${reference.name} interface ${request.ifName}`;
  if (recorded.size === 0) throw checkFailed(`no pool has an address on record for Pod ${owner}`);
  for (const ip of previousAddresses(request)) {
    if (hasAddress(recorded, ip)) continue;
    const pool = pools.find(({ spec }) => isWithin(spec.subnet, ip));
    if (pool !== undefined)
      throw checkFailed(`SpiderIPPool ${pool.metadata.name ?? ''} has no record of an address of Pod ${owner}`);
  }
}

function previousAddresses(request: CniRequest): IpAddress[] {
  return (request.config.prevResult?.ips ?? []).flatMap(({ address }) => parseIp(address.split('/')[0] ?? '') ?? []);
}

function hasAddress(texts: ReadonlySet<string>, ip: IpAddress): boolean {
  return [...texts].some((text) => {
    const other = parseIp(text);
    return other?.family === ip.family && other.value === ip.value;
  });
}

function isWithin(subnet: string, ip: IpAddress): boolean {
  const prefix = parsePrefix(subnet);
  return prefix !== undefined && prefixContainsIp(prefix, ip);
}

function checkFailed(what: string): CniError {
  return new CniError(
    102,
    `spiderpool CHECK error: ${what}`,
    'Delete the pod: its successor gets addresses that are on record.',
  );
}
