import { spiderErrors } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import { PoolBook } from '../ipam/pool-book.ts';
import type { IpamDeps, PoolPurpose } from './ipam-deps.ts';

/**
 * All writes of this node to pools. One write per pool is under way at a time, so an agent never conflicts with itself;
 * what arrives while it waits goes into its next attempt too. Other agents' writes show as conflicts: after a pause the
 * pool is taken anew, from the watch where that is ahead already, and every operation of the batch is done again on what
 * it says now. Why batches and pauses, and not turns: docs/decisions/0006-many-agents-one-pool.md.
 */

/** A request is given up after this; the CNI executable waits 90 s, Spiderpool's own 100 s. */
const retryLimitMs = 30_000;
const maxBatch = 256;
const firstBackoffMs = 5;
const maxBackoffMs = 250;

/** Run on a book of the pool as it is now; runs again after a conflict, so it must not have effects of its own. */
export type PoolOperation<T> = (book: PoolBook, pool: SpiderIPPool) => T;

interface Waiting {
  readonly purpose: PoolPurpose;
  readonly operation: PoolOperation<unknown>;
  readonly signal: AbortSignal | undefined;
  readonly sinceMs: number;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

type Outcome = { readonly value: unknown } | { readonly error: unknown };

/** The book of the pool at this version, with nothing in it that is not stored. */
interface OpenBook {
  readonly resourceVersion: string | undefined;
  readonly book: PoolBook;
}

export type WriterDeps = Pick<IpamDeps, 'pools' | 'clock' | 'log' | 'random' | 'maxRecordsPerPool' | 'observe'>;

export class PoolWriter {
  readonly #deps: WriterDeps;
  readonly #queues = new Map<string, Waiting[]>();
  /** What our own last write answered: often newer than the cache. */
  readonly #written = new Map<string, SpiderIPPool>();
  readonly #open = new Map<string, OpenBook>();

  constructor(deps: WriterDeps) {
    this.#deps = deps;
  }

  /** Rejects with what the operation throws, or when the pool cannot be written. */
  run<T>(poolName: string, purpose: PoolPurpose, operation: PoolOperation<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<unknown>((resolve, reject) => {
      const waiting = { purpose, operation, signal, sinceMs: this.#deps.clock.monotonicMs(), resolve, reject };
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
    let batch: Waiting[] = [];
    let lost: Lost | undefined;
    for (;;) {
      const arrived = queue.splice(0, maxBatch - batch.length);
      this.#tellQueued(arrived);
      batch = [...batch, ...arrived].filter(isWanted);
      if (batch.length === 0) break;
      try {
        const outcomes = await this.#attempt(poolName, batch, lost);
        if (isLost(outcomes)) {
          lost = { ...outcomes, times: (lost?.times ?? 0) + 1 };
          for (const { purpose } of batch) this.#deps.observe?.poolConflict(purpose);
          batch = batch.filter((waiting) => this.#isInTime(waiting, poolName, lost));
          await this.#deps.clock.sleep(backoffMs(lost.times, this.#deps.random));
          continue;
        }
        settle(batch, outcomes);
      } catch (error) {
        for (const waiting of batch) waiting.reject(error);
      }
      [batch, lost] = [[], undefined];
    }
    this.#queues.delete(poolName);
  }

  #tellQueued(arrived: readonly Waiting[]): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const { purpose, sinceMs } of arrived) this.#deps.observe?.poolQueued(purpose, nowMs - sinceMs);
  }

  /** One write for all; none when the book is the same afterwards. */
  async #attempt(poolName: string, batch: readonly Waiting[], lost: Lost | undefined): Promise<Outcome[] | Lost> {
    const known = this.#newest(poolName);
    let stale = known !== undefined && isAhead(known, lost) ? known : undefined;
    for (;;) {
      const pool = stale ?? (await this.#read(poolName));
      const book = this.#book(pool);
      const outcomes = batch.map((waiting) => attemptOperation(waiting.operation, book, pool));
      // "Full" and "disabled" are said only of the pool as the API server has it.
      if (stale === undefined || !outcomes.some((outcome) => 'error' in outcome)) {
        if (!book.changed || (await this.#write(pool, book))) return outcomes;
        return { resourceVersion: pool.metadata.resourceVersion, times: 0 };
      }
      this.#open.delete(poolName);
      stale = undefined;
    }
  }

  #book(pool: SpiderIPPool): PoolBook {
    const name = pool.metadata.name ?? '';
    const open = this.#open.get(name);
    if (open !== undefined && !open.book.changed && open.resourceVersion === pool.metadata.resourceVersion)
      return open.book;
    const book = new PoolBook(pool, this.#deps.maxRecordsPerPool);
    this.#open.set(name, { resourceVersion: pool.metadata.resourceVersion, book });
    return book;
  }

  /** False on a conflict. */
  async #write(pool: SpiderIPPool, book: PoolBook): Promise<boolean> {
    const { allocatedIPs: _, ...rest } = pool.status ?? {};
    this.#open.delete(book.poolName);
    try {
      const written = await this.#deps.pools.writeStatus({ ...pool, status: { ...rest, ...book.status() } });
      this.#written.set(book.poolName, written);
      book.committed();
      this.#open.set(book.poolName, { resourceVersion: written.metadata.resourceVersion, book });
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
    this.#open.delete(poolName);
    throw poolNotFound(poolName);
  }

  #newest(poolName: string): SpiderIPPool | undefined {
    const written = this.#written.get(poolName);
    const cached = this.#deps.pools.cached().find((pool) => pool.metadata.name === poolName);
    return cached === undefined ? written : newer(cached, written);
  }

  #isInTime(waiting: Waiting, poolName: string, lost: Lost | undefined): boolean {
    if (this.#deps.clock.monotonicMs() - waiting.sinceMs < retryLimitMs) return true;
    waiting.reject(retriesExhausted(poolName, lost?.times ?? 0));
    return false;
  }
}

/** A write that came too late. */
interface Lost {
  /** What it was based on. */
  readonly resourceVersion: string | undefined;
  /** In a row. */
  readonly times: number;
}

function isLost(outcomes: readonly Outcome[] | Lost): outcomes is Lost {
  return !Array.isArray(outcomes);
}

/** Whether the copy is newer than what lost; where versions are no numbers it may be that very version. */
function isAhead(known: SpiderIPPool, lost: Lost | undefined): boolean {
  if (lost === undefined) return true;
  const [version, base] = [known.metadata.resourceVersion ?? '', lost.resourceVersion ?? ''];
  return /^[0-9]+$/.test(version) && /^[0-9]+$/.test(base) && BigInt(version) > BigInt(base);
}

function backoffMs(times: number, random: () => number): number {
  return Math.min(maxBackoffMs, firstBackoffMs * 1.5 ** Math.min(times, 20)) * random();
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
