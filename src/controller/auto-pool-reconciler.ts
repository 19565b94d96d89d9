import { spiderLabels } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { formatErrorChain, hasErrorCode } from '../core/error.ts';
import { formatIpRange, mergeRanges, subtractRanges, type IpRange } from '../core/ip-range.ts';
import { parseIp } from '../core/ip.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import { applicationAffinity, applicationLabels, type Application } from '../ipam/application.ts';
import { autoPoolLabels, autoPoolName, autoPoolOf, isAutoPool } from '../ipam/auto-pool.ts';
import { parseAutoPoolRequest, poolSize, type AutoPoolRequest } from '../ipam/auto-pool-request.ts';
import { countOf, intersectRanges, mergedAddresses } from '../ipam/pool-addresses.ts';
import { reservedRanges } from '../ipam/reserved-ip.ts';
import { freeOfSubnet, takeAddresses } from '../ipam/subnet-pools.ts';
import type { EventWriter, ObjectAccess } from './ports.ts';

/** Pools of applications whose pods name a SpiderSubnet: made, sized and removed with the application. */

export interface ApplicationState extends Application {
  /** Of the pods or their template. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly podCount: number;
  /** What events are about. */
  readonly object: object;
}

export interface AutoPoolReconcilerDeps {
  /** By `applicationKey`; undefined when it is gone, or has no pods and is not known otherwise. */
  readonly find: (key: string) => ApplicationState | undefined;
  /** Asked for a pool whose application is not found: whether that is there nevertheless. */
  readonly ownerLives: (pool: SpiderIPPool) => Promise<boolean>;
  readonly pools: Pick<ObjectAccess<SpiderIPPool>, 'list' | 'create' | 'replace'> & {
    remove(pool: SpiderIPPool): Promise<void>;
  };
  readonly subnets: Pick<ObjectAccess<SpiderSubnet>, 'read'>;
  readonly reserved: Pick<ObjectAccess<SpiderReservedIP>, 'list'>;
  /** clusterSubnetDefaultFlexibleIPNumber */
  readonly defaultExtra: number;
  readonly disabledFamilies: readonly number[];
  readonly writeEvent: (application: ApplicationState, ...rest: TailOf<EventWriter>) => void;
}

type TailOf<F extends (first: object, ...rest: never[]) => void> =
  Parameters<F> extends [object, ...infer Rest] ? Rest : never;
type Slot = AutoPoolRequest['slots'][number];

/** Group, kind, namespace and name: what pools are labelled with. */
export function applicationKey(application: Application): string {
  return keyOfLabels(applicationLabels(application));
}

/** Undefined for pools made by hand. */
export function applicationKeyOfPool(pool: SpiderIPPool): string | undefined {
  return isAutoPool(pool) ? keyOfLabels(pool.metadata.labels ?? {}) : undefined;
}

export class AutoPoolReconciler {
  readonly #deps: AutoPoolReconcilerDeps;

  constructor(deps: AutoPoolReconcilerDeps) {
    this.#deps = deps;
  }

  async reconcile(key: string): Promise<void> {
    const application = this.#deps.find(key);
    const request = application && this.#requestOf(application);
    // Nobody knows what a malformed annotation means: what was made for the last good one stays.
    if (request === 'malformed') return;
    const pools = await this.#deps.pools.list();
    if (application === undefined || request === undefined) {
      const own = pools.filter((pool) => applicationKeyOfPool(pool) === key && !pool.metadata.deletionTimestamp);
      if (application === undefined && own[0] !== undefined && (await this.#deps.ownerLives(own[0]))) return;
      await this.#reclaim(own);
      return;
    }
    for (const slot of request.slots) {
      if (this.#deps.disabledFamilies.includes(slot.family)) continue;
      await this.#ensure(application, request, slot, pools);
    }
  }

  #requestOf(application: ApplicationState): AutoPoolRequest | undefined | 'malformed' {
    // One more than pods is for the next pod while the last one goes: a pod that nobody controls has no next one.
    const defaultExtra = application.kind === 'Pod' ? 0 : this.#deps.defaultExtra;
    try {
      return parseAutoPoolRequest(application.annotations, defaultExtra);
    } catch (error) {
      this.#deps.writeEvent(application, 'Warning', 'InvalidSubnetAnnotation', formatErrorChain(error));
      return 'malformed';
    }
  }

  async #reclaim(pools: readonly SpiderIPPool[]): Promise<void> {
    for (const pool of pools) {
      const reclaims = pool.metadata.labels?.[spiderLabels.poolReclaim] !== 'false';
      if (reclaims) await this.#deps.pools.remove(pool);
    }
  }

  async #ensure(
    application: ApplicationState,
    request: AutoPoolRequest,
    slot: Slot,
    pools: readonly SpiderIPPool[],
  ): Promise<void> {
    const subnet = await this.#deps.subnets.read('', slot.subnet);
    if (subnet === undefined || subnet.metadata.deletionTimestamp) {
      const message = `SpiderSubnet ${slot.subnet} ${subnet === undefined ? 'does not exist' : 'is being deleted'}; create it`;
      this.#deps.writeEvent(application, 'Warning', 'SubnetNotFound', message);
      return;
    }
    const pool = autoPoolOf(pools, application, slot);
    const size = poolSize(request.size, application.podCount);
    const reserved = reservedRanges(await this.#deps.reserved.list());
    const free = freeOfSubnet(subnet, pools, reserved);
    const ranges = pool === undefined ? takeAddresses(free, size) : resized(pool, free, size);
    if (countOf(ranges) < size) {
      const message = `SpiderSubnet ${slot.subnet} has addresses for ${countOf(ranges)} of ${size}; add to its spec.ips`;
      this.#deps.writeEvent(application, 'Warning', 'SubnetExhausted', message);
    }
    const ips = mergeRanges(ranges).map(formatIpRange);
    if (pool !== undefined) await this.#update(pool, application, request, slot, ips);
    else if (ips.length > 0) await this.#create(application, request, slot, subnet, ips);
  }

  async #create(
    application: ApplicationState,
    request: AutoPoolRequest,
    slot: Slot,
    subnet: SpiderSubnet,
    ips: string[],
  ): Promise<void> {
    const name = autoPoolName(application, slot);
    await this.#deps.pools.create({
      apiVersion: 'spiderpool.spidernet.io/v2beta1',
      kind: 'SpiderIPPool',
      metadata: { name, labels: autoPoolLabels(application, slot, request.reclaim) },
      spec: {
        ipVersion: slot.family,
        subnet: subnet.spec.subnet,
        ips,
        podAffinity: { matchLabels: applicationAffinity(application) },
      },
    });
    this.#deps.writeEvent(application, 'Normal', 'PoolCreated', `created SpiderIPPool ${name} of ${slot.subnet}`);
  }

  /** Also a kept pool of an earlier application of that name, which this one takes over. */
  async #update(
    pool: SpiderIPPool,
    application: ApplicationState,
    request: AutoPoolRequest,
    slot: Slot,
    ips: string[],
  ): Promise<void> {
    const labels = { ...pool.metadata.labels, ...autoPoolLabels(application, slot, request.reclaim) };
    const sameLabels = Object.entries(labels).every(([key, value]) => pool.metadata.labels?.[key] === value);
    const sameIps = mergedAddresses(pool.spec).map(formatIpRange).join() === ips.join();
    if (sameLabels && sameIps) return;
    const { excludeIPs: _, ...spec } = pool.spec;
    const next = { ...pool, metadata: { ...pool.metadata, labels }, spec: { ...spec, ips } };
    try {
      await this.#deps.pools.replace(next);
    } catch (error) {
      if (hasErrorCode(error, 'kube_not_found')) return;
      throw error;
    }
  }
}

/** More from what is free; less by those that no pod has, the last ones first. */
function resized(pool: SpiderIPPool, free: readonly IpRange[], size: number): IpRange[] {
  const own = mergedAddresses(pool.spec);
  const missing = size - countOf(own);
  if (missing >= 0) return [...own, ...takeAddresses(free, missing)];
  const records = decodeAllocatedIps(pool.status?.allocatedIPs, pool.metadata.name ?? '');
  const used = [...records.keys()].flatMap((text) => {
    const ip = parseIp(text);
    return ip === undefined ? [] : [{ first: ip, last: ip }];
  });
  const kept = intersectRanges(own, mergeRanges(used));
  return [...kept, ...takeAddresses(subtractRanges(own, kept), size - countOf(kept))];
}

function keyOfLabels(labels: Readonly<Record<string, string>>): string {
  const { ownerGroupVersion, ownerKind, ownerNamespace, ownerName } = spiderLabels;
  return [ownerGroupVersion, ownerKind, ownerNamespace, ownerName].map((key) => labels[key] ?? '').join('/');
}
