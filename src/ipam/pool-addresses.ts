import { mergeRanges, parseIpRange, rangeSize, subtractRanges, type IpRange } from '../core/ip-range.ts';
import { parsePrefix, type IpFamily, type IpPrefix } from '../core/ip.ts';

/** The addresses of a pool as ranges. Nothing here ever lists addresses one by one: an IPv6 pool may hold 2^64. */

/** What says which addresses: the spec of a pool or of a subnet. */
export interface AddressSpec {
  readonly ipVersion?: number | undefined;
  readonly subnet: string;
  readonly ips?: readonly string[] | undefined;
  readonly excludeIPs?: readonly string[] | undefined;
}

/**
 * status.totalIPCount is an int64, and JSON.stringify rounds large doubles to their shortest text: this is the largest
 * double whose text (9223372036854775000) is still one.
 */
const maxCount = 2n ** 63n - 1024n;

export interface PoolAddresses {
  readonly subnet: IpPrefix;
  /** ips − excludeIPs, in the order of `spec.ips`: the order in which addresses are handed out. */
  readonly ranges: readonly IpRange[];
}

/** Elements that do not parse are in `malformed` and count as empty; a pool past admission has none. */
export function parseRanges(texts: readonly string[] | undefined): { ranges: IpRange[]; malformed: string[] } {
  const ranges: IpRange[] = [];
  const malformed: string[] = [];
  for (const text of texts ?? []) {
    const range = parseIpRange(text);
    if (range === undefined) malformed.push(text);
    else ranges.push(range);
  }
  return { ranges, malformed };
}

/** Undefined when the subnet is not a CIDR. */
export function poolAddresses(spec: AddressSpec): PoolAddresses | undefined {
  const subnet = parsePrefix(spec.subnet);
  if (subnet === undefined) return undefined;
  const excluded = parseRanges(spec.excludeIPs).ranges;
  const ranges = parseRanges(spec.ips).ranges.flatMap((range) => subtractRanges([range], excluded));
  return { subnet, ranges };
}

/** Merged, so that two specs that mean the same addresses give the same ranges. */
export function mergedAddresses(spec: AddressSpec): IpRange[] {
  return mergeRanges(poolAddresses(spec)?.ranges ?? []);
}

/** Number of addresses, capped near the largest int64. Reserved addresses are not subtracted. */
export function totalAddressCount(spec: AddressSpec): number {
  return countOf(mergedAddresses(spec));
}

/** Of merged ranges; exact up to 2^53. */
export function countOf(ranges: readonly IpRange[]): number {
  const total = ranges.reduce((sum, range) => sum + rangeSize(range), 0n);
  return Number(total > maxCount ? maxCount : total);
}

/** The addresses that are in both sets, merged. */
export function intersectRanges(a: readonly IpRange[], b: readonly IpRange[]): IpRange[] {
  return subtractRanges(a, subtractRanges(a, b));
}

export function poolFamily(spec: AddressSpec): IpFamily | undefined {
  if (spec.ipVersion === 4 || spec.ipVersion === 6) return spec.ipVersion;
  return parsePrefix(spec.subnet)?.address.family;
}
