/** Peers that find nobody and ports that nobody serves, as far as the given files tell. */

import type { Pod } from '../api/kubernetes.ts';
import { matchesSelector } from '../core/labels.ts';
import { namedPortText, numericPorts, peerText } from './describe.ts';
import { namedPortsOf } from './ipcache.ts';
import { ruleField, type Remark } from './lint.ts';
import type { LintWorld } from './lint-world.ts';
import type { PeerNode, RuleNode } from './node.ts';
import { protocolNumber, resolvePort, type PortNode } from './port.ts';
import { PortSet } from './port-set.ts';

/** Namespaces of every cluster, whose pods are seldom among the files. */
const clusterNamespaces = ['default', 'kube-system'];

type PodsPeer = PeerNode & { readonly kind: 'pods' };

export function peerFindings(rule: RuleNode, world: LintWorld): Remark[] {
  if (world.pods.length === 0) return [];
  const list = `${ruleField(rule)}.${rule.direction === 'ingress' ? 'from' : 'to'}`;
  return (rule.peers ?? []).flatMap((peer, index): Remark[] => {
    if (peer.kind === 'prefix') return [];
    const namespaces = namespacesOf(peer, world);
    const known = namespaces.filter((name) => world.pods.some(({ metadata }) => metadata?.namespace === name));
    // Of a namespace without pods among the files nothing can be said.
    if (namespaces.length > known.length || podsOf(peer, world).length > 0) return [];
    const what = namespaces.length === 0 ? 'no namespace' : 'no pod';
    const message = `${peerText(peer)}: the given files hold ${what} that it selects`;
    const remedy = 'correct the selector, or give the files of what it means too';
    return [{ severity: 'warning', code: 'peer_selects_nothing', field: `${list}[${index}]`, message, remedy }];
  });
}

function namespacesOf({ namespace, namespaceSelector }: PodsPeer, world: LintWorld): string[] {
  if (namespaceSelector === undefined) return [namespace ?? ''];
  const given = world.namespaces.map(({ metadata }) => ({ name: metadata?.name ?? '', labels: metadata?.labels }));
  const usual = clusterNamespaces
    .filter((name) => !given.some((one) => one.name === name))
    .map((name) => ({ name, labels: { 'kubernetes.io/metadata.name': name } }));
  return [...given, ...usual]
    .filter(({ labels }) => matchesSelector(namespaceSelector, labels))
    .map(({ name }) => name);
}

function podsOf(peer: PodsPeer, world: LintWorld): Pod[] {
  const namespaces = new Set(namespacesOf(peer, world));
  const candidates = world.pods.filter(({ metadata }) => namespaces.has(metadata?.namespace ?? ''));
  return candidates.filter(({ metadata }) => matchesSelector(peer.podSelector, metadata?.labels));
}

/** Container ports are declarations: a pod may serve others, so this is never an error. */
export function portFindings(rule: RuleNode, subjects: readonly Pod[], world: LintWorld): Remark[] {
  const destinations = rule.direction === 'ingress' ? subjects : peerPods(rule, world);
  if (destinations.length === 0) return [];
  return (rule.ports ?? []).flatMap((port, index): Remark[] => {
    const field = `${ruleField(rule)}.ports[${index}]`;
    if (port.kind === 'named') return namedFinding(port, destinations, field);
    const declaring = destinations.filter((pod) => !declaredPorts(pod).isEmpty);
    const asked = numericPorts(port);
    // Of pods that declare nothing, nothing is known.
    if (port.kind === 'all' || declaring.length < destinations.length) return [];
    if (declaring.some((pod) => !declaredPorts(pod).intersect(asked).isEmpty)) return [];
    const message = `${whose(rule)} declares ${asked.toString()}; they declare ${formatDeclared(declaring)}`;
    const remedy = 'correct the port: it is the pod’s own, not that of a Service in front of it';
    return [{ severity: 'warning', code: 'port_not_served', field, message, remedy }];
  });
}

function namedFinding(
  port: PortNode & { readonly kind: 'named' },
  destinations: readonly Pod[],
  field: string,
): Remark[] {
  if (destinations.some((pod) => resolvePort(port, namedPortsOf(pod)).length > 0)) return [];
  const message = `no container port of the pods concerned is called ${namedPortText(port)}; it allows nothing`;
  const remedy = 'name the container port so, or write its number';
  return [{ severity: 'warning', code: 'port_not_served', field, message, remedy }];
}

/** Empty when others than pods of the files may be meant. */
function peerPods(rule: RuleNode, world: LintWorld): Pod[] {
  const peers = rule.peers ?? [];
  if (peers.some(({ kind }) => kind === 'prefix')) return [];
  const selectors = peers.filter((peer) => peer.kind === 'pods');
  if (selectors.some((peer) => podsOf(peer, world).length === 0)) return [];
  return [...new Set(selectors.flatMap((peer) => podsOf(peer, world)))];
}

function declaredPorts(pod: Pod): PortSet {
  const ports = (pod.spec?.containers ?? []).flatMap((container) => container.ports ?? []);
  return PortSet.union(
    ports.map(({ protocol = 'TCP', containerPort }) =>
      PortSet.range(protocolNumber(protocol) ?? 6, containerPort, containerPort),
    ),
  );
}

function formatDeclared(pods: readonly Pod[]): string {
  return PortSet.union(pods.map(declaredPorts)).toString();
}

function whose(rule: RuleNode): string {
  return rule.direction === 'ingress' ? 'no pod that the policy selects' : 'no pod that the rule selects';
}
