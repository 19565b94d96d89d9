import { forbidden, invalid, notSupported, type FieldError } from '../api/field-error.ts';
import { spiderFinalizer } from '../api/spider.ts';
import type { PoolSpec, SpiderIPPool } from '../api/spiderippool.ts';
import { formatIpRange, parseIpRange, rangeContains, type IpRange } from '../core/ip-range.ts';
import { formatPrefix, parseIp, parsePrefix, prefixContains, prefixContainsIp, type IpPrefix } from '../core/ip.ts';
import { decodeAllocatedIps } from './allocated-ips.ts';
import { intersectRanges, mergedAddresses, poolAddresses } from './pool-addresses.ts';
import { validateRoutes, validateSelectors } from './pool-validation-parts.ts';

/** What makes a pool admissible. The messages keep the texts that Spiderpool's users know, and add what to do. */

export interface PoolValidationContext {
  /** Every pool there is, the one under review may be among them. */
  readonly pools: readonly SpiderIPPool[];
  /** Families switched off by configuration; both are on by default. */
  readonly disabledFamilies?: readonly number[];
}

export function validatePoolCreate(pool: SpiderIPPool, context: PoolValidationContext): FieldError[] {
  const others = context.pools.filter((other) => other.metadata.name !== pool.metadata.name);
  if (others.length < context.pools.length) return [alreadyExists(pool)];
  const subnet = subnetOf(pool.spec);
  const canonical = validateCanonical(pool.spec);
  const errors = [...validateVersion(pool.spec, context), ...validateSubnet(pool.spec), ...canonical];
  if (subnet === undefined || errors.length > 0) return [...errors, ...validateSelectors(pool.spec)];
  return [...validateOverlap(pool, subnet, others), ...validateSpec(pool, subnet, others)];
}

export function validatePoolUpdate(
  pool: SpiderIPPool,
  old: SpiderIPPool,
  context: PoolValidationContext,
): FieldError[] {
  if (old.metadata.deletionTimestamp) return validateTerminating(pool, old);
  const errors = validateImmutable(pool.spec, old.spec);
  const subnet = subnetOf(pool.spec);
  if (subnet === undefined || errors.length > 0) return [...errors, ...validateSelectors(pool.spec)];
  const others = context.pools.filter((other) => other.metadata.name !== pool.metadata.name);
  return [...validateSpec(pool, subnet, others), ...validateUsedAddresses(pool, old)];
}

function validateSpec(pool: SpiderIPPool, subnet: IpPrefix, others: readonly SpiderIPPool[]): FieldError[] {
  const { spec } = pool;
  const ranges = [
    ...validateRangeList('spec.ips', spec.ips, subnet),
    ...validateRangeList('spec.excludeIPs', spec.excludeIPs, subnet),
  ];
  const addresses = ranges.length > 0 ? ranges : validateAddressOverlap(pool, others);
  return [...addresses, ...validateGateway(spec, subnet), ...validateRoutes(spec, subnet), ...validateSelectors(spec)];
}

function subnetOf(spec: PoolSpec): IpPrefix | undefined {
  const prefix = parsePrefix(spec.subnet);
  return prefix !== undefined && prefix.address.family === (spec.ipVersion ?? 0) ? prefix : undefined;
}

function validateVersion(spec: PoolSpec, context: PoolValidationContext): FieldError[] {
  const field = 'spec.ipVersion';
  if (spec.ipVersion === undefined) {
    const detail =
      "is not generated correctly, 'spec.subnet' may be invalid: write it as a CIDR, 10.6.0.0/16 or fd00::/64";
    return [invalid(field, null, detail)];
  }
  if (spec.ipVersion !== 4 && spec.ipVersion !== 6) return [notSupported(field, spec.ipVersion, ['4', '6'])];
  if (context.disabledFamilies?.includes(spec.ipVersion)) {
    return [
      forbidden(field, `IPv${spec.ipVersion} is disabled; enable it in the configuration or use the other family`),
    ];
  }
  return [];
}

function validateSubnet(spec: PoolSpec): FieldError[] {
  if (subnetOf(spec) !== undefined) return [];
  const family = spec.ipVersion === 6 ? 6 : 4;
  const example = family === 6 ? 'fd00::/64' : '10.6.0.0/16';
  return [
    invalid('spec.subnet', spec.subnet, `invalid CIDR format in IPv${family} '${spec.subnet}', write it as ${example}`),
  ];
}

function validateCanonical(spec: PoolSpec): FieldError[] {
  const prefix = parsePrefix(spec.subnet);
  if (prefix === undefined || formatPrefix(prefix) === spec.subnet) return [];
  const detail = `unformatted subnet ${spec.subnet}, please change it to ${formatPrefix(prefix)}`;
  return [invalid('spec.subnet', spec.subnet, detail)];
}

function alreadyExists(pool: SpiderIPPool): FieldError {
  const detail = `IPPool ${pool.metadata.name ?? ''} AlreadyExists, choose another name or update it`;
  return { kind: 'alreadyExists', field: 'metadata.name', detail };
}

/** Two pools of one subnet share it; any other overlap of subnets is a mistake. */
function validateOverlap(pool: SpiderIPPool, subnet: IpPrefix, others: readonly SpiderIPPool[]): FieldError[] {
  for (const other of others) {
    const otherSubnet = parsePrefix(other.spec.subnet);
    if (otherSubnet === undefined || formatPrefix(otherSubnet) === formatPrefix(subnet)) continue;
    if (!prefixContains(otherSubnet, subnet) && !prefixContains(subnet, otherSubnet)) continue;
    const detail =
      `overlap with IPPool ${other.metadata.name ?? ''} which 'spec.subnet' is ${other.spec.subnet}, ` +
      `use exactly that subnet or one outside of it`;
    return [invalid('spec.subnet', pool.spec.subnet, detail)];
  }
  return [];
}

function validateAddressOverlap(pool: SpiderIPPool, others: readonly SpiderIPPool[]): FieldError[] {
  const own = mergedAddresses(pool.spec);
  for (const other of others) {
    const shared = intersectRanges(own, mergedAddresses(other.spec));
    if (shared.length === 0) continue;
    const detail =
      `overlap with IPPool ${other.metadata.name ?? ''} in IP ranges [${shared.map(formatIpRange).join(' ')}], ` +
      `total IP addresses of an IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'; ` +
      `remove the shared addresses from one of the two pools`;
    return [forbidden('spec.ips', detail)];
  }
  return [];
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

function validateGateway(spec: PoolSpec, subnet: IpPrefix): FieldError[] {
  if (spec.gateway === undefined || spec.gateway === '') return [];
  const gateway = parseIp(spec.gateway);
  const field = 'spec.gateway';
  if (gateway === undefined)
    return [invalid(field, spec.gateway, 'invalid IP address, write it like 10.6.0.1 or fd00::1')];
  if (!prefixContainsIp(subnet, gateway)) {
    const detail = `not pertains to the 'spec.subnet' ${spec.subnet} of IPPool, use an address of that subnet`;
    return [invalid(field, spec.gateway, detail)];
  }
  // By value: "fd00::1" and "fd00:0::1" are one address.
  if (!(poolAddresses(spec)?.ranges ?? []).some((range) => rangeContains(range, gateway))) return [];
  const detail =
    `conflicts with 'spec.gateway' ${spec.gateway}, add the gateway IP address to 'spec.excludeIPs' ` +
    `or remove it from 'spec.ips'`;
  return [forbidden('spec.ips', detail)];
}

function validateImmutable(spec: PoolSpec, old: PoolSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (spec.ipVersion !== old.ipVersion) {
    errors.push(
      forbidden('spec.ipVersion', `is not changeable, it is ${old.ipVersion ?? 'unset'}; create another pool`),
    );
  }
  if (spec.subnet !== old.subnet) {
    errors.push(forbidden('spec.subnet', `is not changeable, it is ${old.subnet}; create another pool`));
  }
  return errors;
}

function validateUsedAddresses(pool: SpiderIPPool, old: SpiderIPPool): FieldError[] {
  const left = mergedAddresses(pool.spec);
  for (const [address, record] of decodeAllocatedIps(old.status?.allocatedIPs, old.metadata.name ?? '')) {
    const ip = parseIp(address);
    if (ip === undefined || left.some((range) => rangeContains(range, ip))) continue;
    const detail =
      `remove an IP address ${address} that is being used by Pod ${record.pod}, ` +
      `total IP addresses of an IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'; delete the Pod first`;
    return [forbidden('spec.ips', detail)];
  }
  return [];
}

/** Nothing may change while a pool waits for its last address, except that its finalizer goes. */
function validateTerminating(pool: SpiderIPPool, old: SpiderIPPool): FieldError[] {
  const before = (old.metadata.finalizers ?? []).filter((finalizer) => finalizer !== spiderFinalizer);
  const after = (pool.metadata.finalizers ?? []).filter((finalizer) => finalizer !== spiderFinalizer);
  const sameSpec = JSON.stringify(sortKeys(pool.spec)) === JSON.stringify(sortKeys(old.spec));
  if (sameSpec && after.every((finalizer) => before.includes(finalizer))) return [];
  const detail = 'cannot update a terminating IPPool, it is deleted as soon as its last address is released';
  return [forbidden('metadata.deletionTimestamp', detail)];
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort()
      .map(([key, inner]) => [key, sortKeys(inner)]),
  );
}
