/**
 * Keeps what the kernel enforces equal to what the API objects say: ipcache (address → identity) and one policy per
 * endpoint. Level-based: each run brings the kernel to the state of now, whatever happened since the last, and computes
 * anew only what depends on something that changed. The first run, and each after a failure, compares everything with
 * what the kernel holds.
 *
 * The order of writes, so that an address is let in only where the old policies let it in, or the new ones do, and a flow
 * that both allow is not cut in between:
 *
 *   1. policies widened in place: entries for identities that no address has yet. Nobody matches those.
 *   2. ipcache: addresses move to their new identities, which every policy knows since step 1.
 *   3. policies as they are to be. Identities without addresses are then released; their numbers rest before reuse.
 *      Where only their entries are to go, they go in place: no policy is written anew, no connection judged again.
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
import type { Pod } from '../api/kubernetes.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, hasErrorCode, SluiceError } from '../core/error.ts';
import { parsePrefix, type IpPrefix } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { BoundedRunner } from '../core/runner.ts';
import { compareEntries, PodPolicyCompiler, type EndpointPolicy, type PolicyEntry } from '../policy/compile.ts';
import { formatDiagnostic, type Diagnostic } from '../policy/diagnostics.ts';
import {
  anyIdentity,
  firstAllocatedIdentity,
  IdentityAllocator,
  lastAllocatedIdentity,
  type IdentityId,
} from '../policy/identity.ts';
import type { IpcacheTable } from '../policy/ipcache-table.ts';
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
  /** Adds entries, and takes away those of the identities in `forget`, of identities that no address has; judges nothing anew. */
  amendPolicy(
    endpointId: number,
    change: { readonly add: readonly PolicyEntry[]; readonly forget: ReadonlySet<number> },
  ): void;
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
  /** Read by nobody else: what changed is told once. */
  readonly addresses: IpcacheTable;
  readonly policyIndex: PolicyIndex;
  podOf(ref: EndpointRecord['pod']): Pod | undefined;
}

export interface PolicyReconcilerDeps {
  readonly cluster: PolicyWorld;
  readonly maps: PolicyMaps;
  readonly endpoints: () => readonly EndpointRecord[];
  /** Default: isolated when a policy selects the pod. */
  readonly enforcement?: EnforcementMode;
  /** Whether the namespace only reports what policy would drop. */
  readonly audited?: (namespace: string) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told once about each problem of a policy. */
  readonly onDiagnostic: (diagnostic: Diagnostic) => void;
  /** A map has no room: for the policy of this endpoint, or for the addresses that policies know. Told at every run. */
  readonly onFull?: (error: unknown, endpointId: number | undefined) => void;
  readonly onRun: (outcome: 'success' | 'failure', durationMs: number) => void;
}

export class PolicyReconciler {
  readonly ruleIds = new RuleIds();
  readonly #compiler: PodPolicyCompiler;
  readonly #deps: PolicyReconcilerDeps;
  readonly #runner: BoundedRunner;
  readonly #identities: IdentityAllocator;
  readonly #view = new IdentityView();
  /** The entries that this process wrote, each with a reference in the allocator. */
  readonly #held = new Map<string, IdentityId>();
  /** What the kernel holds, when that may differ from `#held`: before the first run, and after a failure. */
  #found: ReadonlyMap<string, number> | undefined;
  readonly #policies = new Map<number, Written>();
  readonly #failures = new Map<number, unknown>();
  /** Diagnostic → when it was told. */
  readonly #told = new Map<string, number>();
  /** What the prefixes in use were computed from. */
  #prefixesFor: PrefixesInput | undefined;
  /** Why the last run ended before it reached every endpoint. */
  #runFailure: unknown;
  #lastFailure: string | undefined;

  constructor(deps: PolicyReconcilerDeps) {
    this.#deps = deps;
    this.#compiler = new PodPolicyCompiler(this.ruleIds, deps.enforcement);
    this.#found = deps.maps.ipcache();
    this.#identities = new IdentityAllocator({
      nowMs: () => deps.clock.monotonicMs(),
      firstNumber: firstFreeNumber(this.#found.values()),
      onAdded: (id, descriptor) => this.#view.add(id, descriptor),
      onRemoved: (id) => this.#view.remove(id),
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
    const settled = new AbortController();
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true, signal: settled.signal }),
    );
    // A run fails when any endpoint fails; only this one's outcome matters here.
    await Promise.race([this.#runner.runOnce().catch(() => undefined), aborted]);
    settled.abort();
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
      if (hasErrorCode(error, 'limit_exceeded')) this.#deps.onFull?.(error, undefined);
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

  /** Steps 1 and 2. After a failure the allocator is as it was, and the next run compares everything. */
  #moveAddresses(local: readonly LocalPod[]): void {
    this.#updateInputs(local);
    const moves: Move[] = [];
    try {
      const created = this.#plan(moves);
      const change = ipcacheChange(moves);
      if (change.upsert.length + change.remove.length > 0) {
        this.#widenPolicies(local, created);
        this.#deps.maps.updateIpcache(change);
      }
    } catch (error) {
      for (const { to } of moves) if (to !== undefined) this.#identities.release(to);
      // The changes were taken from the table, and the kernel may have some of them.
      this.#found = this.#deps.maps.ipcache();
      throw error;
    }
    this.#found = undefined;
    for (const { text, to } of moves) {
      const before = this.#held.get(text);
      if (to === undefined) this.#held.delete(text);
      else this.#held.set(text, to);
      if (before !== undefined) this.#identities.release(before);
    }
  }

  /** Which of the entries that may have changed go where, with a reference for each new identity. Answers the identities made. */
  #plan(moves: Move[]): Set<number> {
    const { addresses } = this.#deps.cluster;
    const changed = addresses.takeChanged();
    const texts =
      this.#found === undefined
        ? changed
        : new Set([...addresses.texts(), ...this.#found.keys(), ...this.#held.keys()]);
    const created = new Set<number>();
    // The order decides which identity gets which number: it must not depend on that of the events.
    for (const text of [...texts].sort()) {
      const descriptor = addresses.get(text);
      const known = this.#identities.size;
      const to = descriptor && this.#identities.acquire(descriptor);
      if (descriptor !== undefined && to === undefined) throw outOfIdentities();
      if (to !== undefined && this.#identities.size > known) created.add(to);
      moves.push({ text, from: (this.#found ?? this.#held).get(text), to });
    }
    return created;
  }

  /** What is known on this node only: which prefixes its policies name, and the addresses of its pods. */
  #updateInputs(local: readonly LocalPod[]): void {
    const { addresses, policyIndex } = this.#deps.cluster;
    addresses.setOwnAddresses(local.map(([{ pod, ips }]) => ({ ...pod, ips })));
    const namespaces = new Set(local.map(([record]) => record.pod.namespace));
    const input = { policyIndex, revision: policyIndex.revision, namespaces: [...namespaces].sort().join(' ') };
    const before = this.#prefixesFor;
    const same = before?.policyIndex === policyIndex && before.revision === input.revision;
    if (same && before.namespaces === input.namespaces) return;
    addresses.setPrefixes(policyIndex.prefixes(namespaces));
    this.#prefixesFor = input;
  }

  /** Endpoints whose pod is known. Without its pod, as after a forced deletion, an endpoint keeps what it has. */
  #localPods(): LocalPod[] {
    return this.#deps.endpoints().flatMap((record) => {
      const pod = this.#deps.cluster.podOf(record.pod);
      return pod === undefined ? [] : [[record, pod] as const];
    });
  }

  #widenPolicies(local: readonly LocalPod[], unmapped: ReadonlySet<number>): void {
    for (const [{ endpointId }, pod] of local) {
      const current = this.#policies.get(endpointId);
      if (current === undefined) continue; // drops everything until step 3
      const extra = this.#compile(pod, false).entries.filter((entry) => unmapped.has(entry.identity));
      if (extra.length === 0) continue;
      this.#attempt(endpointId, () => {
        this.#deps.maps.amendPolicy(endpointId, { add: extra, forget: new Set() });
        return { ...current, entries: [...current.entries, ...extra].sort(compareEntries) };
      });
    }
  }

  #compile(pod: Pod, final: boolean): EndpointPolicy {
    const policy = this.#compiler.compile(pod, this.#deps.cluster.policyIndex, this.#view);
    if (final) for (const diagnostic of policy.diagnostics) this.#tell(diagnostic);
    return policy;
  }

  #write(endpointId: number, { isolated, entries, audit = false }: ProgrammedPolicy): void {
    const policy = { isolated, entries, audit };
    const written = this.#policies.get(endpointId);
    if (written?.ours === true && samePolicy(written, policy)) return;
    this.#attempt(endpointId, () => {
      const gone = written?.ours === true ? this.#goneIdentities(written, policy) : undefined;
      if (gone === undefined) this.#setPolicy(endpointId, policy);
      else this.#deps.maps.amendPolicy(endpointId, { add: [], forget: gone });
      return { ...policy, ours: true };
    });
  }

  /**
   * When the map is full, the old policy goes first: what it allows and the new one may not must not go on. The directions
   * that the new one isolates are then closed altogether, until it fits.
   */
  #setPolicy(endpointId: number, policy: ProgrammedPolicy): void {
    try {
      this.#deps.maps.setPolicy(endpointId, policy);
    } catch (error) {
      if (!hasErrorCode(error, 'limit_exceeded')) throw error;
      this.#deps.maps.setPolicy(endpointId, { isolated: policy.isolated, entries: [] });
      this.#deps.maps.setPolicy(endpointId, policy);
    }
  }

  /** Identities that no address has any more, when without them `written` is what is wanted; undefined otherwise. */
  #goneIdentities(written: ProgrammedPolicy, wanted: ProgrammedPolicy): Set<number> | undefined {
    const gone = new Set<number>();
    const kept = written.entries.filter(({ identity }) => {
      const known = identity === anyIdentity || this.#view.has(identity);
      if (!known) gone.add(identity);
      return known;
    });
    return gone.size > 0 && samePolicy({ ...written, entries: kept }, wanted) ? gone : undefined;
  }

  #attempt(endpointId: number, write: () => Written): void {
    try {
      this.#policies.set(endpointId, write());
    } catch (error) {
      // Unknown now: the next run writes it again.
      this.#policies.delete(endpointId);
      this.#failures.set(endpointId, error);
      if (hasErrorCode(error, 'limit_exceeded')) this.#deps.onFull?.(error, endpointId);
    }
  }

  #forgetGone(): void {
    const known = new Set(this.#deps.endpoints().map((record) => record.endpointId));
    for (const id of this.#policies.keys()) if (!known.has(id)) this.#policies.delete(id);
  }

  #adopt(endpointId: number): void {
    const policy = this.#deps.maps.policy(endpointId);
    if (policy !== undefined) this.#policies.set(endpointId, { ...policy, ours: false });
  }

  #tell(diagnostic: Diagnostic): void {
    const text = formatDiagnostic(diagnostic);
    // The API server forgets events after an hour.
    const nowMs = this.#deps.clock.monotonicMs();
    if (nowMs - (this.#told.get(text) ?? -Infinity) < agentLimits.diagnosticRepeatMs) return;
    this.#told.set(text, nowMs);
    this.#deps.log.warn({ policy: `${diagnostic.namespace}/${diagnostic.policy}`, code: diagnostic.code }, text);
    this.#deps.onDiagnostic(diagnostic);
  }
}

type LocalPod = readonly [EndpointRecord, Pod];

interface Written extends ProgrammedPolicy {
  /** By this process; what was found is written once more. */
  readonly ours: boolean;
}

interface PrefixesInput {
  readonly policyIndex: PolicyIndex;
  readonly revision: number;
  readonly namespaces: string;
}

/** One entry of the ipcache: what the kernel has and what it is to have. */
interface Move {
  readonly text: string;
  readonly from: number | undefined;
  readonly to: IdentityId | undefined;
}

/**
 * Entries are written one after the other, so the order counts: the longest prefixes are added first and removed last. A
 * shorter one added before them would for a moment answer for addresses that it is not to answer for.
 */
function ipcacheChange(moves: readonly Move[]): { upsert: [IpPrefix, number][]; remove: IpPrefix[] } {
  const upsert: [IpPrefix, number][] = [];
  const remove: IpPrefix[] = [];
  for (const { text, from, to } of moves) {
    if (to === from) continue;
    if (to === undefined) remove.push(prefixOf(text));
    else upsert.push([prefixOf(text), to]);
  }
  upsert.sort(([a], [b]) => b.prefixLen - a.prefixLen);
  remove.sort((a, b) => a.prefixLen - b.prefixLen);
  return { upsert, remove };
}

/** Entries are sorted, so equal policies are equal item by item. */
function samePolicy(a: ProgrammedPolicy, b: ProgrammedPolicy): boolean {
  if ((a.audit === true) !== (b.audit === true)) return false;
  if (a.isolated.ingress !== b.isolated.ingress || a.isolated.egress !== b.isolated.egress) return false;
  if (a.entries === b.entries) return true;
  return a.entries.length === b.entries.length && a.entries.every((entry, i) => sameEntry(entry, b.entries[i]));
}

function sameEntry(a: PolicyEntry, b: PolicyEntry | undefined): boolean {
  return (
    a === b ||
    (b !== undefined &&
      a.identity === b.identity &&
      a.direction === b.direction &&
      a.protocol === b.protocol &&
      a.port === b.port &&
      a.portPrefixLen === b.portPrefixLen &&
      a.ruleId === b.ruleId)
  );
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
