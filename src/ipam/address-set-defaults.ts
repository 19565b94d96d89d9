import { formatIpRange, mergeRanges } from '../core/ip-range.ts';
import { formatPrefix, parsePrefix } from '../core/ip.ts';
import { parseRanges } from './pool-addresses.ts';

/** What the mutating webhook fills in of a pool's or subnet's addresses. */

export interface AddressSetDefaultsOptions {
  /** Leave a subnet with host bits as it is; validation then refuses it, as Spiderpool does. */
  readonly strictSubnet?: boolean | undefined;
}

interface Addresses {
  ipVersion?: number | undefined;
  subnet: string;
  ips?: string[] | undefined;
  excludeIPs?: string[] | undefined;
}

export interface DefaultedAddressSet<T> {
  readonly spec: T;
  /** The value of the CIDR label, "10-6-0-0-16"; undefined when the subnet is no CIDR. */
  readonly cidrLabel: string | undefined;
  readonly warnings: readonly string[];
}

export function defaultAddressSet<T extends Addresses>(
  given: T,
  { strictSubnet }: AddressSetDefaultsOptions,
): DefaultedAddressSet<T> {
  const spec = { ...given };
  const warnings: string[] = [];
  if (spec.ips !== undefined) spec.ips = mergeTexts(spec.ips);
  if (spec.excludeIPs !== undefined) spec.excludeIPs = mergeTexts(spec.excludeIPs);
  const prefix = parsePrefix(given.subnet);
  if (prefix === undefined) return { spec, cidrLabel: undefined, warnings };
  const canonical = formatPrefix(prefix);
  if (given.subnet !== canonical && strictSubnet !== true) {
    spec.subnet = canonical;
    warnings.push(
      `spec.subnet: "${given.subnet}" has host bits set or is not canonical; it is stored as "${canonical}"`,
    );
  }
  spec.ipVersion ??= prefix.address.family;
  return { spec, cidrLabel: cidrLabelOf(canonical), warnings };
}

export function cidrLabelOf(cidr: string): string {
  return cidr.replace(/[.:/]/g, '-').replace(/^-+|-+$/g, '');
}

/** Several elements become sorted minimal ranges; a single one stays as it was written. */
export function mergeTexts(texts: string[]): string[] {
  if (texts.length < 2) return texts;
  const { ranges, malformed } = parseRanges(texts);
  return malformed.length > 0 ? texts : mergeRanges(ranges).map(formatIpRange);
}
