import { forbidden, invalid, type FieldError } from '../api/field-error.ts';
import { applicationAffinityKeys, spiderFinalizer } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { formatIpRange, rangeContains, subtractRanges } from '../core/ip-range.ts';
import { parseIp, type IpPrefix } from '../core/ip.ts';
import {
  partlyOverlapping,
  subnetOfSet,
  validateGateway,
  validateImmutable,
  validateRangesOfSet,
  validateSubnetOfSet,
} from './address-set-validation.ts';
import { decodeAllocatedIps } from './allocated-ips.ts';
import { isAutoPool } from './auto-pool.ts';
import { intersectRanges, mergedAddresses } from './pool-addresses.ts';
import { validateRoutes, validateSelectors } from './pool-validation-parts.ts';
import { subnetOfPool } from './subnet-pools.ts';
import { validateTerminating } from './terminating-validation.ts';

/** What makes a pool admissible. The messages keep the texts that Spiderpool's users know, and add what to do. */

const jointly = "total IP addresses of an IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'";

export interface PoolValidationContext {
  /** Every pool there is, the one under review may be among them. */
  readonly pools: readonly SpiderIPPool[];
  /** Every subnet there is; absent when subnets are switched off, and pools need not fit in them. */
  readonly subnets?: readonly SpiderSubnet[] | undefined;
  /** Families switched off by configuration; both are on by default. */
  readonly disabledFamilies?: readonly number[] | undefined;
}

export function validatePoolCreate(pool: SpiderIPPool, context: PoolValidationContext): FieldError[] {
  const others = context.pools.filter((other) => other.metadata.name !== pool.metadata.name);
  if (others.length < context.pools.length) return [alreadyExists(pool)];
  const subnet = subnetOfSet(pool.spec);
  const errors = validateSubnetOfSet(pool.spec, context.disabledFamilies);
  if (subnet === undefined || errors.length > 0) return [...errors, ...validatePodSelectors(pool)];
  return [
    ...validateOverlap(pool, subnet, others, context.subnets ?? []),
    ...validateSpec(pool, subnet, others, context),
  ];
}

export function validatePoolUpdate(
  pool: SpiderIPPool,
  old: SpiderIPPool,
  context: PoolValidationContext,
): FieldError[] {
  if (old.metadata.deletionTimestamp) {
    return validateTerminating(pool, old, 'IPPool', 'it is deleted as soon as its last address is released');
  }
  const errors = validateImmutable(pool.spec, old.spec, 'IPPool');
  const subnet = subnetOfSet(pool.spec);
  if (subnet === undefined || errors.length > 0) return [...errors, ...validatePodSelectors(pool)];
  const others = context.pools.filter((other) => other.metadata.name !== pool.metadata.name);
  return [...validateSpec(pool, subnet, others, context), ...validateUsedAddresses(pool, old)];
}

/** With enableValidatingResourcesDeletedWebhook; without it a deleted pool waits for its last address. */
export function validatePoolDelete(pool: SpiderIPPool): FieldError[] {
  const used = decodeAllocatedIps(pool.status?.allocatedIPs, pool.metadata.name ?? '').size;
  if (used === 0 || pool.metadata.deletionTimestamp) return [];
  const name = pool.metadata.name ?? '';
  const detail =
    `IPPool ${name} has ${used} IP addresses in use and cannot be deleted; delete their Pods first, ` +
    `or stop new allocations with spec.disable: true`;
  return [forbidden('status.allocatedIPCount', detail)];
}

/** The finalizer, which only admission adds, must be there, or a deleted pool would go with its records. */
function validateFinalizer(pool: SpiderIPPool): FieldError[] {
  if (pool.metadata.deletionTimestamp || (pool.metadata.finalizers ?? []).includes(spiderFinalizer)) return [];
  return [forbidden('metadata.finalizers', `${spiderFinalizer} is missing, the mutating webhook was not asked`)];
}

function validateSpec(
  pool: SpiderIPPool,
  subnet: IpPrefix,
  others: readonly SpiderIPPool[],
  context: PoolValidationContext,
): FieldError[] {
  const { spec } = pool;
  const ranges = validateRangesOfSet(spec, subnet);
  const addresses =
    ranges.length > 0 ? ranges : [...validateAddressOverlap(pool, others), ...validateContained(pool, context)];
  return [
    ...addresses,
    ...validateGateway(spec, subnet, 'IPPool'),
    ...validateRoutes(spec, subnet, 'IPPool'),
    ...validatePodSelectors(pool),
    ...validateFinalizer(pool),
  ];
}

function alreadyExists(pool: SpiderIPPool): FieldError {
  const detail = `IPPool ${pool.metadata.name ?? ''} AlreadyExists, choose another name or update it`;
  return { kind: 'alreadyExists', field: 'metadata.name', detail };
}

/** Two pools of one subnet share it; any other overlap of subnets is a mistake. */
function validateOverlap(
  pool: SpiderIPPool,
  subnet: IpPrefix,
  others: readonly SpiderIPPool[],
  subnets: readonly SpiderSubnet[],
): FieldError[] {
  const otherPool = partlyOverlapping(subnet, others);
  const otherSubnet = partlyOverlapping(subnet, subnets);
  const other =
    otherPool === undefined ? `Subnet ${otherSubnet?.metadata.name ?? ''}` : `IPPool ${otherPool.metadata.name ?? ''}`;
  const text = (otherPool ?? otherSubnet)?.spec.subnet;
  if (text === undefined) return [];
  const detail = `overlap with ${other} which 'spec.subnet' is ${text}, use exactly that subnet or one outside of it`;
  return [invalid('spec.subnet', pool.spec.subnet, detail)];
}

function validateAddressOverlap(pool: SpiderIPPool, others: readonly SpiderIPPool[]): FieldError[] {
  const own = mergedAddresses(pool.spec);
  for (const other of others) {
    const shared = intersectRanges(own, mergedAddresses(other.spec));
    if (shared.length === 0) continue;
    const detail =
      `overlap with IPPool ${other.metadata.name ?? ''} in IP ranges [${shared.map(formatIpRange).join(' ')}], ` +
      `${jointly}; remove the shared addresses from one of the two pools`;
    return [forbidden('spec.ips', detail)];
  }
  return [];
}

/** A pool of a subnet that a SpiderSubnet governs has no address that the subnet has not. */
function validateContained(pool: SpiderIPPool, { subnets = [] }: PoolValidationContext): FieldError[] {
  const owner = subnetOfPool(pool, subnets);
  if (owner === undefined) return [];
  const name = owner.metadata.name ?? '';
  const outside = subtractRanges(mergedAddresses(pool.spec), mergedAddresses(owner.spec));
  if (outside.length === 0) return [];
  const detail =
    `add some IP ranges [${outside.map(formatIpRange).join(' ')}] that are not contained in controller Subnet ${name}, ` +
    `${jointly}; add them to the Subnet first, or remove them here`;
  return [forbidden('spec.ips', detail)];
}

function validatePodSelectors(pool: SpiderIPPool): FieldError[] {
  const errors = validateSelectors(pool.spec);
  if (!isAutoPool(pool)) return errors;
  const allowed: readonly string[] = Object.values(applicationAffinityKeys);
  const stranger = Object.keys(pool.spec.podAffinity?.matchLabels ?? {}).find((key) => !allowed.includes(key));
  if (stranger === undefined && pool.spec.podAffinity?.matchExpressions === undefined) return errors;
  const detail =
    `the pool was made for an application: its podAffinity names that and nothing else, remove ` +
    `${stranger ?? 'matchExpressions'}`;
  return [...errors, forbidden('spec.podAffinity', detail)];
}

function validateUsedAddresses(pool: SpiderIPPool, old: SpiderIPPool): FieldError[] {
  const left = mergedAddresses(pool.spec);
  for (const [address, record] of decodeAllocatedIps(old.status?.allocatedIPs, old.metadata.name ?? '')) {
    const ip = parseIp(address);
    if (ip === undefined || left.some((range) => rangeContains(range, ip))) continue;
    const detail =
      `remove an IP address ${address} that is being used by Pod ${record.pod}, ` + `${jointly}; delete the Pod first`;
    return [forbidden('spec.ips', detail)];
  }
  return [];
}
