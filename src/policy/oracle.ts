/**
 * NetworkPolicy by the letter, straight from the API objects, with no regard to speed: what the compiler is compared
 * with. It shares nothing with the compiler but addresses and label selectors. Slow on purpose; keep it obvious.
 */

import type { Namespace, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, Node, Pod } from '../api/kubernetes.ts';
import { formatIp, parseIp, parsePrefix, prefixContains, prefixContainsIp, type IpAddress } from '../core/ip.ts';
import { matchesSelector, selectorOperators, type LabelSelector } from '../core/labels.ts';

export interface World {
  readonly pods: readonly Pod[];
  readonly namespaces: readonly Namespace[];
  readonly nodes: readonly Node[];
  readonly policies: readonly NetworkPolicy[];
  /** The node that the judged pods run on. */
  readonly nodeName: string;
}

export interface Flow {
  /** The judged pod: the source of egress, the destination of ingress. */
  readonly pod: Pod;
  readonly direction: 'ingress' | 'egress';
  /** The other side. */
  readonly peer: IpAddress;
  /** "TCP", "UDP", "SCTP", or another such as "ICMP", which has no port. */
  readonly protocol: string;
  /** Of the destination. */
  readonly port: number;
}

export interface RuleName {
  readonly namespace: string;
  readonly name: string;
  readonly ruleIndex: number;
}

export interface OracleVerdict {
  readonly verdict: 'allow' | 'deny';
  /** Every rule that allows the flow. */
  readonly rules: readonly RuleName[];
}

export function evaluate(world: World, flow: Flow): OracleVerdict {
  const inForce = world.policies.filter((policy) => selects(policy, flow.pod) && isolates(policy, flow.direction));
  if (inForce.length === 0) return { verdict: 'allow', rules: [] };
  const rules = inForce.flatMap((policy) => allowingRules(policy, world, flow));
  const fromOwnNode = flow.direction === 'ingress' && nodeHas(ownNode(world), flow.peer);
  return { verdict: rules.length > 0 || fromOwnNode ? 'allow' : 'deny', rules };
}

function selects(policy: NetworkPolicy, pod: Pod): boolean {
  if (policy.metadata?.namespace !== pod.metadata?.namespace) return false;
  const selector = policy.spec?.podSelector ?? {};
  return !isSound(selector) || matchesSelector(selector, pod.metadata?.labels);
}

function isolates(policy: NetworkPolicy, direction: 'ingress' | 'egress'): boolean {
  const types = policy.spec?.policyTypes ?? [];
  if (types.includes(direction === 'ingress' ? 'Ingress' : 'Egress')) return true;
  // With types that all say something, what they do not name is not isolated. Otherwise the defaults hold.
  if (types.length > 0 && types.every((type) => type === 'Ingress' || type === 'Egress')) return false;
  return direction === 'ingress' || (policy.spec?.egress ?? []).length > 0;
}

function allowingRules(policy: NetworkPolicy, world: World, flow: Flow): RuleName[] {
  if (!isSound(policy.spec?.podSelector ?? {})) return [];
  const { namespace = '', name = '' } = policy.metadata ?? {};
  const rules =
    flow.direction === 'ingress'
      ? (policy.spec?.ingress ?? []).map((rule) => ({ peers: rule.from ?? [], ports: rule.ports ?? [] }))
      : (policy.spec?.egress ?? []).map((rule) => ({ peers: rule.to ?? [], ports: rule.ports ?? [] }));
  const allowing: RuleName[] = [];
  for (const [ruleIndex, { peers, ports }] of rules.entries()) {
    if (!peers.every(isSoundPeer) || !ports.every(isSoundPort)) continue;
    const peerFits = peers.length === 0 || peers.some((peer) => peerMatches(peer, namespace, world, flow.peer));
    const portFits = ports.length === 0 || ports.some((port) => portMatches(port, world, flow));
    if (peerFits && portFits) allowing.push({ namespace, name, ruleIndex });
  }
  return allowing;
}

function peerMatches(peer: NetworkPolicyPeer, policyNamespace: string, world: World, address: IpAddress): boolean {
  if (peer.ipBlock !== undefined) {
    const inside = (text: string): boolean => {
      const prefix = parsePrefix(text);
      return prefix !== undefined && prefixContainsIp(prefix, address);
    };
    return inside(peer.ipBlock.cidr) && !(peer.ipBlock.except ?? []).some(inside);
  }
  const pod = podAt(world, address);
  if (pod === undefined) return false;
  const namespace = world.namespaces.find(({ metadata }) => metadata?.name === pod.metadata?.namespace);
  const namespaceFits =
    peer.namespaceSelector === undefined
      ? pod.metadata?.namespace === policyNamespace
      : matchesSelector(peer.namespaceSelector, namespace?.metadata?.labels);
  return namespaceFits && matchesSelector(peer.podSelector ?? {}, pod.metadata?.labels);
}

function portMatches(port: NetworkPolicyPort, world: World, flow: Flow): boolean {
  if ((port.protocol ?? 'TCP') !== flow.protocol) return false;
  if (port.port === undefined) return true;
  if (typeof port.port === 'number') return port.port <= flow.port && flow.port <= (port.endPort ?? port.port);
  const destination = flow.direction === 'ingress' ? flow.pod : podAt(world, flow.peer);
  for (const container of destination?.spec?.containers ?? []) {
    for (const declared of container.ports ?? []) {
      if (declared.name !== port.port || (declared.protocol ?? 'TCP') !== flow.protocol) continue;
      return declared.containerPort === flow.port;
    }
  }
  return false;
}

/** The living pod that has the address for itself; a node's address is never a pod's. */
function podAt(world: World, address: IpAddress): Pod | undefined {
  if (world.nodes.some((node) => nodeHas(node, address))) return undefined;
  return world.pods.find((pod) => {
    if (pod.spec?.hostNetwork === true || pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed')
      return false;
    return (pod.status?.podIPs ?? []).some(({ ip }) => isAddress(ip, address));
  });
}

function ownNode(world: World): Node | undefined {
  return world.nodes.find(({ metadata }) => metadata?.name === world.nodeName);
}

function nodeHas(node: Node | undefined, address: IpAddress): boolean {
  return (node?.status?.addresses ?? []).some((entry) => isAddress(entry.address, address));
}

function isAddress(text: string, address: IpAddress): boolean {
  const ip = parseIp(text);
  return ip !== undefined && formatIp(ip) === formatIp(address);
}

// What the API server would have refused. A rule with any of it allows nothing.

function isSoundPeer(peer: NetworkPolicyPeer): boolean {
  if (peer.ipBlock !== undefined) {
    if (peer.podSelector !== undefined || peer.namespaceSelector !== undefined) return false;
    const cidr = parsePrefix(peer.ipBlock.cidr);
    const holes = (peer.ipBlock.except ?? []).map(parsePrefix);
    return cidr !== undefined && holes.every((hole) => hole !== undefined && prefixContains(cidr, hole));
  }
  if (peer.podSelector === undefined && peer.namespaceSelector === undefined) return false;
  return isSound(peer.podSelector ?? {}) && isSound(peer.namespaceSelector ?? {});
}

function isSoundPort({ protocol = 'TCP', port, endPort }: NetworkPolicyPort): boolean {
  if (!['TCP', 'UDP', 'SCTP'].includes(protocol)) return false;
  if (port === undefined) return endPort === undefined;
  if (typeof port === 'string') return port !== '' && endPort === undefined;
  const isPort = (value: number): boolean => Number.isInteger(value) && value > 0 && value < 65536;
  return isPort(port) && (endPort === undefined || (isPort(endPort) && endPort >= port));
}

function isSound(selector: LabelSelector): boolean {
  return (selector.matchExpressions ?? []).every(({ operator, values = [] }) => {
    if (!(selectorOperators as readonly string[]).includes(operator)) return false;
    return operator.endsWith('In') ? values.length > 0 : values.length === 0;
  });
}
