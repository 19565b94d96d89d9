/**
 * Keeps what the kernel enforces equal to what the API objects say: ipcache (address → identity) and one policy per
 * endpoint. Level-based: each run computes the whole desired state and writes what differs.
 *
 * The order of writes, so that an address is let in only where the old policies let it in, or the new ones do, and a flow
 * that both allow is not cut in between:
 *
 *   1. policies widened: what is in force, plus entries for identities that no address has yet. Nobody matches those.
 *   2. ipcache: addresses move to their new identities, which every policy knows since step 1.
 *   3. policies as they are to be. Identities without addresses are then released; their numbers rest before reuse.
 *
 * Writing the new policies first would be wrong: an address that a new policy excepts (ipBlock.except) still has an
 * identity that does not know of the exception, and would be let in until step 2. In step 2 an address may move to an
 * identity that others have already; it is then judged by the old policies as one of them, as if its labels had changed a
 * moment before the policies did.
 *
 * Until every informer is synced nothing is written: what an earlier agent left in the kernel stays in force. Identities
 * of a new process begin above all that the kernel holds, so that an old entry never means somebody else.
 */
import type { EnforcementMode } from '../api/agent-api.ts';
import type { Namespace, Node, Pod } from '../api/kubernetes.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import { parsePrefix, type IpPrefix } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { BoundedRunner } from '../core/runner.ts';
import { PodPolicyCompiler, type EndpointPolicy } from '../policy/compile.ts';
import { formatDiagnostic, type Diagnostic } from '../policy/diagnostics.ts';
import {
  firstAllocatedIdentity,
  IdentityAllocator,
  lastAllocatedIdentity,
  type IdentityId,
} from '../policy/identity.ts';
import { computeIpcache, IpcacheMemo } from '../policy/ipcache.ts';
import type { PolicyIndex } from '../policy/policy-index.ts';
import { RuleIds } from '../policy/rule-id.ts';
import { IdentityView } from '../policy/select.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { agentLimits } from './limits.ts';

export interface ProgrammedPolicy extends Pick<EndpointPolicy, 'isolated' | 'entries'> {
  /** What policy would drop passes and is reported. */
  readonly audit?: boolean;
}

/** The part of src/datapath's Datapath that policy needs. */
export interface PolicyMaps {
  setPolicy(endpointId: number, policy: ProgrammedPolicy): void;
  /** What the kernel holds; undefined while the endpoint drops everything. */
  policy(endpointId: number): ProgrammedPolicy | undefined;
  updateIpcache(change: {
    readonly upsert: readonly (readonly [IpPrefix, number])[];
    readonly remove: readonly IpPrefix[];
  }): void;
  /** Prefix in canonical text → identity. */
  ipcache(): ReadonlyMap<string, number>;
}

/** The part of ClusterView that decides about policy. */
export interface PolicyWorld {
  readonly synced: boolean;
  readonly addressRevision: number;
  readonly policyIndex: PolicyIndex;
  readonly pods: { list(): readonly Pod[] };
  readonly nodes: { list(): readonly Node[] };
  readonly namespaces: { list(): readonly Namespace[] };
  podOf(ref: EndpointRecord['pod']): Pod | undefined;
}

export interface PolicyReconcilerDeps {
  readonly cluster: PolicyWorld;
  readonly maps: PolicyMaps;
  readonly endpoints: () => readonly EndpointRecord[];
  readonly nodeName: string;
  /** Default: isolated when a policy selects the pod. */
  readonly enforcement?: EnforcementMode;
  /** Whether the namespace only reports what policy would drop. */
  readonly audited?: (namespace: string) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told once about each problem of a policy. */
  readonly onDiagnostic: (diagnostic: Diagnostic) => void;
  readonly onRun: (outcome: 'success' | 'failure', durationMs: number) => void;
}

export class PolicyReconciler {
  readonly ruleIds = new RuleIds();
  readonly #compiler: PodPolicyCompiler;
  readonly #described = new IpcacheMemo();
  readonly #deps: PolicyReconcilerDeps;
  readonly #runner: BoundedRunner;
  readonly #identities: IdentityAllocator;
  /** What the kernel holds, as this process wrote or found it. */
  readonly #ipcache: Map<string, number>;
  readonly #policies = new Map<number, ProgrammedPolicy & { readonly key: string }>();
  readonly #failures = new Map<number, unknown>();
  readonly #told = new Set<string>();
  /** References held in the allocator: the identities of the last ipcache computed. */
  #held: ReadonlyMap<string, IdentityId> = new Map();
  #computedFor = '';
  #view: { readonly revision: number; readonly view: IdentityView } | undefined;
  /** Why the last run ended before it reached every endpoint. */
  #runFailure: unknown;
  #lastFailure: string | undefined;

  constructor(deps: PolicyReconcilerDeps) {
    this.#deps = deps;
    this.#compiler = new PodPolicyCompiler(this.ruleIds, deps.enforcement);
    this.#ipcache = new Map(deps.maps.ipcache());
    this.#identities = new IdentityAllocator({
      nowMs: () => deps.clock.monotonicMs(),
      firstNumber: firstFreeNumber(this.#ipcache.values()),
    });
    for (const record of deps.endpoints()) this.#adopt(record.endpointId);
    this.#runner = new BoundedRunner({
      name: 'policy',
      run: () => this.runNow(),
      clock: deps.clock,
      log: deps.log,
      minIntervalMs: agentLimits.policyMinIntervalMs,
      maxIntervalMs: agentLimits.policyMaxIntervalMs,
    });
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#runner.start(signal);
  }

  markDirty(): void {
    this.#runner.markDirty();
  }

  /** The kernel lost the endpoint's policy: the next run writes it again. */
  rewrite(endpointId: number): void {
    this.#policies.delete(endpointId);
    this.markDirty();
  }

  /** Resolves when a run that began after this call has written the endpoint's policy; rejects if it could not. */
  async program(endpointId: number, signal: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    // A run fails when any endpoint fails; only this one's outcome matters here.
    await Promise.race([this.#runner.runOnce().catch(() => undefined), aborted]);
    signal.throwIfAborted();
    const cause = this.#failures.get(endpointId) ?? this.#runFailure;
    if (cause === undefined && this.#policies.has(endpointId)) return;
    throw new SluiceError({
      code: 'datapath_incomplete',
      operation: 'program policy of',
      object: `endpoint ${endpointId}`,
      what: cause === undefined ? 'the run did not reach it' : 'failed',
      cause,
    });
  }

  /** Why the kernel may lag behind the API objects; empty when it does not. */
  problems(): string[] {
    return this.#lastFailure === undefined ? [] : [this.#lastFailure];
  }

  /** Number of identities in use, for metrics. */
  get identityCount(): number {
    return this.#identities.size;
  }

  /** One run, in this call; `start` runs it as often as needed. */
  runNow(): void {
    if (!this.#deps.cluster.synced) return;
    const startedMs = this.#deps.clock.monotonicMs();
    try {
      this.#reconcile();
      this.#lastFailure = undefined;
    } catch (error) {
      this.#lastFailure = formatErrorChain(error);
      throw error;
    } finally {
      const outcome = this.#lastFailure === undefined ? 'success' : 'failure';
      this.#deps.onRun(outcome, this.#deps.clock.monotonicMs() - startedMs);
    }
  }

  #reconcile(): void {
    const local = this.#localPods();
    this.#forgetGone();
    this.#failures.clear();
    this.#runFailure = undefined;
    try {
      this.#moveAddresses(local);
      for (const [record, pod] of local) {
        const audit = this.#deps.audited?.(record.pod.namespace) === true;
        this.#write(record.endpointId, { ...this.#compile(pod, true), audit });
      }
    } catch (error) {
      this.#runFailure = error;
      throw error;
    }
    const [first] = this.#failures;
    if (first === undefined) return;
    const what = `${this.#failures.size} endpoints could not be written, the first is ${first[0]}`;
    throw new SluiceError({
      code: 'datapath_incomplete',
      operation: 'write',
      object: 'policies',
      what,
      cause: first[1],
    });
  }

  /** Steps 1 and 2. A failure leaves the allocator as it was; the next run computes everything again. */
  #moveAddresses(local: readonly (readonly [EndpointRecord, Pod])[]): void {
    const { inputs, wanted } = this.#wantedIpcache(local);
    try {
      const change = diffIpcache(this.#ipcache, wanted);
      if (change.upsert.length + change.remove.length > 0) {
        this.#widenPolicies(local, newIdentities(this.#ipcache, wanted));
        this.#deps.maps.updateIpcache(change);
        replaceContent(this.#ipcache, wanted);
      }
    } catch (error) {
      if (wanted !== this.#held) this.#releaseAll(wanted);
      replaceContent(this.#ipcache, this.#deps.maps.ipcache());
      throw error;
    }
    if (wanted === this.#held) return;
    const before = this.#held;
    this.#held = wanted;
    this.#computedFor = inputs;
    this.#releaseAll(before);
  }

  /** Endpoints whose pod is known. Without its pod, as after a forced deletion, an endpoint keeps what it has. */
  #localPods(): (readonly [EndpointRecord, Pod])[] {
    return this.#deps.endpoints().flatMap((record) => {
      const pod = this.#deps.cluster.podOf(record.pod);
      return pod === undefined ? [] : [[record, pod] as const];
    });
  }

  /** Holds a reference for each address in `wanted`, unless it is the map that is held already. */
  #wantedIpcache(local: readonly (readonly [EndpointRecord, Pod])[]): {
    readonly inputs: string;
    readonly wanted: ReadonlyMap<string, IdentityId>;
  } {
    const { cluster, nodeName } = this.#deps;
    const prefixes = cluster.policyIndex.prefixes(new Set(local.map(([record]) => record.pod.namespace)));
    const ownAddresses = local.map(([record]) => [record.pod.uid, record.ips]);
    const inputs = JSON.stringify([cluster.addressRevision, prefixes, ownAddresses]);
    if (inputs === this.#computedFor) return { inputs, wanted: this.#held };
    const pods = withLocalAddresses(cluster.pods.list(), local);
    const objects = { pods, nodes: cluster.nodes.list(), namespaces: cluster.namespaces.list() };
    const descriptors = computeIpcache({ ...objects, nodeName, prefixes }, this.#described);
    const wanted = new Map<string, IdentityId>();
    for (const [prefix, descriptor] of descriptors) {
      const id = this.#identities.acquire(descriptor);
      if (id === undefined) {
        this.#releaseAll(wanted);
        throw outOfIdentities();
      }
      wanted.set(prefix, id);
    }
    return { inputs, wanted };
  }

  #widenPolicies(local: readonly (readonly [EndpointRecord, Pod])[], unmapped: ReadonlySet<number>): void {
    for (const [{ endpointId }, pod] of local) {
      const current = this.#policies.get(endpointId);
      if (current === undefined) continue; // drops everything until step 3
      const extra = this.#compile(pod, false).entries.filter((entry) => unmapped.has(entry.identity));
      if (extra.length > 0) this.#write(endpointId, { ...current, entries: [...current.entries, ...extra] });
    }
  }

  #compile(pod: Pod, final: boolean): EndpointPolicy {
    const revision = this.#identities.revision;
    if (this.#view?.revision !== revision)
      this.#view = { revision, view: new IdentityView(this.#identities.entries()) };
    const policy = this.#compiler.compile(pod, this.#deps.cluster.policyIndex, this.#view.view);
    if (final) for (const diagnostic of policy.diagnostics) this.#tell(diagnostic);
    return policy;
  }

  #write(endpointId: number, { isolated, entries, audit = false }: ProgrammedPolicy): void {
    const key = JSON.stringify([isolated, audit, entries]);
    if (this.#policies.get(endpointId)?.key === key) return;
    try {
      this.#deps.maps.setPolicy(endpointId, { isolated, entries, audit });
      this.#policies.set(endpointId, { isolated, entries, audit, key });
    } catch (error) {
      // Unknown now: the next run writes it again.
      this.#policies.delete(endpointId);
      this.#failures.set(endpointId, error);
    }
  }

  #releaseAll(ipcache: ReadonlyMap<string, IdentityId>): void {
    for (const id of ipcache.values()) this.#identities.release(id);
  }

  #forgetGone(): void {
    const known = new Set(this.#deps.endpoints().map((record) => record.endpointId));
    for (const id of this.#policies.keys()) if (!known.has(id)) this.#policies.delete(id);
  }

  #adopt(endpointId: number): void {
    const policy = this.#deps.maps.policy(endpointId);
    if (policy !== undefined) this.#policies.set(endpointId, { ...policy, key: '' });
  }

  #tell(diagnostic: Diagnostic): void {
    const text = formatDiagnostic(diagnostic);
    if (this.#told.has(text)) return;
    this.#told.add(text);
    this.#deps.log.warn({ policy: `${diagnostic.namespace}/${diagnostic.policy}`, code: diagnostic.code }, text);
    this.#deps.onDiagnostic(diagnostic);
  }
}

/** A pod's status shows its addresses only after ADD; the record knows them at once. */
function* withLocalAddresses(all: readonly Pod[], local: readonly (readonly [EndpointRecord, Pod])[]): Iterable<Pod> {
  const ips = new Map<string, string[]>();
  for (const [record] of local) ips.set(record.pod.uid, [...(ips.get(record.pod.uid) ?? []), ...record.ips]);
  for (const pod of all) {
    const own = ips.get(pod.metadata?.uid ?? '');
    yield own === undefined
      ? pod
      : { ...pod, status: { ...pod.status, podIP: undefined, podIPs: own.map((ip) => ({ ip })) } };
  }
}

/**
 * Entries are written one after the other, so the order counts: the longest prefixes are added first and removed last. A
 * shorter one added before them would for a moment answer for addresses that it is not to answer for.
 */
function diffIpcache(
  current: ReadonlyMap<string, number>,
  wanted: ReadonlyMap<string, number>,
): { upsert: [IpPrefix, number][]; remove: IpPrefix[] } {
  const upsert: [IpPrefix, number][] = [];
  const remove: IpPrefix[] = [];
  for (const [text, id] of wanted) if (current.get(text) !== id) upsert.push([prefixOf(text), id]);
  for (const text of current.keys()) if (!wanted.has(text)) remove.push(prefixOf(text));
  upsert.sort(([a], [b]) => b.prefixLen - a.prefixLen);
  remove.sort((a, b) => a.prefixLen - b.prefixLen);
  return { upsert, remove };
}

function newIdentities(current: ReadonlyMap<string, number>, wanted: ReadonlyMap<string, number>): Set<number> {
  const mapped = new Set(current.values());
  return new Set([...wanted.values()].filter((id) => !mapped.has(id)));
}

function replaceContent(map: Map<string, number>, content: ReadonlyMap<string, number>): void {
  map.clear();
  for (const [key, value] of content) map.set(key, value);
}

function prefixOf(text: string): IpPrefix {
  const prefix = parsePrefix(text);
  if (prefix !== undefined) return prefix;
  throw new SluiceError({ code: 'internal', operation: 'parse prefix', object: text, what: 'not canonical' });
}

/** Above all numbers in use; from the start again when less than a quarter of them is left. */
function firstFreeNumber(used: Iterable<number>): number {
  let highest: number = firstAllocatedIdentity - 1;
  for (const id of used) highest = Math.max(highest, id);
  return highest < lastAllocatedIdentity * 0.75 ? highest + 1 : firstAllocatedIdentity;
}

function outOfIdentities(): SluiceError {
  return new SluiceError({
    code: 'limit_exceeded',
    operation: 'allocate',
    object: 'identity',
    what: 'all numbers are in use or rest after use',
    remedy: 'restart the agent; fewer distinct label sets or ipBlock prefixes need fewer identities',
  });
}
