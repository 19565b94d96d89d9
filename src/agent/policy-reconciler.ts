/**
 * Keeps what the kernel enforces equal to what the API objects say: ipcache (address → identity) and one policy per
 * endpoint. Level-based: each run brings the kernel to the state of now, whatever happened since the last, and computes
 * anew only what depends on something that changed. The first run, and each after a failure, compares everything with
 * what the kernel holds.
 *
 * The order of writes, so that an address is let in only where the old policies let it in, or the new ones do, and a flow
 * that both allow is not cut in between:
 *
 *   1. policies widened in place: entries for identities that no address has yet, whom nobody matches; and what the new
 *      policy allows to anyone.
 *   2. ipcache: addresses move to these new identities, which every policy knows since step 1; all that old or new policies
 *      tell apart stays apart. Each is now judged by the new policies, and by what the old ones allow to anyone.
 *   3. policies as they are to be.
 *   4. ipcache: what only the old policies told apart joins, and entries that are not needed go: the new policies, which are
 *      in force, judge them as one already. Identities without addresses are released; their numbers rest before reuse.
 *      Their entries go in place: no policy is written anew, no connection judged again.
 *
 * Steps 1 to 3 are one pass, and step 4 is the same pass once more: with the policies settled (IdentityAssignment). Where
 * only addresses change, the first pass finds them settled, and there is no other.
 *
 * Writing the new policies first would be wrong: an address that a new policy excepts (ipBlock.except) still has an
 * identity that does not know of the exception, and would be let in until step 2. Joining before step 3 would be wrong: an
 * address that an old policy excepts would be judged by it as one that it does not.
 *
 * Until every informer is synced nothing is written: what an earlier agent left in the kernel stays in force. Identities
 * of a new process begin above all that the kernel holds, so that an old entry never means somebody else. A pod that is
 * gone from the API while its endpoint is not (forced deletion) is judged by what was known of it last.
 */
import type { EnforcementMode } from '../api/agent-api.ts';
import type { Pod } from '../api/kubernetes.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, hasErrorCode, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { BoundedRunner } from '../core/runner.ts';
import { sameItems } from '../core/same-items.ts';
import type { PolicyEntry } from '../policy/compile.ts';
import { EntryList } from '../policy/entry-list.ts';
import { formatDiagnostic, type Diagnostic } from '../policy/diagnostics.ts';
import { anyIdentity, type IdentityId } from '../policy/identity.ts';
import type { IpcacheTable } from '../policy/ipcache-table.ts';
import type { PolicyNode } from '../policy/node.ts';
import { type CompiledPolicy, PodPolicyCompiler } from '../policy/pod-compiler.ts';
import type { PolicyIndex } from '../policy/policy-index.ts';
import { RuleIds } from '../policy/rule-id.ts';
import { IdentityView } from '../policy/select.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { IdentityAssignment, type IpcacheChange } from './identity-assignment.ts';
import { agentLimits } from './limits.ts';
import {
  changeOf,
  isWithin,
  missingEntries,
  samePolicy,
  widened,
  type ProgrammedPolicy,
  type WantedPolicy,
} from './programmed-policy.ts';

/** The part of src/datapath's Datapath that policy needs. */
export interface PolicyMaps {
  setPolicy(endpointId: number, policy: ProgrammedPolicy): void;
  /** By endpoint id: entries that it gets, one after the other, where none is that matches the same. All or nothing. Judges nothing anew. */
  extendPolicies(additions: ReadonlyMap<number, readonly PolicyEntry[]>): void;
  /** Takes away the entries of identities that no address has. Judges nothing anew. */
  forgetIdentities(endpointId: number, identities: ReadonlySet<number>): void;
  /** What the kernel holds; undefined while the endpoint drops everything. */
  policy(endpointId: number): ProgrammedPolicy | undefined;
  updateIpcache(change: IpcacheChange): void;
  /** Prefix in canonical text → identity. */
  ipcache(): ReadonlyMap<string, number>;
  /** Entries that the ipcache takes; `updateIpcache` throws limit_exceeded, and changes nothing, beyond it. */
  readonly ipcacheCapacity: number;
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
  readonly #deps: PolicyReconcilerDeps;
  readonly #runner: BoundedRunner;
  readonly #identities: IdentityAssignment;
  readonly #view = new IdentityView();
  /** By endpoint id. */
  readonly #held = new Map<number, Held>();
  readonly #failures = new Map<number, unknown>();
  /** Diagnostic → when it was told. */
  readonly #told = new Map<string, number>();
  /** Whose addresses, and which prefixes, the table of addresses was told last. */
  #ownFor: readonly EndpointRecord[] = [];
  #prefixesFor: readonly string[] = [];
  /** Whether the addresses are also told apart by prefixes that no policy names any more. */
  #lingering = false;
  /** Why the last run ended before it reached every endpoint. */
  #runFailure: unknown;
  #lastFailure: string | undefined;

  constructor(deps: PolicyReconcilerDeps) {
    this.#deps = deps;
    for (const record of deps.endpoints()) this.#adopt(record.endpointId);
    this.#identities = new IdentityAssignment({
      clock: deps.clock,
      view: this.#view,
      inKernel: () => deps.maps.ipcache(),
      inPolicies: [...this.#held.values()].flatMap(
        ({ written }) => written?.entries.items.map(({ identity }) => identity) ?? [],
      ),
      capacity: deps.maps.ipcacheCapacity,
    });
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
    const held = this.#held.get(endpointId);
    if (held !== undefined) held.written = undefined;
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
    if (cause === undefined && this.#held.get(endpointId)?.written !== undefined) return;
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
    const leftOut = this.leftOut === 0 ? [] : [`${this.leftOut} are left out: ${formatErrorChain(leftOutError())}`];
    return this.#lastFailure === undefined ? leftOut : [this.#lastFailure, ...leftOut];
  }

  /** How many addresses of pods and nodes have no entry in the ipcache for want of room. */
  get leftOut(): number {
    return this.#identities.leftOut;
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
    this.#forgetGone();
    const local = this.#localPods();
    this.#failures.clear();
    this.#runFailure = undefined;
    try {
      this.#pass(local);
      if (this.#failures.size === 0 && (this.#lingering || this.#identities.waiting)) this.#pass(local);
    } catch (error) {
      this.#runFailure = error;
      if (hasErrorCode(error, 'limit_exceeded')) {
        this.#close(local);
        this.#deps.onFull?.(error, undefined);
      }
      throw error;
    }
    if (this.leftOut > 0) this.#deps.onFull?.(leftOutError(), undefined);
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

  #pass(local: readonly LocalPod[]): void {
    const settled = this.#isSettled(local);
    this.#updateInputs(local, settled);
    this.#identities.update(this.#deps.cluster.addresses, settled, (change, created) => {
      this.#widenPolicies(local, created);
      this.#deps.maps.updateIpcache(change);
    });
    for (const one of changedFirst(local)) {
      const policy = this.#wanted(one);
      for (const diagnostic of policy.diagnostics) this.#tell(diagnostic);
      this.#write(one, policy);
    }
    for (const { held, policies } of local) held.policies = policies;
  }

  /** Addresses cannot be told apart as the policies need it: what they isolate is closed until they can. */
  #close(local: readonly LocalPod[]): void {
    for (const one of local) {
      const { isolated, audit } = this.#wanted(one);
      this.#write(one, { isolated, entries: EntryList.of([]), audit });
    }
  }

  /** Whether the policies in force let in nobody, of all identities that addresses have, whom those that are wanted do not. */
  #isSettled(local: readonly LocalPod[]): boolean {
    return local.every((one) => {
      const { written } = one.held;
      return written === undefined || (written.ours && isWithin(written, this.#wanted(one)));
    });
  }

  /** What is known on this node only: which prefixes its policies name, and the addresses of its pods. */
  #updateInputs(local: readonly LocalPod[], settled: boolean): void {
    const { addresses, policyIndex } = this.#deps.cluster;
    const records = local.map(({ record }) => record);
    if (!sameItems(records, this.#ownFor)) addresses.setOwnAddresses(records.map(({ pod, ips }) => ({ ...pod, ips })));
    this.#ownFor = records;
    const prefixes = policyIndex.prefixes(new Set(records.map(({ pod }) => pod.namespace)));
    if (prefixes === this.#prefixesFor && !(settled && this.#lingering)) return;
    addresses.setPrefixes(prefixes, { keepOthers: !settled });
    this.#lingering = addresses.prefixCount > prefixes.length;
    this.#prefixesFor = prefixes;
  }

  /** Endpoints whose pod is or was known. Another, found after a restart, keeps what it has. */
  #localPods(): LocalPod[] {
    const { cluster, endpoints, audited } = this.#deps;
    const local: LocalPod[] = [];
    for (const record of endpoints()) {
      const { namespace, uid } = record.pod;
      const known = this.#held.get(record.endpointId);
      const pod = cluster.podOf(record.pod) ?? (known?.pod?.metadata?.uid === uid ? known.pod : undefined);
      if (pod === undefined) continue;
      const held = known ?? this.#hold(record.endpointId);
      held.pod = pod;
      const policies = cluster.policyIndex.inNamespace(namespace);
      local.push({ record, pod, policies, audit: audited?.(namespace) === true, held });
    }
    return local;
  }

  #hold(endpointId: number): Held {
    const compiler = new PodPolicyCompiler(this.ruleIds, this.#deps.enforcement);
    const held = { compiler, pod: undefined, written: undefined, wanted: undefined, policies: undefined };
    this.#held.set(endpointId, held);
    return held;
  }

  #widenPolicies(local: readonly LocalPod[], created: ReadonlySet<IdentityId>): void {
    const additions = new Map<number, readonly PolicyEntry[]>();
    const next: (readonly [LocalPod, Written])[] = [];
    for (const one of local) {
      const { written } = one.held;
      if (written === undefined) continue; // drops everything until step 3
      const wanted = this.#wanted(one);
      const extra = missingEntries(written, wanted, created);
      if (extra.length === 0) continue;
      additions.set(one.record.endpointId, extra);
      const { isolated, audit, ours } = written;
      next.push([one, { isolated, entries: widened(written, extra, wanted), audit, ours }]);
    }
    if (additions.size === 0) return;
    const { maps } = this.#deps;
    try {
      maps.extendPolicies(additions);
    } catch {
      // Each alone: one that finds no room does not keep the others.
      for (const [one, written] of next) {
        const { endpointId } = one.record;
        this.#attempt(one, () => {
          maps.extendPolicies(new Map([[endpointId, additions.get(endpointId) ?? []]]));
          return written;
        });
      }
      return;
    }
    for (const [{ held }, written] of next) held.written = written;
  }

  #wanted({ pod, policies, audit, held }: LocalPod): Wanted {
    const compiled = held.compiler.compile(pod, policies, this.#view);
    if (held.wanted?.compiled === compiled && held.wanted.audit === audit) return held.wanted;
    const { isolated, entries, diagnostics, change } = compiled;
    held.wanted = { isolated, entries, diagnostics, change, audit, compiled };
    return held.wanted;
  }

  #write(one: LocalPod, wanted: WantedPolicy): void {
    const { held, record } = one;
    const { written } = held;
    const { isolated, entries, audit } = wanted;
    const policy = { isolated, entries, audit };
    if (written?.ours === true && samePolicy(written, policy)) {
      // The list of now: the next look at it is short.
      if (written.entries !== entries) held.written = { ...policy, ours: true };
      return;
    }
    this.#attempt(one, () => {
      const gone = written?.ours === true ? this.#goneIdentities(written, wanted) : undefined;
      if (gone === undefined) this.#setPolicy(one, policy);
      else this.#deps.maps.forgetIdentities(record.endpointId, gone);
      return { ...policy, ours: true };
    });
  }

  /**
   * When the map is full, the old policy goes first: what it allows and the new one may not must not go on. The directions
   * that the new one isolates are then closed altogether, until it fits.
   */
  #setPolicy({ record: { endpointId }, held }: LocalPod, policy: ProgrammedPolicy): void {
    const { maps } = this.#deps;
    try {
      maps.setPolicy(endpointId, policy);
    } catch (error) {
      if (!hasErrorCode(error, 'limit_exceeded')) throw error;
      const closed = { isolated: policy.isolated, entries: EntryList.of([]) };
      maps.setPolicy(endpointId, closed);
      held.written = { ...closed, audit: false, ours: true };
      maps.setPolicy(endpointId, policy);
    }
  }

  /** Identities that no address has any more, when without them `written` is what is wanted; undefined otherwise. */
  #goneIdentities(written: ProgrammedPolicy, wanted: WantedPolicy): ReadonlySet<number> | undefined {
    const change = changeOf(written, wanted);
    if (change?.added.length === 0) return change.gone;
    const gone = new Set<number>();
    const kept = written.entries.items.filter(({ identity }) => {
      const known = identity === anyIdentity || this.#view.has(identity);
      if (!known) gone.add(identity);
      return known;
    });
    return gone.size > 0 && samePolicy({ ...written, entries: EntryList.of(kept) }, wanted) ? gone : undefined;
  }

  #attempt({ record: { endpointId }, held }: LocalPod, write: () => Written): void {
    const before = held.written;
    try {
      held.written = write();
    } catch (error) {
      // Where nothing else is known to be in force, the next run writes it again.
      if (held.written !== undefined && held.written === before) held.written = { ...held.written, ours: false };
      this.#failures.set(endpointId, error);
      if (hasErrorCode(error, 'limit_exceeded')) this.#deps.onFull?.(error, endpointId);
    }
  }

  #forgetGone(): void {
    const known = new Set(this.#deps.endpoints().map((record) => record.endpointId));
    for (const id of this.#held.keys()) if (!known.has(id)) this.#held.delete(id);
  }

  #adopt(endpointId: number): void {
    const policy = this.#deps.maps.policy(endpointId);
    if (policy !== undefined) this.#hold(endpointId).written = { ...policy, ours: false };
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

/** An endpoint as a run finds it. */
interface LocalPod {
  readonly record: EndpointRecord;
  readonly pod: Pod;
  /** Of its namespace. */
  readonly policies: readonly PolicyNode[];
  readonly audit: boolean;
  readonly held: Held;
}

/** What is kept of an endpoint from run to run. */
interface Held {
  readonly compiler: PodPolicyCompiler;
  /** As the API had it last. */
  pod: Pod | undefined;
  /** What is in force; undefined while it drops everything. */
  written: Written | undefined;
  wanted: Wanted | undefined;
  /** Of its namespace, when it was last brought up to date. */
  policies: readonly PolicyNode[] | undefined;
}

/** Where policies have changed somebody waits for it; elsewhere only identities have come and gone. */
function changedFirst(local: readonly LocalPod[]): LocalPod[] {
  const isChanged = ({ policies, held }: LocalPod): boolean => policies !== held.policies;
  return [...local.filter(isChanged), ...local.filter((one) => !isChanged(one))];
}

interface Written extends ProgrammedPolicy {
  /** By this process; what was found is written once more. */
  readonly ours: boolean;
}

interface Wanted extends CompiledPolicy {
  readonly audit: boolean;
  readonly compiled: CompiledPolicy;
}

/** Without their number: an event is repeated when it says the same, and written anew when it does not. */
function leftOutError(): SluiceError {
  return new SluiceError({
    code: 'limit_exceeded',
    operation: 'add',
    object: 'addresses of pods and nodes to the ipcache',
    what: 'there is no room for them: they count as outside the cluster, and no pod or namespace selector lets them in',
    remedy: 'raise --map-size ipcache=N and restart the agent',
  });
}
