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
  const isolated = {
    ingress: enforcement === 'always' || applied.some((policy) => policy.isolates.ingress),
    egress: enforcement === 'always' || applied.some((policy) => policy.isolates.egress),
  };
  const entries = new EntrySet();
  const diagnostics = applied.flatMap((policy) => policy.diagnostics);
  if (isolated.ingress) addHostEntries(entries, identities);
  for (const policy of applied) {
    for (const rule of policy.rules) {
      const ruleId = ruleIds.idOf({
        uid: policy.uid,
        namespace: policy.namespace,
        name: policy.name,
        direction: rule.direction,
        ruleIndex: rule.index,
      });
      const unresolved = addRule(entries, rule, ruleId, endpoint, identities);
      diagnostics.push(...unresolved.map((name) => unresolvedPort(policy, rule, name)));
    }
  }
  return { isolated, entries: entries.sorted(), diagnostics };
}

/** The policies that select the endpoint, by name. */
export function policiesOf(endpoint: PolicyEndpoint, policies: PolicyIndex): PolicyNode[] {
  return policies.inNamespace(endpoint.namespace).filter((policy) => matchesSelector(policy.subject, endpoint.labels));
}

/**
 * The same, for pods one by one, and only when something they depend on has changed: with the same pod, the same policies
 * in its namespace and the same answers about identities as before, it gives the very object that was given before.
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
    const recorder = new Recorder(view);
    const result = compileEndpointPolicy(endpointOfPod(pod), index, recorder, this.#ruleIds, this.#enforcement);
    this.#known.set(pod, { policies, view, revision: view.revision, answers: recorder.answers, result });
    return result;
  }
}

interface Compiled {
  readonly policies: readonly PolicyNode[];
  readonly view: IdentityView;
  /** The view's, when the answers were last compared. */
  revision: number;
  readonly answers: readonly Answer[];
  readonly result: EndpointPolicy;
}

/** A question that the compiler asked, and what it was told. */
interface Answer {
  readonly ask: (identities: Identities) => readonly IdentityId[];
  readonly told: readonly IdentityId[];
}

function isCurrent(known: Compiled, view: IdentityView): boolean {
  if (known.view !== view) return false;
  if (known.revision === view.revision) return true;
  if (!known.answers.every(({ ask, told }) => ask(view) === told)) return false;
  known.revision = view.revision;
  return true;
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

/**
 * The node reaches its pods whatever the policy says. The datapath knows the plain host identity; the node's
 * addresses have another one as soon as an ipBlock contains them.
 */
function addHostEntries(entries: EntrySet, identities: Identities): void {
  for (const identity of identities.hosts) entries.add(allow('ingress', identity, everyPort, hostRule));
}

/** Answers the port names that no destination of the rule has. */
function addRule(
  entries: EntrySet,
  rule: RuleNode,
  ruleId: number,
  endpoint: PolicyEndpoint,
  identities: Identities,
): string[] {
  const peers = rule.peers === undefined ? [anyIdentity] : union(rule.peers.map((peer) => identities.select(peer)));
  if (rule.ports === undefined) {
    for (const identity of peers) entries.add(allow(rule.direction, identity, everyPort, ruleId));
    return [];
  }
  const unresolved: string[] = [];
  for (const port of rule.ports) {
    const destinations = destinationsOf(port, rule, peers, endpoint, identities);
    const added = destinations.map(([identity, matches]) => {
      for (const match of matches) entries.add(allow(rule.direction, identity, match, ruleId));
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

/** Entries by what they match; of two rules that allow the same, the first is named. */
export class EntrySet {
  readonly #entries = new Map<number, PolicyEntry>();

  constructor(entries: Iterable<PolicyEntry> = []) {
    for (const entry of entries) this.add(entry);
  }

  add(entry: PolicyEntry): void {
    const key = matchKey(entry);
    if (!this.#entries.has(key)) this.#entries.set(key, entry);
  }

  /** Whether one of them matches the same. */
  has(entry: PolicyEntry): boolean {
    return this.#entries.has(matchKey(entry));
  }

  sorted(): PolicyEntry[] {
    return [...this.#entries.values()].sort(compareEntries);
  }
}

/** 1 + 24 + 8 + 17 bits: a port prefix is its bits, then a one, then zeros. */
function matchKey({ direction, identity, protocol, port, portPrefixLen }: PolicyEntry): number {
  const ports = (port << 1) | (1 << (16 - portPrefixLen));
  return (((direction === 'ingress' ? 0 : 2 ** 24) + identity) * 2 ** 8 + protocol) * 2 ** 17 + ports;
}

/** The order of an EndpointPolicy's entries. */
export function compareEntries(a: PolicyEntry, b: PolicyEntry): number {
  if (a.direction !== b.direction) return a.direction === 'ingress' ? -1 : 1;
  return a.identity - b.identity || a.protocol - b.protocol || a.port - b.port || a.portPrefixLen - b.portPrefixLen;
}
