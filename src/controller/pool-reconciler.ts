import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatIpRange } from '../core/ip-range.ts';
import type { Logger } from '../core/log.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import { intersectRanges, mergedAddresses, totalAddressCount } from '../ipam/pool-addresses.ts';
import { withoutSpiderFinalizer } from './finalizer.ts';
import type { EventWriter, ObjectAccess } from './ports.ts';

/** Keeps a pool's counts right and lets a deleted pool go when its last address is back. */

export interface PoolReconcilerDeps {
  readonly pools: Pick<ObjectAccess<SpiderIPPool>, 'cached' | 'read' | 'replace' | 'replaceStatus'>;
  readonly writeEvent: EventWriter;
  readonly log: Logger;
}

export class PoolReconciler {
  readonly #deps: PoolReconcilerDeps;

  constructor(deps: PoolReconcilerDeps) {
    this.#deps = deps;
  }

  /** Key: the pool's name. Conflicts with the agents' writes are errors here, and are simply tried again. */
  async reconcile(name: string): Promise<void> {
    const pool = await this.#deps.pools.read('', name);
    if (pool === undefined) return;
    const records = decodeAllocatedIps(pool.status?.allocatedIPs, name);
    if (pool.metadata.deletionTimestamp && records.size === 0) {
      await this.#removeFinalizer(pool);
      return;
    }
    this.#warnOfOverlap(pool);
    const counts = { totalIPCount: totalAddressCount(pool.spec), allocatedIPCount: records.size };
    const { status } = pool;
    if (status?.totalIPCount === counts.totalIPCount && status.allocatedIPCount === counts.allocatedIPCount) return;
    await this.#deps.pools.replaceStatus({ ...pool, status: { ...status, ...counts } });
  }

  async #removeFinalizer(pool: SpiderIPPool): Promise<void> {
    const released = withoutSpiderFinalizer(pool);
    if (released === undefined) return;
    await this.#deps.pools.replace(released);
    this.#deps.log.info({ pool: pool.metadata.name }, 'pool has no addresses in use any more and is deleted');
  }

  /** Possible only when admission was away; allocation is safe all the same, the older pool owns the addresses. */
  #warnOfOverlap(pool: SpiderIPPool): void {
    const own = mergedAddresses(pool.spec);
    for (const other of this.#deps.pools.cached()) {
      if (other.metadata.name === pool.metadata.name) continue;
      const shared = intersectRanges(own, mergedAddresses(other.spec));
      if (shared.length === 0) continue;
      const ranges = shared.map(formatIpRange).join(' ');
      const message =
        `overlap with IPPool ${other.metadata.name ?? ''} in IP ranges [${ranges}]: only the older of the two hands ` +
        `these addresses out; remove them from spec.ips of one`;
      this.#deps.writeEvent(pool, 'Warning', 'PoolsOverlap', message);
    }
  }
}
