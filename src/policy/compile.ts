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
import type { Direction, PolicyNode, RuleNode } from './node.ts';
import type { PolicyIndex } from './policy-index.ts';
import { everyPort, resolvePort, type PortMatch } from './port.ts';
import { hostRule, type RuleIds } from './rule-id.ts';
import type { Identities } from './select.ts';

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
  const compiled = applied.flatMap((policy) =>
    policy.rules.map((rule) => compileRule(policy, rule, ruleIds, endpoint, identities)),
  );
  return assemble(applied, compiled, identities.hosts, enforcement);
}

/** What one rule allows an endpoint's peers. */
export interface CompiledRule {
  readonly entries: readonly PolicyEntry[];
  readonly diagnostics: readonly Diagnostic[];
}

/** `rules`: those of `applied`, in this order. */
export function assemble(
  applied: readonly PolicyNode[],
  rules: readonly CompiledRule[],
  hosts: readonly IdentityId[],
  enforcement: EnforcementMode,
): EndpointPolicy {
  const isolated = {
    ingress: enforcement === 'always' || applied.some((policy) => policy.isolates.ingress),
    egress: enforcement === 'always' || applied.some((policy) => policy.isolates.egress),
  };
  // The node reaches its pods whatever the policy says. The datapath knows the plain host identity; the node's addresses have
  // another one as soon as an ipBlock contains them.
  const ofHosts = isolated.ingress ? hosts.map((identity) => allow('ingress', identity, everyPort, hostRule)) : [];
  const diagnostics = [...applied, ...rules].flatMap((part) => part.diagnostics);
  return { isolated, entries: distinctEntries([ofHosts, ...rules.map(({ entries }) => entries)].flat()), diagnostics };
}

/** The same array when they are not in it. */
export function withoutIdentities(
  entries: readonly PolicyEntry[],
  identities: ReadonlySet<IdentityId>,
): readonly PolicyEntry[] {
  if (identities.size === 0) return entries;
  const gone = entries.filter(({ identity }) => identities.has(identity));
  if (gone.length === 0) return entries;
  if (gone.length > fewEntries) return entries.filter(({ identity }) => !identities.has(identity));
  let kept = entries;
  for (const entry of gone) kept = kept.toSpliced(kept.indexOf(entry), 1);
  return kept;
}

export function compileRule(
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
  return policiesAmong(policies.inNamespace(endpoint.namespace), endpoint);
}

/** Of the policies of its namespace those that select the endpoint. */
export function policiesAmong(policies: readonly PolicyNode[], { labels }: PolicyEndpoint): PolicyNode[] {
  return policies.filter((policy) => matchesSelector(policy.subject, labels));
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
    // A name is what the destination calls it: the endpoint for ingress; for egress each peer, and when anyone may be the peer, each pod.
    const ofPeers = port.kind === 'named' && rule.direction === 'egress';
    const matchesHere = ofPeers ? undefined : resolvePort(port, endpoint.namedPorts);
    let isResolved = false;
    for (const identity of ofPeers && rule.peers === undefined ? identities.pods : peers) {
      const matches = matchesHere ?? resolvePort(port, identities.namedPorts(identity));
      for (const match of matches) entries.push(allow(rule.direction, identity, match, ruleId));
      isResolved ||= matches.length > 0;
    }
    if (port.kind === 'named' && !isResolved) unresolved.push(port.name);
  }
  return unresolved;
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

/** Both are sorted. Few are put in their places; of many the sort finds two runs and merges them. */
export function mergeEntries(a: readonly PolicyEntry[], b: readonly PolicyEntry[]): readonly PolicyEntry[] {
  if (b.length === 0) return a;
  if (b.length > fewEntries) return a.concat(b).sort(compareEntries);
  // A copy of exactly the length: one that grows by a splice is copied twice.
  let merged = a;
  for (const entry of b) merged = merged.toSpliced(placeOf(entry, merged), 0, entry);
  return merged;
}

const fewEntries = 8;

/** Behind all that are not greater. */
function placeOf(entry: PolicyEntry, sorted: readonly PolicyEntry[]): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = sorted[middle];
    if (other !== undefined && compareEntries(other, entry) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The order of an EndpointPolicy's entries. */
export function compareEntries(a: PolicyEntry, b: PolicyEntry): number {
  if (a.direction !== b.direction) return a.direction === 'ingress' ? -1 : 1;
  return a.identity - b.identity || a.protocol - b.protocol || a.port - b.port || a.portPrefixLen - b.portPrefixLen;
}
