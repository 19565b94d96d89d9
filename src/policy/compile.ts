/**
 * The policy compiler: (endpoint, policies, identities) → entries for the datapath.
 *
 *   NetworkPolicy ──parse──► PolicyNode ──select──► identities ──► PolicyEntry (identity, protocol, port, rule)
 *
 *   const policies = new PolicyIndex(objects);
 *   const view = new IdentityView(allocator.entries());
 *   const { isolated, entries, diagnostics } = compileEndpointPolicy(endpoint, policies, view, ruleIds);
 *
 * Pure, and a function of the sets alone: the order in which objects came does not show in the result.
 */

import type { EnforcementMode } from '../api/agent-api.ts';
import type { Pod } from '../api/kubernetes.ts';
import { matchesSelector, type Labels } from '../core/labels.ts';
import type { Diagnostic } from './diagnostics.ts';
import { anyIdentity, type IdentityId, type NamedPort } from './identity.ts';
import { namedPortsOf } from './ipcache.ts';
import type { Direction, PeerNode, PolicyNode, RuleNode } from './node.ts';
import type { PolicyIndex } from './policy-index.ts';
import { everyPort, resolvePort, type PortMatch, type PortNode } from './port.ts';
import { hostRule, type RuleIds } from './rule-id.ts';
import type { Identities, IdentityView } from './select.ts';

/** The pod that is protected. HostNetwork pods are the node and have no policy. */
export interface PolicyEndpoint {
  readonly namespace: string;
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
}

export interface PolicyEntry {
  readonly direction: Direction;
  /** Of the other side; 0 is anyone. */
  readonly identity: IdentityId;
  /** IP protocol number; 0 is any, and then any port too. */
  readonly protocol: number;
  /** Of the destination, whichever the direction. */
  readonly port: number;
  /** How many leading bits of `port` count: 0 every port, 16 one port. */
  readonly portPrefixLen: number;
  readonly ruleId: number;
  readonly action: 'allow';
}

export interface EndpointPolicy {
  /** Whether what no entry allows is dropped; false: everything passes. */
  readonly isolated: { readonly ingress: boolean; readonly egress: boolean };
  /** Sorted; no two match the same. */
  readonly entries: readonly PolicyEntry[];
  readonly diagnostics: readonly Diagnostic[];
}

export function endpointOfPod(pod: Pod): PolicyEndpoint {
  return {
    namespace: pod.metadata?.namespace ?? '',
    labels: pod.metadata?.labels ?? {},
    namedPorts: namedPortsOf(pod),
  };
}

export function compileEndpointPolicy(
  endpoint: PolicyEndpoint,
  policies: PolicyIndex,
  identities: Identities,
  ruleIds: RuleIds,
  enforcement: EnforcementMode = 'default',
): EndpointPolicy {
  const applied = enforcement === 'never' ? [] : policiesOf(endpoint, policies);
  const compileRule = (policy: PolicyNode, rule: RuleNode): CompiledRule =>
    compileOne(policy, rule, ruleIds, endpoint, identities);
  return assemble(applied, identities.hosts, enforcement, compileRule);
}

/** What one rule allows an endpoint's peers. */
interface CompiledRule {
  readonly entries: readonly PolicyEntry[];
  readonly diagnostics: readonly Diagnostic[];
}

function assemble(
  applied: readonly PolicyNode[],
  hosts: readonly IdentityId[],
  enforcement: EnforcementMode,
  compileRule: (policy: PolicyNode, rule: RuleNode) => CompiledRule,
): EndpointPolicy {
  const isolated = {
    ingress: enforcement === 'always' || applied.some((policy) => policy.isolates.ingress),
    egress: enforcement === 'always' || applied.some((policy) => policy.isolates.egress),
  };
  const entries: PolicyEntry[] = [];
  const diagnostics = applied.flatMap((policy) => policy.diagnostics);
  // The node reaches its pods whatever the policy says. The datapath knows the plain host identity; the node's addresses have
  // another one as soon as an ipBlock contains them.
  if (isolated.ingress) for (const identity of hosts) entries.push(allow('ingress', identity, everyPort, hostRule));
  for (const policy of applied) {
    for (const rule of policy.rules) {
      const compiled = compileRule(policy, rule);
      for (const entry of compiled.entries) entries.push(entry);
      diagnostics.push(...compiled.diagnostics);
    }
  }
  return { isolated, entries: distinctEntries(entries), diagnostics };
}

function compileOne(
  policy: PolicyNode,
  rule: RuleNode,
  ruleIds: RuleIds,
  endpoint: PolicyEndpoint,
  identities: Identities,
): CompiledRule {
  const { uid, namespace, name } = policy;
  const ruleId = ruleIds.idOf({ uid, namespace, name, direction: rule.direction, ruleIndex: rule.index });
  const entries: PolicyEntry[] = [];
  const unresolved = addRule(entries, rule, ruleId, endpoint, identities);
  return { entries, diagnostics: unresolved.map((port) => unresolvedPort(policy, rule, port)) };
}

/** The policies that select the endpoint, by name. */
export function policiesOf(endpoint: PolicyEndpoint, policies: PolicyIndex): PolicyNode[] {
  return policies.inNamespace(endpoint.namespace).filter((policy) => matchesSelector(policy.subject, endpoint.labels));
}

/**
 * The same, for pods one by one, and only what depends on something that has changed: with the same pod, the same policies
 * in its namespace and the same answers about identities as before, it gives the very object that was given before; a rule
 * whose answers are the same has the same entries.
 */
export class PodPolicyCompiler {
  readonly #known = new WeakMap<Pod, Compiled>();
  readonly #ruleIds: RuleIds;
  readonly #enforcement: EnforcementMode;

  constructor(ruleIds: RuleIds, enforcement: EnforcementMode = 'default') {
    this.#ruleIds = ruleIds;
    this.#enforcement = enforcement;
  }

  compile(pod: Pod, index: PolicyIndex, view: IdentityView): EndpointPolicy {
    const policies = index.inNamespace(pod.metadata?.namespace ?? '');
    const known = this.#known.get(pod);
    if (known?.policies === policies && isCurrent(known, view)) return known.result;
    const endpoint = known?.endpoint ?? endpointOfPod(pod);
    const applied = known?.policies === policies ? known.applied : this.#applied(endpoint, index);
    const compiled = this.#compile(endpoint, applied, view, known?.view === view ? known : undefined);
    this.#known.set(pod, { ...compiled, endpoint, policies, applied, view, revision: view.revision });
    return compiled.result;
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
    const rules = new Map<RuleNode, RecordedRule>();
    const result = assemble(applied, view.hosts, this.#enforcement, (policy, rule) => {
      const known = before?.rules.get(rule);
      const recorded =
        known !== undefined && isAnswered(known, view) ? known : this.#record(policy, rule, endpoint, view);
      rules.set(rule, recorded);
      return recorded;
    });
    return { rules, hosts: view.hosts, result };
  }

  #record(policy: PolicyNode, rule: RuleNode, endpoint: PolicyEndpoint, view: IdentityView): RecordedRule {
    const recorder = new Recorder(view);
    return { ...compileOne(policy, rule, this.#ruleIds, endpoint, recorder), answers: recorder.answers };
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
  readonly result: EndpointPolicy;
}

interface RecordedRule extends CompiledRule {
  readonly answers: readonly Answer[];
}

/** A question that the compiler asked, and what it was told. */
interface Answer {
  readonly ask: (identities: Identities) => readonly IdentityId[];
  readonly told: readonly IdentityId[];
}

function isCurrent(known: Compiled, view: IdentityView): boolean {
  if (known.view !== view) return false;
  if (known.revision === view.revision) return true;
  if (known.hosts !== view.hosts) return false;
  for (const rule of known.rules.values()) if (!isAnswered(rule, view)) return false;
  known.revision = view.revision;
  return true;
}

function isAnswered({ answers }: RecordedRule, view: IdentityView): boolean {
  return answers.every(({ ask, told }) => ask(view) === told);
}

/** Passes questions on and keeps the answers. Named ports need not be kept: a number never changes its meaning. */
class Recorder implements Identities {
  readonly answers: Answer[] = [];
  readonly #identities: Identities;

  constructor(identities: Identities) {
    this.#identities = identities;
  }

  get hosts(): readonly IdentityId[] {
    return this.#record((identities) => identities.hosts);
  }

  get pods(): readonly IdentityId[] {
    return this.#record((identities) => identities.pods);
  }

  select(peer: PeerNode): readonly IdentityId[] {
    return this.#record((identities) => identities.select(peer));
  }

  namedPorts(id: IdentityId): readonly NamedPort[] {
    return this.#identities.namedPorts(id);
  }

  #record(ask: Answer['ask']): readonly IdentityId[] {
    const told = ask(this.#identities);
    this.answers.push({ ask, told });
    return told;
  }
}

/** Answers the port names that no destination of the rule has. */
function addRule(
  entries: PolicyEntry[],
  rule: RuleNode,
  ruleId: number,
  endpoint: PolicyEndpoint,
  identities: Identities,
): string[] {
  const peers = rule.peers === undefined ? [anyIdentity] : union(rule.peers.map((peer) => identities.select(peer)));
  if (rule.ports === undefined) {
    for (const identity of peers) entries.push(allow(rule.direction, identity, everyPort, ruleId));
    return [];
  }
  const unresolved: string[] = [];
  for (const port of rule.ports) {
    const destinations = destinationsOf(port, rule, peers, endpoint, identities);
    const added = destinations.map(([identity, matches]) => {
      for (const match of matches) entries.push(allow(rule.direction, identity, match, ruleId));
      return matches.length;
    });
    if (port.kind === 'named' && !added.some((count) => count > 0)) unresolved.push(port.name);
  }
  return unresolved;
}

/**
 * The peers with the port numbers that the port means between them and the endpoint. A name is what the destination
 * calls it: the endpoint for ingress; for egress each peer, and when anyone may be the peer, each pod.
 */
function destinationsOf(
  port: PortNode,
  rule: RuleNode,
  peers: readonly IdentityId[],
  endpoint: PolicyEndpoint,
  identities: Identities,
): (readonly [IdentityId, readonly PortMatch[]])[] {
  if (port.kind !== 'named' || rule.direction === 'ingress') {
    const matches = resolvePort(port, endpoint.namedPorts);
    return peers.map((identity) => [identity, matches] as const);
  }
  const named = rule.peers === undefined ? identities.pods : peers;
  return named.map((identity) => [identity, resolvePort(port, identities.namedPorts(identity))] as const);
}

function unresolvedPort(policy: PolicyNode, rule: RuleNode, name: string): Diagnostic {
  const whose = rule.direction === 'ingress' ? 'the selected pod' : 'any pod that the rule selects';
  return {
    code: 'named_port_unresolved',
    severity: 'warning',
    namespace: policy.namespace,
    policy: policy.name,
    field: `spec.${rule.direction}[${rule.index}].ports`,
    message: `no container port of ${whose} is called "${name}" with this protocol; it allows nothing here`,
    remedy: 'name the container port so, or write its number',
  };
}

function union(lists: readonly (readonly IdentityId[])[]): readonly IdentityId[] {
  return lists.length === 1 ? (lists[0] ?? []) : [...new Set(lists.flat())];
}

function allow(
  direction: Direction,
  identity: IdentityId,
  { protocol, port, portPrefixLen }: PortMatch,
  ruleId: number,
): PolicyEntry {
  return { direction, identity, protocol, port, portPrefixLen, ruleId, action: 'allow' };
}

/** Sorted, once each by what it matches: of two rules that allow the same, the first is named. */
export function distinctEntries(entries: readonly PolicyEntry[]): PolicyEntry[] {
  const distinct: PolicyEntry[] = [];
  let last: PolicyEntry | undefined;
  // The sort is stable.
  for (const entry of entries.toSorted(compareEntries)) {
    if (last !== undefined && compareEntries(last, entry) === 0) continue;
    distinct.push(entry);
    last = entry;
  }
  return distinct;
}

/** The order of an EndpointPolicy's entries. */
export function compareEntries(a: PolicyEntry, b: PolicyEntry): number {
  if (a.direction !== b.direction) return a.direction === 'ingress' ? -1 : 1;
  return a.identity - b.identity || a.protocol - b.protocol || a.port - b.port || a.portPrefixLen - b.portPrefixLen;
}
