/**
 * Policies of pods, compiled anew only as far as something changed that they depend on. The same result as
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
  endpointOfPod,
  policiesOf,
  withoutIdentities,
  type CompiledRule,
  type EndpointPolicy,
  type PolicyEndpoint,
} from './compile.ts';
import type { IdentityId, NamedPort } from './identity.ts';
import type { PeerNode, PolicyNode, RuleNode } from './node.ts';
import type { PolicyIndex } from './policy-index.ts';
import type { RuleIds } from './rule-id.ts';
import type { Identities, IdentityView, KeptAnswer } from './select.ts';

export class PodPolicyCompiler {
  readonly #known = new WeakMap<Pod, { last: Compiled }>();
  readonly #ruleIds: RuleIds;
  readonly #enforcement: EnforcementMode;

  constructor(ruleIds: RuleIds, enforcement: EnforcementMode = 'default') {
    this.#ruleIds = ruleIds;
    this.#enforcement = enforcement;
  }

  compile(pod: Pod, index: PolicyIndex, view: IdentityView): EndpointPolicy {
    const policies = index.inNamespace(pod.metadata?.namespace ?? '');
    const memory = this.#known.get(pod);
    const known = memory?.last;
    if (known?.policies === policies && isCurrent(known, view)) return known.result;
    const endpoint = known?.endpoint ?? endpointOfPod(pod);
    const applied = known?.policies === policies ? known.applied : this.#applied(endpoint, index);
    const compiled = this.#compile(endpoint, applied, view, known?.view === view ? known : undefined);
    const answers = [...compiled.rules.values()].flatMap((rule) => rule.answers);
    const last = { ...compiled, answers, endpoint, policies, applied, view, revision: view.revision };
    // A new value of a weak map costs every garbage collection that follows.
    if (memory === undefined) this.#known.set(pod, { last });
    else memory.last = last;
    return last.result;
  }

  #applied(endpoint: PolicyEndpoint, index: PolicyIndex): readonly PolicyNode[] {
    return this.#enforcement === 'never' ? [] : policiesOf(endpoint, index);
  }

  #compile(
    endpoint: PolicyEndpoint,
    applied: readonly PolicyNode[],
    view: IdentityView,
    before: Compiled | undefined,
  ): Pick<Compiled, 'hosts' | 'rules' | 'result'> {
    const { hosts } = view;
    const rules = new Map<RuleNode, RecordedRule>();
    const outdated = new Set<IdentityId>();
    for (const policy of applied) {
      for (const rule of policy.rules) {
        const known = before?.rules.get(rule);
        const changed = known === undefined ? nobody : changedAnswers(known, view);
        for (const id of changed) outdated.add(id);
        const recorded =
          known === undefined || (changed.length > 0 && concernsAllPeers(rule))
            ? this.#record(policy, rule, endpoint, view)
            : this.#renew(known, changed, { policy, rule, endpoint, view });
        rules.set(rule, recorded);
      }
    }
    const isSame = before?.applied === applied && before.hosts === hosts;
    const earlier = isSame ? { entries: before.result.entries, outdated } : undefined;
    return { rules, hosts, result: assemble(applied, [...rules.values()], hosts, this.#enforcement, earlier) };
  }

  #record(policy: PolicyNode, rule: RuleNode, endpoint: PolicyEndpoint, view: IdentityView): RecordedRule {
    const recorder = new Recorder(view);
    return { ...compileRule(policy, rule, this.#ruleIds, endpoint, recorder), answers: recorder.answers };
  }

  /** With the entries of the identities in `changed` compiled anew. */
  #renew(known: RecordedRule, changed: readonly IdentityId[], place: RulePlace): RecordedRule {
    const { policy, rule, endpoint, view } = place;
    if (isAnswered(known.answers)) return known;
    const answers = known.answers.map(({ ask }) => answerOf(ask, view));
    if (changed.length === 0) return { ...known, answers };
    const outdated = new Set(changed);
    const { entries } = compileRule(policy, rule, this.#ruleIds, endpoint, new Among(view, outdated));
    return { ...known, answers, entries: withoutIdentities(known.entries, outdated).concat(entries) };
  }
}

interface Compiled {
  readonly endpoint: PolicyEndpoint;
  /** Of its namespace. */
  readonly policies: readonly PolicyNode[];
  /** Those that select it. */
  readonly applied: readonly PolicyNode[];
  readonly view: IdentityView;
  /** The view's, when the answers were last compared. */
  revision: number;
  readonly hosts: readonly IdentityId[];
  readonly rules: ReadonlyMap<RuleNode, RecordedRule>;
  /** Of all rules. */
  readonly answers: readonly Answer[];
  readonly result: EndpointPolicy;
}

interface RulePlace {
  readonly policy: PolicyNode;
  readonly rule: RuleNode;
  readonly endpoint: PolicyEndpoint;
  readonly view: IdentityView;
}

interface RecordedRule extends CompiledRule {
  readonly answers: readonly Answer[];
}

/** A question that the compiler asked, and what it was told. */
interface Answer {
  readonly ask: (view: IdentityView) => KeptAnswer;
  readonly kept: KeptAnswer;
  readonly told: readonly IdentityId[];
}

function answerOf(ask: Answer['ask'], view: IdentityView): Answer {
  const kept = ask(view);
  return { ask, kept, told: kept.ids };
}

function isCurrent(known: Compiled, view: IdentityView): boolean {
  if (known.view !== view) return false;
  if (known.revision === view.revision) return true;
  if (known.hosts !== view.hosts) return false;
  if (!isAnswered(known.answers)) return false;
  known.revision = view.revision;
  return true;
}

/** Asked of every endpoint after every change of identities, so without a look-up. */
function isAnswered(answers: readonly Answer[]): boolean {
  for (const { kept, told } of answers) if (kept.ids !== told) return false;
  return true;
}

/** The identities that are in one of the answers of then and now and not in the other. */
function changedAnswers({ answers }: RecordedRule, view: IdentityView): readonly IdentityId[] {
  if (isAnswered(answers)) return nobody;
  return answers.flatMap(({ ask, told }) => differences(told, ask(view).ids));
}

const nobody: readonly IdentityId[] = [];

/** Both ascend. */
function differences(a: readonly IdentityId[], b: readonly IdentityId[]): IdentityId[] {
  const found: IdentityId[] = [];
  if (a === b) return found;
  let next = 0;
  for (const id of a) {
    for (let other = b[next]; other !== undefined && other < id; other = b[++next]) found.push(other);
    if (b[next] === id) next++;
    else found.push(id);
  }
  return [...found, ...b.slice(next)];
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
    const answer = answerOf(ask, this.#view);
    this.answers.push(answer);
    return answer.told;
  }
}
