import { forbidden, invalid, notSupported, type FieldError } from '../api/field-error.ts';
import { parseIpRange, rangeContains, type IpRange } from '../core/ip-range.ts';
import { formatPrefix, parseIp, parsePrefix, prefixContains, prefixContainsIp, type IpPrefix } from '../core/ip.ts';
import { poolAddresses, type AddressSpec } from './pool-addresses.ts';

/**
 * The rules for what pools and subnets have in common: a subnet, ranges of it, a gateway, routes. The messages keep
 * the texts that Spiderpool's users know, and add what to do.
 */

export interface AddressSetSpec extends AddressSpec {
  readonly gateway?: string | undefined;
  readonly routes?: readonly { readonly dst: string; readonly gw: string }[] | undefined;
}

/** For messages. */
export type AddressSetKind = 'IPPool' | 'Subnet';

/** Family, CIDR and its text; the rest is worth looking at only when this finds nothing. */
export function validateSubnetOfSet(spec: AddressSetSpec, disabledFamilies: readonly number[] = []): FieldError[] {
  return [...validateVersion(spec, disabledFamilies), ...validateSubnet(spec), ...validateCanonical(spec)];
}

/** Ranges inside the subnet, none twice. */
export function validateRangesOfSet(spec: AddressSetSpec, subnet: IpPrefix): FieldError[] {
  return [
    ...validateRangeList('spec.ips', spec.ips, subnet),
    ...validateRangeList('spec.excludeIPs', spec.excludeIPs, subnet),
  ];
}

/** The first of `others` whose subnet shares addresses with this one without being the same. */
export function partlyOverlapping<T extends { readonly spec: AddressSpec }>(
  subnet: IpPrefix,
  others: readonly T[],
): T | undefined {
  return others.find((other) => {
    const prefix = parsePrefix(other.spec.subnet);
    if (prefix === undefined || formatPrefix(prefix) === formatPrefix(subnet)) return false;
    return prefixContains(prefix, subnet) || prefixContains(subnet, prefix);
  });
}

/** Undefined unless it is a CIDR of the family that the set says. */
export function subnetOfSet(spec: AddressSetSpec): IpPrefix | undefined {
  const prefix = parsePrefix(spec.subnet);
  return prefix !== undefined && prefix.address.family === (spec.ipVersion ?? 0) ? prefix : undefined;
}

function validateVersion(spec: AddressSetSpec, disabledFamilies: readonly number[]): FieldError[] {
  const field = 'spec.ipVersion';
  if (spec.ipVersion === undefined) {
    const detail =
      "is not generated correctly, 'spec.subnet' may be invalid: write it as a CIDR, 10.6.0.0/16 or fd00::/64";
    return [invalid(field, null, detail)];
  }
  if (spec.ipVersion !== 4 && spec.ipVersion !== 6) return [notSupported(field, spec.ipVersion, ['4', '6'])];
  if (disabledFamilies.includes(spec.ipVersion)) {
    return [
      forbidden(field, `IPv${spec.ipVersion} is disabled; enable it in the configuration or use the other family`),
    ];
  }
  return [];
}

function validateSubnet(spec: AddressSetSpec): FieldError[] {
  if (subnetOfSet(spec) !== undefined) return [];
  const family = spec.ipVersion === 6 ? 6 : 4;
  const example = family === 6 ? 'fd00::/64' : '10.6.0.0/16';
  return [
    invalid('spec.subnet', spec.subnet, `invalid CIDR format in IPv${family} '${spec.subnet}', write it as ${example}`),
  ];
}

function validateCanonical(spec: AddressSetSpec): FieldError[] {
  const prefix = parsePrefix(spec.subnet);
  if (prefix === undefined || formatPrefix(prefix) === spec.subnet) return [];
  const detail = `unformatted subnet ${spec.subnet}, please change it to ${formatPrefix(prefix)}`;
  return [invalid('spec.subnet', spec.subnet, detail)];
}

function validateRangeList(field: string, texts: readonly string[] | undefined, subnet: IpPrefix): FieldError[] {
  const errors: FieldError[] = [];
  const seen: { text: string; range: IpRange }[] = [];
  for (const [index, text] of (texts ?? []).entries()) {
    const range = parseIpRange(text);
    const problem =
      range === undefined ? malformedRange(text) : (outside(range, subnet) ?? overlapping(text, range, seen));
    if (problem !== undefined) errors.push(invalid(`${field}[${index}]`, text, problem));
    if (range !== undefined) seen.push({ text, range });
  }
  return errors;
}

function malformedRange(text: string): string {
  const [first, last, ...rest] = text.split('-');
  const start = parseIp(first ?? '');
  const end = parseIp(last ?? '');
  if (rest.length === 0 && start !== undefined && end !== undefined && start.family === end.family) {
    return `invalid IP range format, it runs backwards, please change it to ${last ?? ''}-${first ?? ''}`;
  }
  return 'invalid IP range format, write a single address A or a range A-B of one family, without spaces';
}

function outside(range: IpRange, subnet: IpPrefix): string | undefined {
  const wrongFamily = range.first.family !== subnet.address.family;
  if (!wrongFamily && prefixContainsIp(subnet, range.first) && prefixContainsIp(subnet, range.last)) return undefined;
  return `not match base subnet: ${formatPrefix(subnet)}, every address must lie inside 'spec.subnet'`;
}

function overlapping(
  text: string,
  range: IpRange,
  seen: readonly { text: string; range: IpRange }[],
): string | undefined {
  for (const other of seen) {
    const coversFirst = rangeContains(range, other.range.first);
    const coversLast = rangeContains(range, other.range.last);
    const isInside = rangeContains(other.range, range.first) && rangeContains(other.range, range.last);
    if (isInside) return `range ${text} is already covered by ${other.text}, remove it`;
    if (coversFirst && coversLast) return `range ${text} covers ${other.text}, remove the latter`;
    if (coversFirst || coversLast) return `range ${text} overlaps with ${other.text}, merge the two`;
  }
  return undefined;
}

export function validateGateway(spec: AddressSetSpec, subnet: IpPrefix, kind: AddressSetKind): FieldError[] {
  if (spec.gateway === undefined || spec.gateway === '') return [];
  const gateway = parseIp(spec.gateway);
  const field = 'spec.gateway';
  if (gateway === undefined)
    return [invalid(field, spec.gateway, 'invalid IP address, write it like 10.6.0.1 or fd00::1')];
  if (!prefixContainsIp(subnet, gateway)) {
    const detail = `not pertains to the 'spec.subnet' ${spec.subnet} of ${kind}, use an address of that subnet`;
    return [invalid(field, spec.gateway, detail)];
  }
  // By value: "fd00::1" and "fd00:0::1" are one address.
  if (!(poolAddresses(spec)?.ranges ?? []).some((range) => rangeContains(range, gateway))) return [];
  const detail =
    `conflicts with 'spec.gateway' ${spec.gateway}, add the gateway IP address to 'spec.excludeIPs' ` +
    `or remove it from 'spec.ips'`;
  return [forbidden('spec.ips', detail)];
}

export function validateImmutable(spec: AddressSetSpec, old: AddressSetSpec, kind: AddressSetKind): FieldError[] {
  const errors: FieldError[] = [];
  if (spec.ipVersion !== old.ipVersion) {
    errors.push(
      forbidden('spec.ipVersion', `is not changeable, it is ${old.ipVersion ?? 'unset'}; create another ${kind}`),
    );
  }
  if (spec.subnet !== old.subnet) {
    errors.push(forbidden('spec.subnet', `is not changeable, it is ${old.subnet}; create another ${kind}`));
  }
  return errors;
}
