import { forbidden, invalid, type FieldError } from '../api/field-error.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { formatIpRange, subtractRanges } from '../core/ip-range.ts';
import { formatPrefix, parsePrefix, type IpPrefix } from '../core/ip.ts';
import {
  partlyOverlapping,
  subnetOfSet,
  validateGateway,
  validateImmutable,
  validateRangesOfSet,
  validateSubnetOfSet,
} from './address-set-validation.ts';
import { mergedAddresses } from './pool-addresses.ts';
import { validateRoutes } from './pool-validation-parts.ts';
import { poolsOfSubnet } from './subnet-pools.ts';
import { validateTerminating } from './terminating-validation.ts';

/** What makes a subnet admissible, in Spiderpool's words plus the remedy. */

export interface SubnetValidationContext {
  /** Every one there is, the one under review may be among them. */
  readonly subnets: readonly SpiderSubnet[];
  readonly pools: readonly SpiderIPPool[];
  readonly disabledFamilies?: readonly number[] | undefined;
  /** enableSpiderSubnet is false: no new ones. */
  readonly disabled?: boolean | undefined;
}

export function validateSubnetCreate(subnet: SpiderSubnet, context: SubnetValidationContext): FieldError[] {
  if (context.disabled === true) {
    return [forbidden('spec', 'SpiderSubnet feature is disabled; set enableSpiderSubnet: true in conf.yml')];
  }
  const others = context.subnets.filter((other) => other.metadata.name !== subnet.metadata.name);
  if (others.length < context.subnets.length) return [alreadyExists(subnet)];
  const errors = validateSubnetOfSet(subnet.spec, context.disabledFamilies);
  const prefix = subnetOfSet(subnet.spec);
  if (prefix === undefined || errors.length > 0) return errors;
  return [
    ...validateOverlap(subnet, prefix, others, context.pools),
    ...validateSpec(subnet, prefix),
    ...validateContains(subnet, context.pools, (pool, missing) =>
      invalid(
        'spec.ips',
        subnet.spec.ips ?? [],
        `SpiderIPPool '${pool}' owns some IP addresses that SpiderSubnet '${subnet.metadata.name ?? ''}' can't control; ` +
          `add ${missing} here or remove them from the pool`,
      ),
    ),
  ];
}

export function validateSubnetUpdate(
  subnet: SpiderSubnet,
  old: SpiderSubnet,
  context: SubnetValidationContext,
): FieldError[] {
  if (old.metadata.deletionTimestamp) {
    return validateTerminating(subnet, old, 'Subnet', 'it is deleted as soon as its last pool is gone');
  }
  const errors = validateImmutable(subnet.spec, old.spec, 'Subnet');
  const prefix = subnetOfSet(subnet.spec);
  if (prefix === undefined || errors.length > 0) return errors;
  return [
    ...validateSpec(subnet, prefix),
    ...validateContains(subnet, context.pools, (pool, missing) =>
      forbidden(
        'spec.ips',
        `remove some IP ranges ${missing} that is being used by IPPool ${pool}, total IP addresses of an Subnet are ` +
          `jointly determined by 'spec.ips' and 'spec.excludeIPs'; remove them from the pool first`,
      ),
    ),
  ];
}

/** With enableValidatingResourcesDeletedWebhook; without it a deleted subnet waits for its last pool. */
export function validateSubnetDelete(subnet: SpiderSubnet, pools: readonly SpiderIPPool[]): FieldError[] {
  const own = poolsOfSubnet(subnet, pools);
  if (own.length === 0 || subnet.metadata.deletionTimestamp) return [];
  const names = own.map(({ metadata }) => metadata.name ?? '');
  const detail = `Subnet ${subnet.metadata.name ?? ''} has IPPools [${names.join(' ')}]; delete them first`;
  return [forbidden('status.controlledIPPools', detail)];
}

function alreadyExists(subnet: SpiderSubnet): FieldError {
  const detail = `subnet ${subnet.metadata.name ?? ''} already exists, choose another name or update it`;
  return { kind: 'alreadyExists', field: 'metadata.name', detail };
}

function validateSpec(subnet: SpiderSubnet, prefix: IpPrefix): FieldError[] {
  const { spec } = subnet;
  return [
    ...validateRangesOfSet(spec, prefix),
    ...validateGateway(spec, prefix, 'Subnet'),
    ...validateRoutes(spec, prefix, 'Subnet'),
  ];
}

/** One SpiderSubnet for a subnet, none for a part of another, and pools either inside or elsewhere. */
function validateOverlap(
  subnet: SpiderSubnet,
  prefix: IpPrefix,
  others: readonly SpiderSubnet[],
  pools: readonly SpiderIPPool[],
): FieldError[] {
  const same = others.find(({ spec }) => {
    const other = parsePrefix(spec.subnet);
    return other !== undefined && formatPrefix(other) === formatPrefix(prefix);
  });
  const overlapping = same ?? partlyOverlapping(prefix, others);
  if (overlapping !== undefined) {
    const detail =
      `overlap with Subnet ${overlapping.metadata.name ?? ''} which 'spec.subnet' is ${overlapping.spec.subnet}, ` +
      `choose a subnet outside of it`;
    return [invalid('spec.subnet', subnet.spec.subnet, detail)];
  }
  const pool = partlyOverlapping(prefix, pools);
  if (pool === undefined) return [];
  const detail =
    `overlap with SpiderIPPool '${pool.metadata.name ?? ''}' resource 'spec.subnet' ${pool.spec.subnet}, ` +
    `use exactly that subnet or one outside of it`;
  return [invalid('spec.subnet', subnet.spec.subnet, detail)];
}

function validateContains(
  subnet: SpiderSubnet,
  pools: readonly SpiderIPPool[],
  errorOf: (pool: string, missing: string) => FieldError,
): FieldError[] {
  const own = mergedAddresses(subnet.spec);
  for (const pool of poolsOfSubnet(subnet, pools)) {
    const missing = subtractRanges(mergedAddresses(pool.spec), own);
    if (missing.length > 0) return [errorOf(pool.metadata.name ?? '', `[${missing.map(formatIpRange).join(' ')}]`)];
  }
  return [];
}
