/** Policies in words, for people who read `sluice policy`. */

import type { RuleName } from '../api/agent-api.ts';
import type { LabelSelector, Labels } from '../core/labels.ts';
import type { PeerNode, PolicyNode, RuleNode } from './node.ts';
import type { PortNode } from './port.ts';
import { PortSet, protocolName } from './port-set.ts';
import { hostRule, noRule, type RuleRef } from './rule-id.ts';

/** "app=web, tier in (a, b), !old"; "" selects everything. */
export function selectorText(selector: LabelSelector): string {
  const labels = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const expressions = (selector.matchExpressions ?? []).map(({ key, operator, values = [] }) => {
    switch (operator) {
      case 'In':
        return `${key} in (${values.join(', ')})`;
      case 'NotIn':
        return `${key} not in (${values.join(', ')})`;
      case 'Exists':
        return key;
      case 'DoesNotExist':
        return `!${key}`;
      default:
        return `${key} ${operator}`;
    }
  });
  return [...labels, ...expressions].join(', ');
}

/** "app=web, tier=a", "no labels". */
export function labelsText(labels: Labels | undefined): string {
  const texts = Object.entries(labels ?? {}).map(([key, value]) => `${key}=${value}`);
  return texts.length === 0 ? 'no labels' : texts.join(', ');
}

/** "pods with app=web in namespace demo", "10.0.0.0/8 except 10.1.0.0/16". */
export function peerText(peer: PeerNode): string {
  if (peer.kind === 'prefix') {
    return peer.except.length === 0 ? peer.cidr : `${peer.cidr} except ${peer.except.join(', ')}`;
  }
  const pods = selectorText(peer.podSelector);
  const who = pods === '' ? 'every pod' : `pods with ${pods}`;
  if (peer.namespaceSelector === undefined) return `${who} in namespace ${peer.namespace ?? ''}`;
  const namespaces = selectorText(peer.namespaceSelector);
  return namespaces === '' ? `${who} in any namespace` : `${who} in namespaces with ${namespaces}`;
}

export function peersText(rule: RuleNode): string {
  return rule.peers === undefined ? 'anyone' : rule.peers.map(peerText).join('; or ');
}

/** "80/tcp, http/tcp, every port of udp", "every port". */
export function portsText(rule: RuleNode): string {
  if (rule.ports === undefined) return 'every port';
  const numeric = PortSet.union(rule.ports.map(numericPorts));
  const named = rule.ports.flatMap((port) => (port.kind === 'named' ? [namedPortText(port)] : []));
  return [...(numeric.isEmpty ? [] : [numeric.toString()]), ...new Set(named)].join(', ');
}

/** "port http of tcp" as a rule names it. */
export function namedPortText(port: PortNode & { readonly kind: 'named' }): string {
  return `"${port.name}"/${protocolName(port.protocol)}`;
}

export function numericPorts(port: PortNode): PortSet {
  const { protocol } = port;
  switch (port.kind) {
    case 'all':
      return PortSet.ofMatch({ protocol, port: 0, portPrefixLen: 0 });
    case 'range':
      return PortSet.union(port.prefixes.map((prefix) => PortSet.ofMatch({ protocol, ...prefix })));
    case 'named':
      return PortSet.empty;
  }
}

/** "demo/allow-web ingress[0]", "the node itself", "no rule". */
export function ruleText(rule: RuleName): string {
  switch (rule.kind) {
    case 'none':
      return 'no rule';
    case 'host':
      return 'node to its own pod';
    case 'policy':
      return `${rule.namespace}/${rule.policy} ${rule.direction}[${rule.index}]${rule.gone === true ? ' (gone)' : ''}`;
    case 'unknown':
      return `rule ${rule.id} (not known here)`;
  }
}

export function ruleNameOf(id: number, lookup: (id: number) => RuleRef | undefined): RuleName {
  if (id === noRule) return { kind: 'none' };
  if (id === hostRule) return { kind: 'host' };
  const rule = lookup(id);
  if (rule === undefined) return { kind: 'unknown', id };
  const { namespace, name, direction, ruleIndex } = rule;
  return { kind: 'policy', namespace, policy: name, direction, index: ruleIndex };
}

/** What parsing had to say about one rule: why it allows nothing. */
export function faultsOf(policy: PolicyNode, direction: RuleNode['direction'], index: number): string[] {
  const field = `spec.${direction}[${index}]`;
  return policy.diagnostics
    .filter((diagnostic) => diagnostic.severity === 'error')
    .filter((diagnostic) => diagnostic.field === field || diagnostic.field.startsWith(`${field}.`))
    .map((diagnostic) => `${diagnostic.field}: ${diagnostic.message}`);
}
