import { spiderErrors } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import { PoolBook } from '../ipam/pool-book.ts';
import type { IpamDeps } from './ipam-deps.ts';

/**
 * All writes of this node to pools. One write per pool is under way at a time, in the order of arrival, so an agent
 * never conflicts with itself; what arrives meanwhile goes into the next write together. Other agents' writes show
 * as conflicts: the pool is read anew and every operation of the batch is done again on what it says now.
 */

/** Below the 10 s after which the CNI executable gives up, so that its reader gets our error and not that one. */
const retryLimitMs = 8000;
const retryLimit = 200;
const maxBatch = 256;
const firstBackoffMs = 5;
const maxBackoffMs = 250;

/** Run on a book of the pool as it is now; runs again after a conflict, so it must not have effects of its own. */
export type PoolOperation<T> = (book: PoolBook, pool: SpiderIPPool) => T;

interface Waiting {
  readonly operation: PoolOperation<unknown>;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

type Outcome = { readonly value: unknown } | { readonly error: unknown };

type WriterDeps = Pick<IpamDeps, 'pools' | 'clock' | 'log' | 'random'>;

export class PoolWriter {
  readonly #deps: WriterDeps;
  readonly #queues = new Map<string, Waiting[]>();
  /** What our own last write answered: often newer than the cache. */
  readonly #written = new Map<string, SpiderIPPool>();

  constructor(deps: WriterDeps) {
    this.#deps = deps;
  }

  /** Rejects with what the operation throws, or when the pool cannot be written. */
  run<T>(poolName: string, operation: PoolOperation<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<unknown>((resolve, reject) => {
      const waiting = { operation, signal, resolve, reject };
      const queue = this.#queues.get(poolName);
      if (queue !== undefined) {
        queue.push(waiting);
        return;
      }
      this.#queues.set(poolName, [waiting]);
      void this.#drain(poolName);
    }) as Promise<T>;
  }

  /** Every pool, as the newest version this node has seen. */
  known(): SpiderIPPool[] {
    return this.#deps.pools.cached().map((pool) => newer(pool, this.#written.get(pool.metadata.name ?? '')));
  }

  async #drain(poolName: string): Promise<void> {
    const queue = this.#queues.get(poolName) ?? [];
    // Yields once, so that requests of the same moment share the first write as well.
    await Promise.resolve();
    while (queue.length > 0) {
      const batch = queue.splice(0, maxBatch).filter(isWanted);
      try {
        if (batch.length > 0) settle(batch, await this.#commit(poolName, batch));
      } catch (error) {
        for (const waiting of batch) waiting.reject(error);
      }
    }
    this.#queues.delete(poolName);
  }

  async #commit(poolName: string, batch: readonly Waiting[]): Promise<Outcome[]> {
    const startMs = this.#deps.clock.monotonicMs();
    let stale = this.#newest(poolName);
    for (let attempt = 1; ; attempt++) {
      const pool = stale ?? (await this.#read(poolName));
      const book = new PoolBook(pool);
      const outcomes = batch.map((waiting) => attemptOperation(waiting.operation, book, pool));
      // "Full" and "disabled" are said only of the pool as the API server has it.
      if (stale !== undefined && outcomes.some((outcome) => 'error' in outcome)) {
        stale = undefined;
        continue;
      }
      if (!book.changed || (await this.#write(pool, book))) return outcomes;
      stale = undefined;
      const elapsedMs = this.#deps.clock.monotonicMs() - startMs;
      if (attempt >= retryLimit || elapsedMs >= retryLimitMs) throw retriesExhausted(poolName, attempt);
      await this.#deps.clock.sleep(this.#backoffMs(attempt));
    }
  }

  /** False on a conflict. */
  async #write(pool: SpiderIPPool, book: PoolBook): Promise<boolean> {
    const { allocatedIPs: _, ...rest } = pool.status ?? {};
    try {
      const written = await this.#deps.pools.writeStatus({ ...pool, status: { ...rest, ...book.status() } });
      this.#written.set(book.poolName, written);
      return true;
    } catch (error) {
      this.#written.delete(book.poolName);
      if (!hasErrorCode(error, 'kube_conflict')) throw error;
      this.#deps.log.debug({ pool: book.poolName }, 'pool changed meanwhile, trying again');
      return false;
    }
  }

  async #read(poolName: string): Promise<SpiderIPPool> {
    const pool = await this.#deps.pools.read(poolName);
    if (pool !== undefined) return pool;
    this.#written.delete(poolName);
    throw poolNotFound(poolName);
  }

  #newest(poolName: string): SpiderIPPool | undefined {
    const written = this.#written.get(poolName);
    const cached = this.#deps.pools.cached().find((pool) => pool.metadata.name === poolName);
    return cached === undefined ? written : newer(cached, written);
  }

  #backoffMs(attempt: number): number {
    const ceiling = Math.min(maxBackoffMs, firstBackoffMs * 1.5 ** Math.min(attempt, 20));
    return ceiling * this.#deps.random();
  }
}

export function poolNotFound(poolName: string): SluiceError {
  return new SluiceError({
    code: 'ipam_no_pool',
    operation: 'failed to get original IPPool',
    object: poolName,
    what: `spiderippools.spiderpool.spidernet.io "${poolName}" not found`,
    remedy: `create the SpiderIPPool ${poolName}, or correct the name where the pod asks for it`,
  });
}

/**
 * Kubernetes orders resourceVersions of one resource as numbers (KEP-5504; etcd revisions before that). Where they
 * are not numbers the cache is trusted, and a wrong guess costs one conflict.
 */
function newer(cached: SpiderIPPool, written: SpiderIPPool | undefined): SpiderIPPool {
  const [left, right] = [cached.metadata.resourceVersion ?? '', written?.metadata.resourceVersion ?? ''];
  if (written === undefined || !/^[0-9]+$/.test(left) || !/^[0-9]+$/.test(right)) return cached;
  return BigInt(right) > BigInt(left) ? written : cached;
}

function isWanted(waiting: Waiting): boolean {
  if (waiting.signal?.aborted !== true) return true;
  waiting.reject(waiting.signal.reason);
  return false;
}

function attemptOperation(operation: PoolOperation<unknown>, book: PoolBook, pool: SpiderIPPool): Outcome {
  try {
    return { value: operation(book, pool) };
  } catch (error) {
    return { error };
  }
}

function settle(batch: readonly Waiting[], outcomes: readonly Outcome[]): void {
  for (const [index, outcome] of outcomes.entries()) {
    if ('error' in outcome) batch[index]?.reject(outcome.error);
    else batch[index]?.resolve(outcome.value);
  }
}

function retriesExhausted(poolName: string, attempts: number): SluiceError {
  return new SluiceError({
    code: 'ipam_conflict',
    operation: 'update status of',
    object: `SpiderIPPool ${poolName}`,
    what: `${spiderErrors.retries} (${attempts} times), failed to allocate IP from IPPool ${poolName}`,
    remedy: 'the request is tried again by itself; if this goes on, spread the pods over several pools',
  });
}
