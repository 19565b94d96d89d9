/** The policy that most of cyclonus' cases vary, and the ways they vary it. */

import type { NetworkPolicyPort } from '../../src/api/kubernetes.ts';
import type { LabelSelector } from '../../src/core/labels.ts';
import type { SuitePeer, SuitePolicy, SuiteRule } from './case.ts';

export type Direction = 'ingress' | 'egress';
export type PolicyPort = NetworkPolicyPort;
export const both: readonly Direction[] = ['ingress', 'egress'];

export const podsIn = (...values: string[]): LabelSelector => ({
  matchExpressions: [{ key: 'pod', operator: 'In', values }],
});
export const namespacesIn = (...values: string[]): LabelSelector => ({
  matchExpressions: [{ key: 'ns', operator: 'In', values }],
});
export const podC: LabelSelector = { matchLabels: { pod: 'c' } };

export const allowDns: SuiteRule = {
  ports: [
    { protocol: 'UDP', port: 53 },
    { protocol: 'TCP', port: 53 },
  ],
};

export const base = {
  namespace: 'x',
  name: 'base',
  pods: { matchLabels: { pod: 'a' } },
  ingress: [
    {
      ports: [{ port: 80, protocol: 'TCP' }],
      peers: [{ podSelector: podsIn('b', 'c'), namespaceSelector: namespacesIn('x', 'y') }],
    },
  ],
  egress: [
    {
      ports: [{ port: 80, protocol: 'TCP' }],
      peers: [{ podSelector: podsIn('a', 'b'), namespaceSelector: namespacesIn('y', 'z') }],
    },
    allowDns,
  ],
} as const satisfies SuitePolicy;

export const varied = (change: Partial<SuitePolicy>): SuitePolicy => ({ ...base, ...change });

/** The first rule of the direction with other peers or ports; the rest stays. */
function withFirstRule(direction: Direction, change: SuiteRule): SuitePolicy {
  const [first, ...rest] = base[direction];
  return varied({ [direction]: [{ ...first, ...change }, ...rest] });
}

export const withPeers = (direction: Direction, peers: readonly SuitePeer[]) => withFirstRule(direction, { peers });
export const withPorts = (direction: Direction, ports: readonly PolicyPort[]) => withFirstRule(direction, { ports });
