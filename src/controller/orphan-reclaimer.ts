import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatErrorChain, hasErrorCode } from '../core/error.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { AllocationRecord } from '../ipam/allocated-ips.ts';
import { PoolBook } from '../ipam/pool-book.ts';
import type { ObjectAccess } from './ports.ts';

/**
 * Returns addresses whose pod is gone and whose node never said so: it died, or its agent was away when the runtime
 * gave up. A pod that is merely gone from the API may still run for its grace period, so a record must be without its
 * pod for a while first, and the API server is asked once more before the address is returned.
 */
const graceMs = 60_000;

/** Only the UID counts: a pod of the same name is another pod. */
export interface PodUids {
  /** UID of the pod of that name in the informer. */
  cached(namespace: string, name: string): string | undefined;
  read(namespace: string, name: string): Promise<string | undefined>;
}

export interface OrphanReclaimerDeps {
  readonly pools: Pick<ObjectAccess<SpiderIPPool>, 'cached' | 'read' | 'replaceStatus'>;
  readonly pods: PodUids;
  readonly clock: Clock;
  readonly log: Logger;
}

export class OrphanReclaimer {
  readonly #deps: OrphanReclaimerDeps;
  /** "pool address podUid" → when the record was first seen without its pod. */
  #suspects = new Map<string, number>();

  constructor(deps: OrphanReclaimerDeps) {
    this.#deps = deps;
  }

  /** One look at all records; call it again and again. */
  async scan(): Promise<void> {
    const nowMs = this.#deps.clock.monotonicMs();
    const suspects = new Map<string, number>();
    for (const pool of this.#deps.pools.cached()) {
      const due = new Set<string>();
      for (const [address, record] of recordsOf(pool, this.#deps.log)) {
        if (this.#cachedUid(record) === record.podUid) continue;
        const key = `${pool.metadata.name ?? ''} ${address} ${record.podUid}`;
        const sinceMs = this.#suspects.get(key) ?? nowMs;
        suspects.set(key, sinceMs);
        if (nowMs - sinceMs >= graceMs) due.add(record.podUid);
      }
      if (due.size > 0) await this.#reclaim(pool.metadata.name ?? '', due);
    }
    this.#suspects = suspects;
  }

  /** A conflict with an agent's write is left to the next scan. */
  async #reclaim(poolName: string, podUids: ReadonlySet<string>): Promise<void> {
    try {
      const pool = await this.#deps.pools.read('', poolName);
      if (pool === undefined) return;
      const book = new PoolBook(pool);
      const gone = new Set<string>();
      for (const record of book.records.values()) {
        if (podUids.has(record.podUid) && (await this.#isGone(record))) gone.add(record.podUid);
      }
      const addresses = book.release((record) => gone.has(record.podUid));
      if (addresses.length === 0) return;
      const { allocatedIPs: _, ...rest } = pool.status ?? {};
      await this.#deps.pools.replaceStatus({ ...pool, status: { ...rest, ...book.status() } });
      this.#deps.log.info({ pool: poolName, addresses }, 'addresses of vanished pods returned');
    } catch (error) {
      const level = hasErrorCode(error, 'kube_conflict') ? 'debug' : 'warn';
      this.#deps.log[level]({ pool: poolName, error: formatErrorChain(error) }, 'addresses not returned, trying again');
    }
  }

  #cachedUid(record: AllocationRecord): string | undefined {
    return this.#deps.pods.cached(...podOf(record));
  }

  async #isGone(record: AllocationRecord): Promise<boolean> {
    return (await this.#deps.pods.read(...podOf(record))) !== record.podUid;
  }
}

function recordsOf(pool: SpiderIPPool, log: Logger): ReadonlyMap<string, AllocationRecord> {
  try {
    return new PoolBook(pool).records;
  } catch (error) {
    log.warn({ error: formatErrorChain(error) }, 'pool left out of the scan for vanished pods');
    return new Map();
  }
}

function podOf(record: AllocationRecord): [namespace: string, name: string] {
  const [namespace = '', name = ''] = record.pod.split('/');
  return [namespace, name];
}
