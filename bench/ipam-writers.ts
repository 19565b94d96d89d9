/** Other ways for many agents to write one pool: what src/cni/ipam-writer.ts is compared with. */
import { hasErrorCode } from '../src/core/error.ts';
import { isExhausted, PoolBook } from '../src/ipam/pool-book.ts';
import type { TestAgent } from '../src/cni/ipam-test-api.ts';
import { pause } from './ipam-api.ts';

/** An address for the pod; throws when it gives up. */
export type Allocate = (pod: string) => Promise<string>;

/**
 * One write for each request, one request per pool and agent at a time, and so many tries with Spiderpool's pauses (10 ms,
 * half as much again each time).
 */
export function oneByOne({ state }: TestAgent, poolName: string, tries: number): Allocate {
  const { pools } = state.deps;
  return inTurn(async (pod) => {
    for (let attempt = 1; ; attempt++) {
      const pool = (await pools.read(poolName)) ?? fail(poolName);
      const book = new PoolBook(pool);
      const taken = take(book, pod);
      try {
        await pools.writeStatus({ ...pool, status: book.status() });
        return taken;
      } catch (error) {
        if (!hasErrorCode(error, 'kube_conflict') || attempt >= tries) throw error;
        await pause(10 * 1.5 ** Math.min(attempt - 1, 8) * (1 + 0.1 * Math.random()));
      }
    }
  });
}

/** A lock in the API server: taken and given back by a write each, tried again every 20 ms or so. */
export class TurnByLease {
  #holder: string | undefined;
  readonly #request: (kind: 'write' | 'read') => Promise<void>;

  constructor(request: (kind: 'write' | 'read') => Promise<void>) {
    this.#request = request;
  }

  allocator({ state }: TestAgent, poolName: string, agentName: string): Allocate {
    const waiting: { pod: string; resolve: (address: string) => void }[] = [];
    let isWorking = false;
    const work = async (): Promise<void> => {
      isWorking = true;
      while (waiting.length > 0) {
        await this.#acquire(agentName);
        const batch = waiting.splice(0);
        const pool = (await state.deps.pools.read(poolName)) ?? fail(poolName);
        const book = new PoolBook(pool);
        const addresses = batch.map(({ pod }) => take(book, pod));
        await state.deps.pools.writeStatus({ ...pool, status: book.status() });
        await this.#request('write');
        this.#holder = undefined;
        batch.forEach(({ resolve }, index) => resolve(addresses[index] ?? ''));
      }
      isWorking = false;
    };
    return (pod) =>
      new Promise((resolve) => {
        waiting.push({ pod, resolve });
        if (!isWorking) void work();
      });
  }

  async #acquire(agentName: string): Promise<void> {
    for (;;) {
      await this.#request('read');
      if (this.#holder === undefined) {
        await this.#request('write');
        if (this.#holder === undefined) {
          this.#holder = agentName;
          return;
        }
      }
      await pause(20 * (0.5 + Math.random()));
    }
  }
}

function take(book: PoolBook, pod: string): string {
  const result = book.allocate({ pod: `default/${pod}`, podUid: `uid-${pod}`, interface: 'eth0' });
  if (isExhausted(result)) throw new Error(result.exhausted);
  return result.address.value.toString();
}

function inTurn(allocate: Allocate): Allocate {
  let last: Promise<unknown> = Promise.resolve();
  return (pod) => {
    const mine = last.catch(() => undefined).then(() => allocate(pod));
    last = mine;
    return mine;
  };
}

function fail(poolName: string): never {
  throw new Error(`no pool ${poolName}`);
}
