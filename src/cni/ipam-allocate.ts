import { spiderErrors } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatErrorChain, hasErrorCode, SluiceError } from '../core/error.ts';
import { rangeContains, type IpRange } from '../core/ip-range.ts';
import { formatIp, parsePrefix, prefixContains, type IpAddress, type IpFamily } from '../core/ip.ts';
import type { RecordedAddress } from '../ipam/endpoint-record.ts';
import { intersectRanges, mergedAddresses } from '../ipam/pool-addresses.ts';
import {
  isExhausted,
  maxDocumentBytes,
  maxRecordsPerPool,
  type AllocationKey,
  type Exhaustion,
  type PoolBook,
} from '../ipam/pool-book.ts';
import { filterPools, unfitReason, type PoolUser } from '../ipam/pool-filter.ts';
import { defaultPoolNames, expandNames, type Selection } from '../ipam/pool-selection.ts';
import { reservedRanges } from '../ipam/reserved-ranges.ts';
import type { AsideAddress, IpamState } from './ipam-state.ts';
import { poolNotFound } from './ipam-writer.ts';

/** One address of one family for one interface. */

export interface PoolAllocation {
  readonly address: IpAddress;
  readonly pool: SpiderIPPool;
  readonly isNew: boolean;
}

export interface AllocationRequest {
  readonly key: AllocationKey;
  readonly user: PoolUser;
  /** In the order asked for. */
  readonly candidates: readonly SpiderIPPool[];
  readonly recorded: RecordedAddress | undefined;
}

/** Pools that the selection names for the family, in order; the cluster default pools when there is no selection. */
export async function candidatePools(
  { deps, writer }: IpamState,
  selection: Selection | undefined,
  { family, interface: name }: { readonly family: IpFamily; readonly interface: string },
  signal: AbortSignal,
): Promise<SpiderIPPool[]> {
  const pools = writer.known();
  if (selection === undefined) {
    const names = defaultPoolNames(pools, family);
    return names.flatMap((poolName) => pools.find((pool) => pool.metadata.name === poolName) ?? []);
  }
  const asked = (family === 4 ? selection.ipv4 : selection.ipv6) ?? [];
  const { names, duplicates, malformed } = expandNames(asked, family, pools);
  if (duplicates.length > 0)
    throw wrongNames(selection, `duplicate IPPool ${duplicates.join(', ')} specified for NIC ${name}`);
  if (malformed.length > 0) throw wrongNames(selection, `malformed pattern ${malformed.join(', ')}`);
  const found: SpiderIPPool[] = [];
  for (const poolName of names) {
    // A pool made a moment ago may not be in the cache yet.
    const pool = pools.find((other) => other.metadata.name === poolName) ?? (await deps.pools.read(poolName, signal));
    if (pool === undefined) throw poolNotFound(poolName);
    found.push(pool);
  }
  return found;
}

/** The address on record; else the fit pools in order, the one that holds an address of this key already first. */
export async function allocateFamily(
  state: IpamState,
  request: AllocationRequest,
  signal: AbortSignal,
): Promise<PoolAllocation> {
  const { key, user, candidates } = request;
  const onRecord = await claimRecorded(state, request, signal);
  if (onRecord !== undefined) return onRecord;
  const { pools, reasons } = filterPools(candidates, user);
  const names = candidates.map((pool) => pool.metadata.name ?? '');
  if (pools.length === 0) throw nothingFits(user, names, reasons);
  const holding = pools.filter((pool) => holdsKey(pool, key));
  const failures: unknown[] = [];
  for (const pool of [...holding, ...pools.filter((other) => !holding.includes(other))]) {
    try {
      return await allocateFrom(state, pool, request, signal);
    } catch (error) {
      if (signal.aborted || hasErrorCode(error, 'kube_unreachable')) throw error;
      state.deps.log.debug({ pool: pool.metadata.name, error: formatErrorChain(error) }, 'pool gave no address');
      failures.push(error);
    }
  }
  throw allFailed(user, pools, failures);
}

/**
 * What the endpoint has on record is the pod's as long as the pool says so too: then also when the pod asks for other
 * pools by now. What the pool has for an earlier pod of the name goes over to this one if it still asks for the pool.
 * Undefined: neither, or somebody else has the address, or the pool is gone.
 */
async function claimRecorded(
  { writer }: IpamState,
  { key, user, candidates, recorded }: AllocationRequest,
  signal: AbortSignal,
): Promise<PoolAllocation | undefined> {
  if (recorded === undefined) return undefined;
  const { pool: poolName, address } = recorded;
  const isAsked = candidates.some(({ metadata }) => metadata.name === poolName);
  try {
    return await writer.run(
      poolName,
      'allocation',
      (book, pool) => {
        const isOwn = book.holder(address)?.podUid === key.podUid;
        if (!isOwn && (!isAsked || unfitReason(pool, user) !== undefined)) return undefined;
        const claimed = book.claim(key, address);
        return claimed && { ...claimed, pool };
      },
      signal,
    );
  } catch (error) {
    if (hasErrorCode(error, 'ipam_no_pool')) return undefined;
    throw error;
  }
}

async function allocateFrom(
  state: IpamState,
  known: SpiderIPPool,
  { key, user }: AllocationRequest,
  signal: AbortSignal,
): Promise<PoolAllocation> {
  const { deps, writer } = state;
  const aside = state.aside(user.family);
  const reserved = [
    ...aside.map(({ address }) => ({ first: address, last: address })),
    ...reservedByOlder(known, writer.known()),
    ...reservedRanges(await deps.reservedIps(signal), user.family),
  ];
  const operation = (book: PoolBook, pool: SpiderIPPool): PoolAllocation => {
    const reason = unfitReason(pool, user);
    if (reason !== undefined) throw nothingFits(user, [book.poolName], [reason]);
    const result = book.allocate(key, reserved);
    if (isExhausted(result)) {
      const own = mergedAddresses(pool.spec);
      const taken = aside.filter(({ address }) => own.some((range) => rangeContains(range, address)));
      throw exhausted(book.poolName, result, deps.maxRecordsPerPool ?? maxRecordsPerPool, taken);
    }
    return { ...result, pool };
  };
  return writer.run(known.metadata.name ?? '', 'allocation', operation, signal);
}

/**
 * Addresses that an older pool holds as well. Admission refuses such pools, but two may slip through when they are
 * made at the same instant before different controllers; then only the older one hands the shared addresses out.
 */
export function reservedByOlder(pool: SpiderIPPool, pools: readonly SpiderIPPool[]): IpRange[] {
  const subnet = parsePrefix(pool.spec.subnet);
  if (subnet === undefined) return [];
  const own = mergedAddresses(pool.spec);
  return pools.flatMap((other) => {
    const otherSubnet = parsePrefix(other.spec.subnet);
    if (otherSubnet === undefined || !isOlder(other, pool)) return [];
    if (!prefixContains(subnet, otherSubnet) && !prefixContains(otherSubnet, subnet)) return [];
    return intersectRanges(own, mergedAddresses(other.spec));
  });
}

/** A total order, so that of two overlapping pools exactly one is the older. */
function isOlder(a: SpiderIPPool, b: SpiderIPPool): boolean {
  return ageKey(a) < ageKey(b);
}

function ageKey({ metadata }: SpiderIPPool): string {
  return `${metadata.creationTimestamp ?? ''}/${metadata.name ?? ''}`;
}

function holdsKey(pool: SpiderIPPool, key: AllocationKey): boolean {
  return pool.status?.allocatedIPs?.includes(`"${key.podUid}"`) ?? false;
}

/** Names of those that are set aside not more than an event can hold. */
const asideNamed = 5;

function exhausted(
  poolName: string,
  { exhausted: by }: Exhaustion,
  maxRecords: number,
  aside: readonly AsideAddress[],
): SluiceError {
  const reasons = {
    addresses:
      aside.length === 0 ? '' : `, and others on the link have ${aside.length} of IPPool ${poolName}: ${owners(aside)}`,
    records: `, threshold of IP records(<=${maxRecords}) for IPPool ${poolName} exceeded`,
    bytes: `, status.allocatedIPs of IPPool ${poolName} would be larger than ${maxDocumentBytes} bytes`,
  };
  return new SluiceError({
    code: 'ipam_exhausted',
    operation: 'allocate an address from',
    object: `SpiderIPPool ${poolName}`,
    what: `${spiderErrors.exhausted}${reasons[by]}`,
    remedy:
      by === 'addresses'
        ? `add addresses to spec.ips of SpiderIPPool ${poolName}, name a further pool, or delete pods that use it`
        : `divide the addresses of ${poolName} among several SpiderIPPools, and name them all`,
  });
}

function owners(aside: readonly AsideAddress[]): string {
  const named = aside.slice(0, asideNamed).map(({ address, owner }) => `${formatIp(address)} is located at ${owner}`);
  return [...named, ...(aside.length > asideNamed ? ['…'] : [])].join(', ');
}

function nothingFits(user: PoolUser, names: readonly string[], reasons: readonly string[]): SluiceError {
  const what = `all IPv${user.family} IPPools [${names.join(' ')}] of ${user.interface} filtered out: [${reasons.join('; ')}]`;
  return new SluiceError({
    code: 'ipam_no_pool',
    operation: 'select pools for',
    object: user.interface,
    what: `${spiderErrors.noPool}, ${what}`,
    remedy:
      'name a pool that admits this pod, or change the spec of one of these (disable, nodeName, namespaceName, affinities, multusName)' +
      (user.physicalFunction === undefined
        ? ''
        : `; with matchMasterSubnet, a pool of the subnet that ${user.physicalFunction.name} of this node is in`),
  });
}

function allFailed(user: PoolUser, pools: readonly SpiderIPPool[], failures: readonly unknown[]): unknown {
  const names = pools.map((pool) => pool.metadata.name ?? '').join(' ');
  const first = failures.find((failure) => failure instanceof SluiceError);
  return new SluiceError({
    code: first?.code ?? 'internal',
    operation: `failed to allocate any IPv${user.family} IP address to NIC`,
    object: `${user.interface} from IPPools [${names}]`,
    what: failures.map((failure) => (failure instanceof Error ? failure.message : String(failure))).join('; '),
    remedy: first?.remedy,
  });
}

function wrongNames(selection: Selection, what: string): SluiceError {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'select pools from',
    object: selection.source,
    what: `${spiderErrors.wrongInput}, ${what}`,
    remedy: `correct the pool names in the ${selection.source}`,
  });
}
