import type { SpiderIPPool } from '../api/spiderippool.ts';
import { mergeRanges, rangeSize, subtractRanges, type IpRange } from '../core/ip-range.ts';
import { parseIp } from '../core/ip.ts';
import { decodeAllocatedIps } from './allocated-ips.ts';
import { intersectRanges, mergedAddresses } from './pool-addresses.ts';

/** How much of a pool is used, and what is free, as ranges: a pool of 2^64 addresses costs what its records cost. */
export interface PoolUsage {
  /** ips − excludeIPs, merged. */
  readonly ranges: readonly IpRange[];
  readonly total: bigint;
  /** Records, those of addresses that the pool does not have (any more) among them. */
  readonly allocated: number;
  /** Neither recorded nor reserved. */
  readonly free: readonly IpRange[];
  readonly freeCount: bigint;
  /** Addresses that are never handed out because a SpiderReservedIP names them, and that nobody has. */
  readonly reservedCount: bigint;
}

/** Throws invalid_resource when status.allocatedIPs cannot be read. */
export function poolUsage(pool: SpiderIPPool, reserved: readonly IpRange[] = []): PoolUsage {
  const records = decodeAllocatedIps(pool.status?.allocatedIPs, pool.metadata.name ?? '');
  const ranges = mergedAddresses(pool.spec);
  const unused = subtractRanges(ranges, singles(records.keys()));
  const free = subtractRanges(unused, reserved);
  return {
    ranges,
    total: countOf(ranges),
    allocated: records.size,
    free,
    freeCount: countOf(free),
    reservedCount: countOf(intersectRanges(unused, reserved)),
  };
}

function singles(addresses: Iterable<string>): IpRange[] {
  return mergeRanges(
    [...addresses].flatMap((text) => {
      const address = parseIp(text);
      return address === undefined ? [] : [{ first: address, last: address }];
    }),
  );
}

function countOf(ranges: readonly IpRange[]): bigint {
  return ranges.reduce((sum, range) => sum + rangeSize(range), 0n);
}
