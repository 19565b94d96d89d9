/** cyclonus' 16 conflict cases: policies that would contradict each other if anything could deny. Rules only add up. */

import { create, type SuiteCase, type SuitePolicy, type SuiteRule } from './case.ts';
import { allowDns, type Direction } from './cyclonus-base.ts';

/** What a policy allows in one direction. */
const rulesOf = {
  'deny-all': [],
  'allow-all': [{}],
  'allow-all-by-pod': [{ peers: [{ namespaceSelector: {} }] }],
  'allow-all-by-ip': [{ peers: [{ cidrs: ['0.0.0.0/0', '::/0'] }] }],
  /** Prefixes and labels that nobody has. */
  'deny-all-by-ip': [{ peers: [{ cidrs: ['0.0.0.0/31', '::/127'] }] }],
  'deny-all-by-pod': [{ peers: [{ namespaceSelector: { matchLabels: { 'this-will-never-happen': 'qrs123' } } }] }],
} as const satisfies Record<string, readonly SuiteRule[]>;
type Kind = keyof typeof rulesOf;

const source = { namespace: 'x', pods: { matchLabels: { pod: 'b' } } } as const;
const destination = { namespace: 'y', pods: { matchLabels: { pod: 'c' } } } as const;
type Target = typeof source | typeof destination;

const policy = (target: Target, direction: Direction, kind: Kind): SuitePolicy => ({
  ...target,
  name: `${kind}-${direction}`,
  [direction]: rulesOf[kind],
});

/** As with cyclonus' default, the source keeps its DNS whenever there is egress policy. */
function conflict(name: string, ...policies: readonly SuitePolicy[]): SuiteCase {
  const hasEgress = policies.some(({ egress }) => egress !== undefined);
  const dns: SuitePolicy[] = hasEgress ? [{ ...source, name: 'allow-dns', egress: [allowDns] }] : [];
  const directions = (['ingress', 'egress'] as const).filter((direction) => policies.some((p) => p[direction]));
  return {
    name,
    tags: ['miscellaneous', 'conflict', 'direction', ...directions],
    steps: [{ actions: [...policies, ...dns].map(create) }],
  };
}

/** Two policies of one pod in one direction. */
const pair = (target: Target, direction: Direction, one: Kind, other: Kind): SuiteCase =>
  conflict(
    `${direction} of ${target.namespace}: ${one} + ${other}`,
    policy(target, direction, one),
    policy(target, direction, other),
  );

const layered = [
  ['deny-all', 'allow-all-by-pod'],
  ['deny-all', 'allow-all-by-ip'],
  ['deny-all-by-ip', 'allow-all-by-pod'],
  ['deny-all-by-pod', 'allow-all-by-ip'],
] as const;

export const conflicts: readonly SuiteCase[] = [
  conflict(
    'deny all from source, allow all to dest',
    policy(source, 'egress', 'deny-all'),
    policy(destination, 'ingress', 'allow-all'),
  ),
  conflict(
    'allow all from source, deny all to dest',
    policy(source, 'egress', 'allow-all'),
    policy(destination, 'ingress', 'deny-all'),
  ),
  pair(source, 'egress', 'deny-all', 'allow-all'),
  pair(destination, 'ingress', 'deny-all', 'allow-all'),
  ...layered.map(([one, other]) => pair(source, 'egress', one, other)),
  // cyclonus passes the source here too.
  ...layered.map(([one, other]) => pair(source, 'ingress', one, other)),
  conflict('egress: deny all by IP', policy(source, 'egress', 'deny-all-by-ip')),
  conflict('egress: deny all by pod', policy(source, 'egress', 'deny-all-by-pod')),
  conflict('ingress: deny all by IP', policy(source, 'ingress', 'deny-all-by-ip')),
  conflict('ingress: deny all by pod', policy(source, 'ingress', 'deny-all-by-pod')),
];
