import type { Node, Pod } from '../api/kubernetes.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { AllocationRecord } from '../ipam/allocated-ips.ts';
import { coversOrdinal, setNameOf, type OwnerObject } from '../ipam/pod-owner.ts';
import { PoolBook } from '../ipam/pool-book.ts';
import { decideRecord, type GcDecision, type GcFacts, type GcFlags } from './gc-decision.ts';
import type { ObjectAccess } from './ports.ts';

/**
 * Returns addresses whose pod is gone or has ended and whose node never said so: it died, or its agent was away when the
 * runtime gave up. What the copies say makes a record a suspect; after a pause the API server itself is asked, and only
 * what it says releases. A conflict with an agent's write leaves the record to the next look.
 */

/** Between becoming a suspect and being released: the node's own DEL comes first, and no copy lags so far behind. */
const traceGapMs = 5_000;
const conflictAttempts = 5;

export interface GcPods {
  cached(namespace: string, name: string): Pod | undefined;
  read(namespace: string, name: string): Promise<Pod | undefined>;
}

export interface GcOwners {
  read(owner: { apiVersion: string; kind: string; namespace: string; name: string }): Promise<OwnerObject | undefined>;
}

export interface GcSettings extends GcFlags {
  readonly statefulSets: boolean;
  readonly virtualMachines: boolean;
}

export interface GcCollectorDeps {
  readonly pools: Pick<ObjectAccess<SpiderIPPool>, 'cached' | 'read' | 'replaceStatus'>;
  readonly pods: GcPods;
  readonly endpoints: {
    read(namespace: string, name: string): Promise<SpiderEndpoint | undefined>;
    remove(endpoint: SpiderEndpoint): Promise<void>;
  };
  readonly owners: GcOwners;
  readonly readNode: (name: string) => Promise<Node | undefined>;
  readonly settings: GcSettings;
  /** Told how many addresses were returned, or that returning some failed. */
  readonly observe?: ((outcome: 'released' | 'failed', count: number) => void) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A record, and what is to become of it. */
export interface GcExamined {
  readonly pool: string;
  readonly address: string;
  /** namespace/name */
  readonly pod: string;
  readonly decision: GcDecision;
}

export class GcCollector {
  readonly #deps: GcCollectorDeps;
  /** namespace/name of records' pods → when to ask the API server about them. */
  readonly #suspects = new Map<string, number>();

  constructor(deps: GcCollectorDeps) {
    this.#deps = deps;
  }

  get suspects(): number {
    return this.#suspects.size;
  }

  /** Looks at every record of every pool, in the copies. */
  scan(): void {
    for (const pool of this.#deps.pools.cached()) {
      for (const record of this.#recordsOf(pool).values()) this.#suspect(record);
    }
  }

  /** Something happened to the pod: its records, if it has any, are looked at when they may be due. */
  podChanged(pod: Pod): void {
    const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
    const isCached = this.#deps.pods.cached(namespace, name)?.metadata?.uid === uid;
    if (isCached && !pod.metadata?.deletionTimestamp && !hasEnded(pod)) return;
    this.#suspect({ pod: `${namespace}/${name}`, podUid: uid, interface: '' });
  }

  /** Releases what is due of the suspects. Call it every few seconds. */
  async collect(): Promise<void> {
    const nowMs = this.#deps.clock.nowMs();
    const due = [...this.#suspects].filter(([, dueMs]) => dueMs <= nowMs).map(([pod]) => pod);
    for (const pod of due) {
      this.#suspects.delete(pod);
      try {
        await this.collectPod(pod);
      } catch (error) {
        // Unknown is not gone: the next scan sees it again.
        this.#deps.observe?.('failed', 1);
        this.#deps.log.warn({ pod, error: formatErrorChain(error) }, 'addresses not returned, trying again');
      }
    }
  }

  /** What the API server says now of every suspect's records, due or not. Changes nothing. */
  async examine(): Promise<GcExamined[]> {
    const examined: GcExamined[] = [];
    for (const podKey of this.#suspects.keys()) {
      const [namespace = '', name = ''] = podKey.split('/');
      for (const poolName of this.#holding(podKey)) {
        const pool = await this.#deps.pools.read('', poolName);
        if (pool === undefined) continue;
        const facts = await this.#facts(namespace, name);
        for (const [address, record] of recordsIn(pool)) {
          if (record.pod !== podKey) continue;
          const decision = decideRecord({ ...facts, record }, this.#deps.settings);
          examined.push({ pool: poolName, address, pod: podKey, decision });
        }
      }
    }
    return examined;
  }

  /** Returns what is due of the pod, as the API server has it, at once. Answers the addresses. */
  async collectPod(podKey: string): Promise<string[]> {
    const [namespace = '', name = ''] = podKey.split('/');
    const released: string[] = [];
    for (const poolName of this.#holding(podKey)) released.push(...(await this.#release(poolName, namespace, name)));
    return released;
  }

  #suspect(record: AllocationRecord): void {
    const [namespace = '', name = ''] = record.pod.split('/');
    const { clock, settings, pods } = this.#deps;
    const nowMs = clock.nowMs();
    const pod = pods.cached(namespace, name);
    // Not known here: the endpoint, whether the workload wants it, the node. The worst is assumed, and asked about later.
    const facts = { record, pod, endpoint: undefined, isWanted: undefined, isNodeReady: true, nowMs };
    const lenient = { ...settings, terminatingOnReadyNode: true, terminatingOnNotReadyNode: true };
    const decision = decideRecord(facts, lenient);
    if (decision.action === 'keep') return;
    const earliestMs = nowMs + traceGapMs + (pod === undefined ? settings.additionalDelayMs : 0);
    const dueMs = Math.max(earliestMs, decision.action === 'wait' ? decision.untilMs : 0);
    this.#suspects.set(record.pod, Math.min(this.#suspects.get(record.pod) ?? Infinity, dueMs));
  }

  /** Names of the pools with records of the pod, in the copies. */
  #holding(podKey: string): string[] {
    const mark = JSON.stringify(podKey);
    const holding = this.#deps.pools.cached().filter(({ status }) => status?.allocatedIPs?.includes(mark));
    return holding.map(({ metadata }) => metadata.name ?? '');
  }

  /**
   * Before the records: a record without endpoint is found by the next scan, an endpoint without record is not. It may be of an
   * earlier pod than the records: of one whose successor died between the two.
   */
  async #removeEndpoint(podKey: string, facts: Omit<GcFacts, 'record'>): Promise<void> {
    const { endpoint } = facts;
    const podUid = endpoint?.status?.current.uid;
    if (endpoint === undefined || podUid === undefined) return;
    const record = { pod: podKey, podUid, interface: '' };
    if (decideRecord({ ...facts, record }, this.#deps.settings).action === 'release')
      await this.#deps.endpoints.remove(endpoint);
  }

  /** From the API server. The endpoint first: the pod that it is of is then known, if there is one. */
  async #facts(namespace: string, name: string): Promise<Omit<GcFacts, 'record'>> {
    const { pods, endpoints, readNode, clock } = this.#deps;
    const endpoint = await endpoints.read(namespace, name);
    const pod = await pods.read(namespace, name);
    const isWanted = await this.#isWanted(namespace, name, pod, endpoint);
    const node = pod?.metadata?.deletionTimestamp ? await readNode(pod.spec?.nodeName ?? '') : undefined;
    return { pod, endpoint, isWanted, isNodeReady: isReady(node), nowMs: clock.nowMs() };
  }

  async #isWanted(
    namespace: string,
    name: string,
    pod: Pod | undefined,
    endpoint: SpiderEndpoint | undefined,
  ): Promise<boolean | undefined> {
    const { settings, owners } = this.#deps;
    const own = pod?.metadata?.ownerReferences?.find(({ controller }) => controller === true);
    const kind = own?.kind ?? endpoint?.status?.ownerControllerType;
    const ownerName = own?.name ?? endpoint?.status?.ownerControllerName ?? '';
    if (kind === 'StatefulSet' && settings.statefulSets) {
      const set = { apiVersion: 'apps/v1', kind, namespace, name: ownerName || setNameOf(name) };
      return coversOrdinal(await owners.read(set), name);
    }
    if (kind !== 'VirtualMachineInstance' || !settings.virtualMachines) return undefined;
    for (const up of [kind, 'VirtualMachine']) {
      const machine = await owners.read({ apiVersion: 'kubevirt.io/v1', kind: up, namespace, name: ownerName });
      if (machine !== undefined && !machine.metadata?.deletionTimestamp) return true;
    }
    return false;
  }

  /**
   * The pool is read first, everything else after it, and the pool is written only if it is still that version. In the
   * other order a pod of the same name may be made, and get an address, between what is known of the old one and the
   * records: it would lose it. Found by test/ipam-chaos.test.ts.
   */
  async #release(poolName: string, namespace: string, name: string): Promise<string[]> {
    const { pools, settings, log, observe } = this.#deps;
    const podKey = `${namespace}/${name}`;
    for (let attempt = 1; ; attempt++) {
      const pool = await pools.read('', poolName);
      if (pool === undefined) return [];
      const book = new PoolBook(pool);
      const facts = await this.#facts(namespace, name);
      const decisions = new Map<string, GcDecision>();
      const addresses = book.release((record, address) => {
        if (record.pod !== podKey) return false;
        const decision = decideRecord({ ...facts, record }, settings);
        decisions.set(address, decision);
        if (decision.action === 'wait') this.#suspects.set(podKey, decision.untilMs);
        return decision.action === 'release';
      });
      if (addresses.length === 0) return [];
      await this.#removeEndpoint(podKey, facts);
      const { allocatedIPs: _, ...rest } = pool.status ?? {};
      try {
        await pools.replaceStatus({ ...pool, status: { ...rest, ...book.status() } });
      } catch (error) {
        if (!hasErrorCode(error, 'kube_conflict') || attempt >= conflictAttempts) throw error;
        continue;
      }
      observe?.('released', addresses.length);
      const reasons = addresses.map((address) => `${address}: ${decisions.get(address)?.reason ?? ''}`);
      log.info({ pool: poolName, pod: podKey, reasons }, 'addresses returned');
      return addresses;
    }
  }

  #recordsOf(pool: SpiderIPPool): ReadonlyMap<string, AllocationRecord> {
    try {
      return recordsIn(pool);
    } catch (error) {
      this.#deps.log.warn({ error: formatErrorChain(error) }, 'pool left out of garbage collection');
      return new Map();
    }
  }
}

function recordsIn(pool: SpiderIPPool): ReadonlyMap<string, AllocationRecord> {
  return new PoolBook(pool).records;
}

function hasEnded({ status }: Pod): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed';
}

function isReady(node: Node | undefined): boolean {
  const conditions = node?.status?.conditions ?? [];
  return conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
}
