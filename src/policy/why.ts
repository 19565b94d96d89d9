/** Why a rule matches a flow, or does not: every part of it that stands in the way. */

import type { RuleExplanation } from '../api/agent-api.ts';
import type { Namespace, Node, Pod } from '../api/kubernetes.ts';
import { formatIp, parsePrefix, prefixContainsIp, type IpAddress } from '../core/ip.ts';
import { matchesSelector } from '../core/labels.ts';
import { faultsOf, labelsText, namedPortText, numericPorts, portsText, selectorText } from './describe.ts';
import type { NamedPort } from './identity.ts';
import { namedPortsOf, namespaceLabels } from './ipcache.ts';
import type { PeerNode, PolicyNode, RuleNode } from './node.ts';
import { resolvePort, type PortNode } from './port.ts';
import { PortSet } from './port-set.ts';

/** The other side of a flow, with what rules look at. */
export interface Peer {
  readonly ip: IpAddress;
  readonly pod: Pod | undefined;
  readonly namespace: Namespace | undefined;
  readonly node: Node | undefined;
}

export interface RuleFlow {
  readonly direction: RuleNode['direction'];
  readonly subject: Pod;
  readonly peer: Peer;
  /** What was asked for. */
  readonly ports: PortSet;
}

/** One element for each rule of the policy in the flow's direction, those that are not understood included. */
export function explainRules(policy: PolicyNode, flow: RuleFlow): RuleExplanation[] {
  const { namespace, name } = policy;
  const understood = policy.rules
    .filter((rule) => rule.direction === flow.direction)
    .map((rule): RuleExplanation => {
      const reasons = [...peerObstacles(rule, flow.peer), ...portObstacles(rule, flow)];
      const ports = portsText(rule);
      return { namespace, policy: name, index: rule.index, matches: reasons.length === 0, ports, reasons };
    });
  const faulty = faultyRules(policy, flow.direction).map((index): RuleExplanation => ({
    ...{ namespace, policy: name, index, matches: false, ports: 'nothing' },
    reasons: faultsOf(policy, flow.direction, index),
  }));
  return [...understood, ...faulty].sort((a, b) => a.index - b.index);
}

function faultyRules(policy: PolicyNode, direction: RuleNode['direction']): number[] {
  const pattern = new RegExp(`^spec\\.${direction}\\[(\\d+)\\]`);
  const indexes = policy.diagnostics
    .filter(({ severity }) => severity === 'error')
    .flatMap(({ field }) => pattern.exec(field)?.[1] ?? []);
  return [...new Set(indexes)].map(Number);
}

function peerObstacles(rule: RuleNode, peer: Peer): string[] {
  if (rule.peers === undefined) return [];
  const obstacles = rule.peers.map((one) =>
    one.kind === 'prefix' ? prefixObstacle(one, peer) : podObstacle(one, peer),
  );
  if (obstacles.includes(undefined)) return [];
  const word = rule.direction === 'ingress' ? 'from' : 'to';
  return obstacles.map((text, index) => `${word}[${index}]: ${text ?? ''}`);
}

function prefixObstacle(block: PeerNode & { readonly kind: 'prefix' }, { ip }: Peer): string | undefined {
  const contains = (text: string): boolean => {
    const prefix = parsePrefix(text);
    return prefix !== undefined && prefixContainsIp(prefix, ip);
  };
  if (!contains(block.cidr)) return `${block.cidr} does not contain ${formatIp(ip)}`;
  const hole = block.except.find(contains);
  return hole === undefined ? undefined : `${block.cidr} has the exception ${hole}, which contains ${formatIp(ip)}`;
}

function podObstacle(selector: PeerNode & { readonly kind: 'pods' }, peer: Peer): string | undefined {
  const { pod, node, ip } = peer;
  if (node !== undefined) return `it selects pods, and ${formatIp(ip)} is node ${node.metadata?.name ?? ''}`;
  if (pod === undefined) return `it selects pods, and ${formatIp(ip)} is the address of none`;
  const namespace = pod.metadata?.namespace ?? '';
  if (selector.namespaceSelector === undefined) {
    if (namespace !== selector.namespace) {
      return `without a namespaceSelector it means pods of namespace ${selector.namespace ?? ''}, not of ${namespace}`;
    }
  } else {
    const labels = namespaceLabels(peer.namespace, namespace);
    if (!matchesSelector(selector.namespaceSelector, labels)) {
      const wanted = selectorText(selector.namespaceSelector);
      return `namespaceSelector ${wanted} does not match namespace ${namespace} (${labelsText(labels)})`;
    }
  }
  if (matchesSelector(selector.podSelector, pod.metadata?.labels)) return undefined;
  const name = `${namespace}/${pod.metadata?.name ?? ''}`;
  const wanted = selectorText(selector.podSelector);
  return `podSelector ${wanted} does not match pod ${name} (${labelsText(pod.metadata?.labels)})`;
}

function portObstacles(rule: RuleNode, flow: RuleFlow): string[] {
  if (rule.ports === undefined) return [];
  const destination = flow.direction === 'ingress' ? flow.subject : flow.peer.pod;
  const named = destination === undefined ? [] : namedPortsOf(destination);
  const allowed = PortSet.union(rule.ports.map((port) => resolved(port, named)));
  if (!allowed.intersect(flow.ports).isEmpty) return [];
  const missing = rule.ports.flatMap((port) => (port.kind === 'named' ? unresolved(port, named, destination) : []));
  return allowed.isEmpty
    ? missing
    : [`ports: it allows ${allowed.toString()}, not ${flow.ports.toString()}`, ...missing];
}

function resolved(port: PortNode, named: readonly NamedPort[]): PortSet {
  if (port.kind !== 'named') return numericPorts(port);
  return PortSet.union(resolvePort(port, named).map((match) => PortSet.ofMatch(match)));
}

function unresolved(
  port: PortNode & { readonly kind: 'named' },
  named: readonly NamedPort[],
  destination: Pod | undefined,
): string[] {
  if (resolvePort(port, named).length > 0) return [];
  if (destination === undefined) return [`ports: ${namedPortText(port)} is a name, and the destination is no pod`];
  const { namespace = '', name = '' } = destination.metadata ?? {};
  return [`ports: no container port of ${namespace}/${name} is called ${namedPortText(port)}`];
}
