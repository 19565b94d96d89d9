import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatErrorChain } from '../core/error.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import type { IpamPod } from '../ipam/pod.ts';
import { endpointHas, isSettled, showsAddress } from '../ipam/stale-record.ts';
import type { IpamState } from './ipam-state.ts';

/**
 * Returns what pools record for running pods of this node and the pods do not use. The node's agent does it and not the
 * controller, since an ADD that finds its record in the pool need not write the pool: no version shows that the record is
 * wanted again, only this process knows. docs/reference/garbage-collection.md.
 */

/** Between the first sight of a record and the questions to the API server. An ADD takes 90 s at most. */
const confirmMs = 120_000;

export interface StaleRecord {
  readonly pool: string;
  readonly address: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
}

interface Suspect extends StaleRecord {
  readonly key: string;
  readonly endpointName: string;
}

export class StaleRecords {
  readonly #state: IpamState;
  readonly #onReturned: ((record: StaleRecord) => void) | undefined;
  /** By pool, address and pod; since when, on the monotonic clock. */
  readonly #since = new Map<string, number>();
  /** What the API server said is in use; believed until this node writes the pod's endpoint. */
  readonly #inUse = new Set<string>();

  constructor(state: IpamState, onReturned?: (record: StaleRecord) => void) {
    this.#state = state;
    this.#onReturned = onReturned;
  }

  /** Call it every minute or so. Answers the addresses it returned. */
  async collect(signal: AbortSignal): Promise<string[]> {
    const { clock, log } = this.#state.deps;
    const nowMs = clock.monotonicMs();
    const suspects = this.#suspects();
    const keys = new Set(suspects.map(({ key }) => key));
    for (const key of this.#since.keys()) if (!keys.has(key)) this.#since.delete(key);
    const returned: string[] = [];
    for (const suspect of suspects) {
      const sinceMs = this.#since.get(suspect.key) ?? nowMs;
      this.#since.set(suspect.key, sinceMs);
      if (nowMs - sinceMs < confirmMs) continue;
      signal.throwIfAborted();
      try {
        if (await this.#isStale(suspect, signal)) returned.push(...(await this.#return(suspect)));
      } catch (error) {
        // Unknown is not unused.
        log.warn({ ...suspect, error: formatErrorChain(error) }, 'stale address not returned, trying again');
      }
    }
    return returned;
  }

  /** By the copies. */
  #suspects(): Suspect[] {
    const settled = this.#state.deps.pods.ofThisNode().filter((pod) => isSettled(pod));
    const byUid = new Map(settled.map((pod) => [pod.metadata?.uid ?? '', pod]));
    const marks = [...byUid.keys()].map((uid) => JSON.stringify(uid));
    return this.#state.writer
      .known()
      .filter(({ status }) => marks.some((mark) => status?.allocatedIPs?.includes(mark) === true))
      .flatMap((pool) => this.#suspectsIn(pool, byUid));
  }

  #suspectsIn(pool: SpiderIPPool, pods: ReadonlyMap<string, IpamPod>): Suspect[] {
    const poolName = pool.metadata.name ?? '';
    try {
      const records = [...decodeAllocatedIps(pool.status?.allocatedIPs, poolName)];
      return records.flatMap(([address, record]) => {
        const pod = pods.get(record.podUid);
        if (pod === undefined || showsAddress(pod, address)) return [];
        const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
        const key = `${poolName} ${address} ${uid}`;
        if (this.#isUsed(key, uid, address)) return [];
        const endpointName = record.pod.slice(namespace.length + 1);
        return [{ key, pool: poolName, address, endpointName, pod: { namespace, name, uid } }];
      });
    } catch (error) {
      this.#state.deps.log.warn({ error: formatErrorChain(error) }, 'pool left out of garbage collection');
      return [];
    }
  }

  /** As far as this process knows without asking. */
  #isUsed(key: string, podUid: string, address: string): boolean {
    if (this.#state.isAdding(podUid)) return true;
    return endpointHas(this.#state.endpoints.written(podUid), podUid, address) ?? this.#inUse.has(key);
  }

  /** By the API server. */
  async #isStale({ key, pod, endpointName, address }: Suspect, signal: AbortSignal): Promise<boolean> {
    const { deps, endpoints } = this.#state;
    const read = await deps.pods.read(pod.namespace, pod.name, signal);
    if (read?.metadata?.uid !== pod.uid || !isSettled(read)) return false;
    const endpoint: SpiderEndpoint | undefined = await endpoints.read(pod.namespace, endpointName, signal);
    // A pod that shows the address has it whatever its endpoint says; a pod without an endpoint keeps all it has.
    const isUsed = showsAddress(read, address) || endpointHas(endpoint, pod.uid, address) !== false;
    if (isUsed) this.#inUse.add(key);
    return !isUsed;
  }

  /** An ADD that began meanwhile is seen in the operation: its own operations on the pool come before or after. */
  async #return(suspect: Suspect): Promise<string[]> {
    const { key, pool, address, pod } = suspect;
    const { writer, deps } = this.#state;
    const isStale = (): boolean => !this.#isUsed(key, pod.uid, address);
    const released = await writer.run(pool, 'release', (book) =>
      book.release((record, text) => text === address && record.podUid === pod.uid && isStale()),
    );
    this.#since.delete(key);
    if (released.length === 0) return [];
    deps.log.info({ pool, address, pod }, 'address returned: the pod that has it on record does not use it');
    this.#onReturned?.({ pool, address, pod });
    return released;
  }
}
