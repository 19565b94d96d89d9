import type { PoolSpec, SpiderIPPool } from '../api/spiderippool.ts';
import { formatIp, parsePrefix, prefixContainsIp, type IpAddress, type IpFamily } from '../core/ip.ts';
import { matchesSelector, type Labels } from '../core/labels.ts';
import { poolFamily } from './pool-addresses.ts';
import { hasApplicationAffinity, matchesApplication } from './auto-pool.ts';
import type { PodOwner } from './pod-owner.ts';

/** Which of the candidate pools this pod may use, and in which order they are tried. */

/** The device that a virtual function (SR-IOV) belongs to, with its addresses on the node. */
export interface PhysicalFunction {
  readonly name: string;
  readonly addresses: readonly IpAddress[];
}

export interface PoolUser {
  readonly family: IpFamily;
  readonly interface: string;
  readonly podLabels: Labels;
  /** The workload at the top of the pod's owners. */
  readonly owner: PodOwner;
  readonly namespace: string;
  readonly namespaceLabels: Labels;
  readonly node: string;
  readonly nodeLabels: Labels;
  /** namespace/name of the interface's attachment; asked for only when a pool names attachments. */
  readonly attachment: () => string | undefined;
  /** Of attachments that a pool names without a namespace. */
  readonly attachmentNamespace: string;
  /** matchMasterSubnet: the subnet must contain an address of it. Absent: any subnet will do. */
  readonly physicalFunction?: PhysicalFunction | undefined;
}

export interface FilteredPools {
  readonly pools: readonly SpiderIPPool[];
  /** One for each pool that was dropped. */
  readonly reasons: readonly string[];
}

export function filterPools(candidates: readonly SpiderIPPool[], user: PoolUser): FilteredPools {
  const pools: SpiderIPPool[] = [];
  const reasons: string[] = [];
  for (const pool of candidates) {
    const reason = unfitReason(pool, user);
    if (reason === undefined) pools.push(pool);
    else reasons.push(reason);
  }
  return { pools: orderPools(pools), reasons };
}

/** Why the pool is not for this pod; undefined when it is. */
export function unfitReason(pool: SpiderIPPool, user: PoolUser): string | undefined {
  const name = pool.metadata.name ?? '';
  const { spec } = pool;
  if (pool.metadata.deletionTimestamp) return `terminating IPPool ${name}`;
  if (spec.disable === true) return `disabled IPPool ${name}`;
  if (poolFamily(spec) !== user.family)
    return `expect an IPv${user.family} IPPool, but the version of the IPPool ${name} is IPv${poolFamily(spec) ?? '?'}`;
  if (!fits(spec.nodeName, spec.nodeAffinity, user.node, user.nodeLabels))
    return `unmatched Node name of IPPool ${name}`;
  if (!fits(spec.namespaceName, spec.namespaceAffinity, user.namespace, user.namespaceLabels)) {
    return `unmatched Namespace name of IPPool ${name}`;
  }
  if (!admitsPod(pool, user)) return `unmatched Pod selector of IPPool ${name}`;
  return attachmentReason(pool, user) ?? subnetReason(pool, user);
}

/** podAffinity of a pool made for an application names that application, and no labels of pods. */
function admitsPod(pool: SpiderIPPool, { podLabels, owner }: PoolUser): boolean {
  const { podAffinity } = pool.spec;
  if (podAffinity === undefined) return true;
  return hasApplicationAffinity(pool) ? matchesApplication(pool, owner) : matchesSelector(podAffinity, podLabels);
}

/** A list of exact names makes the selector moot. */
function fits(
  names: readonly string[] | undefined,
  selector: PoolSpec['nodeAffinity'],
  name: string,
  labels: Labels,
): boolean {
  if (names !== undefined && names.length > 0) return names.includes(name);
  return selector === undefined || matchesSelector(selector, labels);
}

function attachmentReason(pool: SpiderIPPool, user: PoolUser): string | undefined {
  const wanted = pool.spec.multusName ?? [];
  if (wanted.length === 0) return undefined;
  const qualified = wanted.map((name) => (name.includes('/') ? name : `${user.attachmentNamespace}/${name}`));
  const attachment = user.attachment();
  if (attachment !== undefined && qualified.includes(attachment)) return undefined;
  return (
    `the spec.multusName [${wanted.join(' ')}] in the IPPool ${pool.metadata.name ?? ''} used by the Pod interface ` +
    `${user.interface} is not matched with the multusCR ${attachment ?? '(none)'} specified by the Pod`
  );
}

/** Upstream leaves it out for pools with a multusName. */
function subnetReason(pool: SpiderIPPool, user: PoolUser): string | undefined {
  const { physicalFunction: pf } = user;
  if (pf === undefined) return undefined;
  const subnet = parsePrefix(pool.spec.subnet);
  const ofFamily = pf.addresses.filter(({ family }) => family === user.family);
  if (subnet !== undefined && ofFamily.some((address) => prefixContainsIp(subnet, address))) return undefined;
  return (
    `matchMasterSubnet: the subnet ${pool.spec.subnet} of IPPool ${pool.metadata.name ?? ''} contains no address of ${pf.name} ` +
    `(${ofFamily.map(formatIp).join(', ') || 'it has none'}), the physical function of ${user.interface}`
  );
}

/** Most specific first; pools that are equally specific stay in the order they were asked for. */
export function orderPools(pools: readonly SpiderIPPool[]): SpiderIPPool[] {
  return [...pools].sort((a, b) => specificity(b.spec) - specificity(a.spec));
}

function specificity(spec: PoolSpec): number {
  const isSet = [
    isFilled(spec.multusName),
    spec.namespaceAffinity !== undefined,
    isFilled(spec.namespaceName),
    spec.nodeAffinity !== undefined,
    isFilled(spec.nodeName),
    spec.podAffinity !== undefined,
  ];
  return isSet.reduce((sum, set, weight) => sum + (set ? 2 ** weight : 0), 0);
}

function isFilled(list: readonly string[] | undefined): boolean {
  return list !== undefined && list.length > 0;
}
