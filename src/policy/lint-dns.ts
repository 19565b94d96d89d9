/** Whether pods whose egress a policy isolates can still resolve names: the most common surprise of an egress policy. */

import type { Pod } from '../api/kubernetes.ts';
import type { Remark } from './lint.ts';
import { selectorCovers } from './lint-cover.ts';
import { numericPorts } from './describe.ts';
import type { PeerNode, PolicyNode, RuleNode } from './node.ts';
import { PortSet } from './port-set.ts';

const [udp, tcp] = [17, 6];

export function dnsFindings(policy: PolicyNode, all: readonly PolicyNode[], pods: readonly Pod[]): Remark[] {
  if (!policy.isolates.egress) return [];
  // Policies add up: what another one that selects these pods allows, they may.
  const others = all.filter((one) => one.namespace === policy.namespace && selectorCovers(one.subject, policy.subject));
  const rules = others.flatMap((one) => one.rules).filter(({ direction }) => direction === 'egress');
  const reaching = rules.filter((rule) => mayReachDns(rule, policy.namespace, pods));
  if (!reaching.some((rule) => allowsPort53(rule, udp))) {
    const all53 = rules.length === 0 ? 'all egress is cut, DNS included' : 'no rule lets DNS queries (53/udp) through';
    return [
      {
        ...{ severity: 'warning', code: 'cuts_dns', field: 'spec.egress' },
        message: `${all53}: the pods cannot resolve names`,
        remedy:
          'allow 53/udp and 53/tcp to namespaceSelector kubernetes.io/metadata.name: kube-system, unless this is meant',
      },
    ];
  }
  if (reaching.some((rule) => allowsPort53(rule, tcp))) return [];
  const message = 'DNS is allowed over UDP only: answers that do not fit a datagram are asked for again over TCP';
  return [
    { severity: 'note', code: 'dns_without_tcp', field: 'spec.egress', message, remedy: 'allow 53/tcp beside 53/udp' },
  ];
}

function allowsPort53(rule: RuleNode, protocol: number): boolean {
  if (rule.ports === undefined) return true;
  const wanted = PortSet.range(protocol, 53, 53);
  return rule.ports.some((port) => {
    if (port.kind === 'named') return port.protocol === protocol && /dns|domain/.test(port.name);
    return numericPorts(port).covers(wanted);
  });
}

/** Selectors that leave the namespace, and address blocks, get the benefit of the doubt. */
function mayReachDns(rule: RuleNode, namespace: string, pods: readonly Pod[]): boolean {
  return rule.peers === undefined || rule.peers.some((peer) => peerMayBeDns(peer, namespace, pods));
}

function peerMayBeDns(peer: PeerNode, namespace: string, pods: readonly Pod[]): boolean {
  if (peer.kind === 'prefix' || peer.namespaceSelector !== undefined || namespace === 'kube-system') return true;
  return pods.some(
    ({ metadata, spec }) =>
      metadata?.namespace === namespace &&
      (spec?.containers ?? []).some(({ ports = [] }) => ports.some(({ containerPort }) => containerPort === 53)),
  );
}
