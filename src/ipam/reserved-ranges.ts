import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import { mergeRanges, type IpRange } from '../core/ip-range.ts';
import type { IpFamily } from '../core/ip.ts';
import { parseRanges } from './pool-addresses.ts';

/** The addresses of a family that no pool hands out. What has been handed out before stays where it is. */
export function reservedRanges(reserved: readonly SpiderReservedIP[], family: IpFamily): IpRange[] {
  const inForce = reserved.filter(({ metadata }) => !metadata.deletionTimestamp);
  const ranges = inForce.flatMap(({ spec }) => parseRanges(spec.ips).ranges);
  return mergeRanges(ranges.filter(({ first }) => first.family === family));
}
