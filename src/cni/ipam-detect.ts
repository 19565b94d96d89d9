/** What the link says about allocated addresses: a conflict first, then whether the gateway answers. */
import { SluiceError } from '../core/error.ts';
import { formatIp, parseIp, type IpAddress } from '../core/ip.ts';
import { findGateway, findOwner, type ProbePlace } from './detection.ts';
import type { PoolAllocation } from './ipam-allocate.ts';
import type { IpamState } from './ipam-state.ts';

export interface DetectionOptions {
  readonly conflicts: boolean;
  readonly gateways: boolean;
  /** Told about each address that somebody else has. */
  readonly onConflict: (pod: string, podUid: string, message: string) => void;
}

export interface Conflict {
  readonly allocation: PoolAllocation;
  /** The link address of who has it. */
  readonly owner: string;
  readonly message: string;
}

export async function findConflicts(
  { deps }: IpamState,
  place: ProbePlace,
  allocations: readonly PoolAllocation[],
  signal: AbortSignal,
): Promise<Conflict[]> {
  if (deps.detection?.conflicts !== true) return [];
  const owners = await Promise.all(allocations.map(({ address }) => findOwner(place, address, signal)));
  return allocations.flatMap((allocation, index) => {
    const owner = owners[index];
    if (owner === undefined) return [];
    const ip = formatIp(allocation.address);
    const what = `ip conflict: pod's interface ${place.interfaceName} with an conflicting ip ${ip}, ${ip} is located at ${owner}`;
    return [{ allocation, owner, message: what }];
  });
}

/** Throws when a gateway is silent. */
export async function requireGateways(
  { deps }: IpamState,
  place: ProbePlace,
  allocations: readonly PoolAllocation[],
  signal: AbortSignal,
): Promise<void> {
  if (deps.detection?.gateways !== true) return;
  await Promise.all(allocations.map((allocation) => requireGateway(place, allocation, signal)));
}

async function requireGateway(
  place: ProbePlace,
  { address, pool }: PoolAllocation,
  signal: AbortSignal,
): Promise<void> {
  const gateway: IpAddress | undefined = pool.spec.gateway ? parseIp(pool.spec.gateway) : undefined;
  if (gateway === undefined || (await findGateway(place, address, gateway, signal)) !== undefined) return;
  throw new SluiceError({
    code: 'timeout',
    operation: 'reach the gateway of',
    object: place.interfaceName,
    what: `gateway ${formatIp(gateway)} is unreachable from ${formatIp(address)}`,
    remedy: `check spec.gateway of SpiderIPPool ${pool.metadata.name ?? ''} and the VLAN of the interface`,
  });
}

export function conflictError({ allocation, message }: Conflict): SluiceError {
  return new SluiceError({
    code: 'ipam_address_in_use',
    operation: 'use',
    object: formatIp(allocation.address),
    what: message,
    remedy: `find the owner of that link address, or exclude the address in SpiderIPPool ${allocation.pool.metadata.name ?? ''}`,
  });
}
