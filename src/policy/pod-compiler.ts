/**
 * The policy of a pod, compiled anew only as far as something changed that it depends on. The same result as
 * compileEndpointPolicy's; with the same pod, the same policies in its namespace and the same answers about identities as
 * before, the very object that was given before.
 *
 * What an entry says depends on its identity and its rule alone. So when identities come and go, a rule whose peers they are
 * loses and gets their entries, and the policy is the earlier one with what its rules say of these identities.
 */
import type { EnforcementMode } from '../api/agent-api.ts';
import type { Pod } from '../api/kubernetes.ts';
import {
  assemble,
  compileRule,
  distinctEntries,
  endpointOfPod,
  policiesAmong,
  type CompiledRule,
  type EndpointPolicy,
  type PolicyEndpoint,
  type PolicyEntry,
} from './compile.ts';
import { EntryList } from './entry-list.ts';
import type { IdentityId, NamedPort } from './identity.ts';
import type { PeerNode, PolicyNode, RuleNode } from './node.ts';
import type { RuleIds } from './rule-id.ts';
import type { Identities, IdentityView, KeptAnswer } from './select.ts';

/** How a policy came from an earlier one of the endpoint, when only identities came or went. */
export interface PolicyChange {
  /** The earlier one's entries. */
  readonly from: EntryList;
  /** Identities that there are no more: their entries went. */
  readonly gone: ReadonlySet<IdentityId>;
  /** Of identities that the earlier policy had no entries of; sorted, no two match the same. */
  readonly added: readonly PolicyEntry[];
}

export interface CompiledPolicy extends Omit<EndpointPolicy, 'entries'> {
  readonly entries: EntryList;
  /** Undefined where it was compiled as a whole. */
  readonly change: PolicyChange | undefined;
}

/** One for each endpoint. */
export class PodPolicyCompiler {
  readonly #ruleIds: RuleIds;
  readonly #enforcement: EnforcementMode;
  #last: Compiled | undefined;

  constructor(ruleIds: RuleIds, enforcement: EnforcementMode = 'default') {
    this.#ruleIds = ruleIds;
    this.#enforcement = enforcement;
  }

  /** `policies`: all of the pod's namespace; the same array while none of them changes. */
  compile(pod: Pod, policies: readonly PolicyNode[], view: IdentityView): CompiledPolicy {
    const known = this.#last?.pod === pod ? this.#last : undefined;
    const onlyPeers = known?.policies === policies && known.view === view && known.hosts === view.hosts;
    if (onlyPeers && isCurrent(known)) return known.result;
    // What a failure leaves half changed is not to be taken for current.
    this.#last = undefined;
    const last = onlyPeers && this.#amend(known) ? known : this.#whole(pod, policies, view, known);
    this.#last = last;
    return last.result;
  }

  /** With the same policies, and other answers about peers; false where that takes all peers. In place: see EntryList. */
  #amend(known: Compiled): boolean {
    const gone = new Set<IdentityId>();
    const anew: PolicyEntry[] = [];
    for (const rule of known.rules)
      if (!isAnswered(rule.answers) && !this.#renew(rule, known, gone, anew)) return false;
    known.revision = known.view.revision;
    if (gone.size + anew.length === 0) return true;
    const { isolated, diagnostics, entries: from } = known.result;
    const added = distinctEntries(anew);
    known.result = { isolated, diagnostics, entries: from.changed(gone, added), change: { from, gone, added } };
    return true;
  }

  #whole(pod: Pod, policies: readonly PolicyNode[], view: IdentityView, known: Compiled | undefined): Compiled {
    const endpoint = known?.endpoint ?? endpointOfPod(pod);
    const applied = known?.policies === policies ? known.applied : this.#applied(endpoint, policies);
    const before = new Map(known?.view === view ? known.rules.map((recorded) => [recorded.rule, recorded]) : []);
    const rules = applied.flatMap((policy) =>
      policy.rules.map((rule) => {
        const recorded = before.get(rule);
        const isCurrent = recorded?.isWhole === true && isAnswered(recorded.answers);
        return isCurrent ? recorded : this.#record(policy, rule, endpoint, view);
      }),
    );
    const { hosts, revision } = view;
    const { isolated, entries, diagnostics } = assemble(applied, rules, hosts, this.#enforcement);
    const result = { isolated, diagnostics, entries: EntryList.of(entries), change: undefined };
    return { pod, endpoint, policies, applied, view, revision, hosts, rules, result };
  }

  #applied(endpoint: PolicyEndpoint, policies: readonly PolicyNode[]): readonly PolicyNode[] {
    return this.#enforcement === 'never' ? [] : policiesAmong(policies, endpoint);
  }

  #record(policy: PolicyNode, rule: RuleNode, endpoint: PolicyEndpoint, view: IdentityView): RecordedRule {
    const recorder = new Recorder(view);
    const compiled = compileRule(policy, rule, this.#ruleIds, endpoint, recorder);
    return { ...compiled, policy, rule, answers: recorder.answers, isWhole: true };
  }

  /**
   * Brings the rule to the answers of now. Who went since is put into `gone`, and its entries of those who came into `added`; false
   * where it takes all peers to tell.
   */
  #renew(known: RecordedRule, { endpoint, view }: Compiled, gone: Set<IdentityId>, added: PolicyEntry[]): boolean {
    const come = new Set<IdentityId>();
    let lost = false;
    for (const answer of known.answers) {
      if (isAnswer(answer)) continue;
      const { told } = answer;
      answer.kept = answer.ask(view);
      answer.told = answer.kept.ids;
      addDifference(told, answer.told, gone, come);
      lost ||= answer.told.length < told.length;
    }
    if (!lost && come.size === 0) return true;
    known.isWhole = false;
    known.entries = [];
    if (concernsAllPeers(known.rule)) return false;
    const { entries } = compileRule(known.policy, known.rule, this.#ruleIds, endpoint, new Among(view, come));
    for (const entry of entries) added.push(entry);
    return true;
  }
}

interface Compiled {
  readonly pod: Pod;
  readonly endpoint: PolicyEndpoint;
  /** Of its namespace. */
  readonly policies: readonly PolicyNode[];
  /** Those that select it. */
  readonly applied: readonly PolicyNode[];
  readonly view: IdentityView;
  /** The view's, when the answers were last compared. */
  revision: number;
  readonly hosts: readonly IdentityId[];
  readonly rules: readonly RecordedRule[];
  result: CompiledPolicy;
}

interface RecordedRule extends CompiledRule {
  entries: readonly PolicyEntry[];
  readonly policy: PolicyNode;
  readonly rule: RuleNode;
  readonly answers: readonly Answer[];
  /** Whether it still has its entries: where identities came or went since, only the policy has them. */
  isWhole: boolean;
}

/** A question that the compiler asked, and what it was told. */
interface Answer {
  readonly ask: (view: IdentityView) => KeptAnswer;
  kept: KeptAnswer;
  told: readonly IdentityId[];
}

function isCurrent(known: Compiled): boolean {
  const { revision } = known.view;
  if (known.revision === revision) return true;
  for (const { answers } of known.rules) if (!isAnswered(answers)) return false;
  known.revision = revision;
  return true;
}

/** Asked of every endpoint after every change of identities, so without a look-up. */
function isAnswered(answers: readonly Answer[]): boolean {
  for (const answer of answers) if (!isAnswer(answer)) return false;
  return true;
}

function isAnswer({ kept, told }: Answer): boolean {
  return kept.ids === told;
}

/** Puts who is in `before` alone into `gone`, and who is in `after` alone into `come`. Both ascend. */
function addDifference(
  before: readonly IdentityId[],
  after: readonly IdentityId[],
  gone: Set<IdentityId>,
  come: Set<IdentityId>,
): void {
  let next = 0;
  for (const id of before) {
    for (let other = after[next]; other !== undefined && other < id; other = after[++next]) come.add(other);
    if (after[next] === id) next++;
    else gone.add(id);
  }
  for (const id of after.slice(next)) come.add(id);
}

/** Whether it takes all peers to tell what a rule has to say: of a named port, that none of them has it. */
function concernsAllPeers({ ports = [] }: RuleNode): boolean {
  return ports.some(({ kind }) => kind === 'named');
}

/** As if there were no other identities than these. */
class Among implements Identities {
  readonly #identities: Identities;
  readonly #ids: readonly IdentityId[];

  constructor(identities: Identities, ids: ReadonlySet<IdentityId>) {
    this.#identities = identities;
    this.#ids = [...ids].sort((a, b) => a - b);
  }

  get hosts(): readonly IdentityId[] {
    return this.#common(this.#identities.hosts);
  }

  get pods(): readonly IdentityId[] {
    return this.#common(this.#identities.pods);
  }

  select(peer: PeerNode): readonly IdentityId[] {
    return this.#common(this.#identities.select(peer));
  }

  namedPorts(id: IdentityId): readonly NamedPort[] {
    return this.#identities.namedPorts(id);
  }

  /** `list` ascends, and may be far longer. */
  #common(list: readonly IdentityId[]): IdentityId[] {
    return this.#ids.filter((id) => includesSorted(list, id));
  }
}

function includesSorted(list: readonly IdentityId[], id: IdentityId): boolean {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((list[middle] ?? 0) < id) low = middle + 1;
    else high = middle;
  }
  return list[low] === id;
}

/** Passes questions on and keeps the answers. Named ports need not be kept: a number never changes its meaning. */
class Recorder implements Identities {
  readonly answers: Answer[] = [];
  readonly #view: IdentityView;

  constructor(view: IdentityView) {
    this.#view = view;
  }

  /** What is said of them does not come from rules; whether they are the same is compared apart. */
  get hosts(): readonly IdentityId[] {
    return this.#view.hosts;
  }

  get pods(): readonly IdentityId[] {
    return this.#record((view) => view.allPods);
  }

  select(peer: PeerNode): readonly IdentityId[] {
    return this.#record((view) => view.selection(peer));
  }

  namedPorts(id: IdentityId): readonly NamedPort[] {
    return this.#view.namedPorts(id);
  }

  #record(ask: Answer['ask']): readonly IdentityId[] {
    const kept = ask(this.#view);
    const told = kept.ids;
    this.answers.push({ ask, kept, told });
    return told;
  }
}
