import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import type { Logger } from '../core/log.ts';
import { countOf, mergedAddresses, totalAddressCount } from '../ipam/pool-addresses.ts';
import { encodeControlledPools, poolsOfSubnet } from '../ipam/subnet-pools.ts';
import { withoutSpiderFinalizer } from './finalizer.ts';
import type { ObjectAccess } from './ports.ts';

/** Keeps a subnet's status what its pools make it, and lets a deleted subnet go when its last pool is gone. */

export interface SubnetReconcilerDeps {
  readonly subnets: Pick<ObjectAccess<SpiderSubnet>, 'cached' | 'read' | 'replace' | 'replaceStatus'>;
  readonly pools: Pick<ObjectAccess<SpiderIPPool>, 'list'>;
  readonly log: Logger;
}

export class SubnetReconciler {
  readonly #deps: SubnetReconcilerDeps;

  constructor(deps: SubnetReconcilerDeps) {
    this.#deps = deps;
  }

  /** Names of the subnets whose status the pool is part of. */
  subnetsOf(pool: SpiderIPPool): string[] {
    return this.#deps.subnets
      .cached()
      .filter((subnet) => poolsOfSubnet(subnet, [pool]).length > 0)
      .map(({ metadata }) => metadata.name ?? '');
  }

  /** Key: the subnet's name. */
  async reconcile(name: string): Promise<void> {
    const subnet = await this.#deps.subnets.read('', name);
    if (subnet === undefined) return;
    const pools = poolsOfSubnet(subnet, await this.#deps.pools.list());
    if (subnet.metadata.deletionTimestamp && pools.length === 0) {
      await this.#removeFinalizer(subnet);
      return;
    }
    const { status } = subnet;
    const controlledIPPools = encodeControlledPools(pools);
    const totalIPCount = totalAddressCount(subnet.spec);
    const allocatedIPCount = countOf(pools.flatMap(({ spec }) => mergedAddresses(spec)));
    const same =
      status?.controlledIPPools === controlledIPPools &&
      status?.totalIPCount === totalIPCount &&
      status.allocatedIPCount === allocatedIPCount;
    if (same) return;
    const { controlledIPPools: _, ...rest } = status ?? {};
    const pooled = controlledIPPools === undefined ? {} : { controlledIPPools };
    await this.#deps.subnets.replaceStatus({
      ...subnet,
      status: { ...rest, ...pooled, totalIPCount, allocatedIPCount },
    });
  }

  async #removeFinalizer(subnet: SpiderSubnet): Promise<void> {
    const released = withoutSpiderFinalizer(subnet);
    if (released === undefined) return;
    await this.#deps.subnets.replace(released);
    this.#deps.log.info({ subnet: subnet.metadata.name }, 'subnet has no pools any more and is deleted');
  }
}
