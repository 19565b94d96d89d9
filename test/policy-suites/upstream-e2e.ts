/**
 * The 48 cases of Kubernetes' own end-to-end suite, [sig-network] Netpol: 42 over TCP, 3 over UDP, 3 over SCTP
 * (kubernetes/kubernetes, test/e2e/network/netpol/network_policy.go), with the reachability that it states for each
 * step. Facts only, in our words. Differences: we always probe the whole 3 × 3 world, so an expectation also says what
 * pods that a case does without see; we probe pod addresses, not Services; an ipBlock is written for both families.
 */

import type { LabelSelector } from '../../src/core/labels.ts';
import {
  allow,
  create,
  deny,
  update,
  type AroundPod,
  type Expectation,
  type Protocol,
  type Step,
  type SuiteCase,
  type SuitePeer,
  type SuitePolicy,
  type SuiteRule,
} from './case.ts';

type Edges = Expectation['edges'];

const everyPod: LabelSelector = {};
const labelled = (pod: string): LabelSelector => ({ matchLabels: { pod } });
const podIn = (...values: string[]): LabelSelector => ({ matchExpressions: [{ key: 'pod', operator: 'In', values }] });
const nameLabel = 'kubernetes.io/metadata.name';
const named = (namespace: string): LabelSelector => ({ matchLabels: { [nameLabel]: namespace } });
const namedBy = (operator: 'In' | 'NotIn', namespace: string): LabelSelector => ({
  matchExpressions: [{ key: nameLabel, operator, values: [namespace] }],
});

const inX = (name: string, pods: LabelSelector, rules: Pick<SuitePolicy, 'ingress' | 'egress'>): SuitePolicy => ({
  namespace: 'x',
  name,
  pods,
  ...rules,
});
const from = (...peers: SuitePeer[]): SuiteRule => ({ peers });
const step = (actions: Step['actions'], ...expect: Expectation[]): Step => ({ actions, expect });
const tcp = (port: number, ...edges: Edges): Expectation => ({ port, protocol: 'TCP', edges });
/** A case of one step that looks at TCP port 80. */
const once = (name: string, policies: readonly SuitePolicy[], ...edges: Edges): SuiteCase => ({
  name,
  tags: ['tcp'],
  steps: [step(policies.map(create), tcp(80, ...edges))],
});
const stepwise = (name: string, ...steps: Step[]): SuiteCase => ({ name, tags: ['tcp'], steps });

const denyIngressToX: SuitePolicy = inX('deny-ingress', everyPod, { ingress: [] });
const denyAllInX: SuitePolicy = inX('deny-all', everyPod, { ingress: [], egress: [] });

const selectors: readonly SuiteCase[] = [
  once("support a 'default-deny-ingress' policy", [denyIngressToX], deny('*', 'x/*')),
  once("support a 'default-deny-all' policy", [denyAllInX], deny('*', 'x/*'), deny('x/*', '*')),
  once(
    'allow traffic from pods within server namespace based on PodSelector',
    [inX('x-a-allows-x-b', labelled('a'), { ingress: [from({ podSelector: labelled('b') })] })],
    deny('*', 'x/a'),
    allow('x/b', 'x/a'),
  ),
  once(
    'allow ingress traffic for a target',
    [
      inX('deny-all', everyPod, { ingress: [] }),
      inX('allow-all-to-a', labelled('a'), { ingress: [from({ podSelector: {}, namespaceSelector: {} })] }),
    ],
    deny('*', 'x/*'),
    allow('*', 'x/a'),
  ),
  once('allow ingress traffic from pods in all namespaces', [
    inX('allow-from-another-ns', labelled('a'), { ingress: [from({ namespaceSelector: {} })] }),
  ]),
  once(
    'allow traffic only from a different namespace, based on NamespaceSelector',
    [inX('allow-client-a-via-ns-selector', labelled('a'), { ingress: [from({ namespaceSelector: named('y') })] })],
    deny('x/*', 'x/a'),
    deny('z/*', 'x/a'),
  ),
  once(
    'PodSelector with MatchExpressions',
    [inX('x-a-allows-x-b', labelled('a'), { ingress: [from({ podSelector: podIn('b') })] })],
    deny('*', 'x/a'),
    allow('x/b', 'x/a'),
  ),
  once(
    'NamespaceSelector with MatchExpressions',
    [inX('allow-ns-y', labelled('a'), { ingress: [from({ namespaceSelector: namedBy('In', 'y') })] })],
    deny('x/*', 'x/a'),
    deny('z/*', 'x/a'),
  ),
  once(
    'PodSelector or NamespaceSelector',
    [
      inX('allow-others-and-b', labelled('a'), {
        ingress: [from({ namespaceSelector: namedBy('NotIn', 'x') }, { podSelector: labelled('b') })],
      }),
    ],
    deny('x/c', 'x/a'),
  ),
  once(
    'PodSelector and NamespaceSelector',
    [
      inX('allow-b-of-others', labelled('a'), {
        ingress: [from({ namespaceSelector: namedBy('NotIn', 'x'), podSelector: labelled('b') })],
      }),
    ],
    deny('*', 'x/a'),
    allow('y/b', 'x/a'),
    allow('z/b', 'x/a'),
  ),
  once(
    'multiple PodSelectors and NamespaceSelectors',
    [
      inX('allow-b-c-of-others', labelled('a'), {
        ingress: [from({ namespaceSelector: namedBy('NotIn', 'x'), podSelector: podIn('b', 'c') })],
      }),
    ],
    deny('x/*', 'x/a'),
    deny('y/a', 'x/a'),
    deny('z/a', 'x/a'),
  ),
  once(
    'any PodSelectors',
    [
      inX('allow-b-c', labelled('a'), {
        ingress: [from({ podSelector: labelled('b') }, { podSelector: labelled('c') })],
      }),
    ],
    deny('*', 'x/a'),
    allow('x/b', 'x/a'),
    allow('x/c', 'x/a'),
  ),
  once(
    'allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector',
    [
      inX('allow-y-a', labelled('a'), {
        ingress: [from({ namespaceSelector: named('y'), podSelector: labelled('a') })],
      }),
    ],
    deny('*', 'x/a'),
    allow('y/a', 'x/a'),
  ),
  once(
    'NamespaceSelector with MatchLabels using default ns label',
    [inX('allow-y-by-default-label', labelled('a'), { ingress: [from({ namespaceSelector: named('y') })] })],
    deny('x/*', 'x/a'),
    deny('z/*', 'x/a'),
  ),
  once(
    'NamespaceSelector with MatchExpressions using default ns label',
    [inX('all-but-y', labelled('a'), { egress: [from({ namespaceSelector: namedBy('NotIn', 'y') })] })],
    deny('x/a', 'y/*'),
  ),
  once(
    'deny ingress from pods on other namespaces',
    [inX('deny-others', everyPod, { ingress: [from({ podSelector: { matchLabels: {} } })] })],
    deny('y/*', 'x/*'),
    deny('z/*', 'x/*'),
  ),
];

const fromYOn = (port: number, protocol: Protocol = 'TCP'): SuiteRule => ({
  peers: [{ namespaceSelector: named('y') }],
  ports: [{ port, protocol }],
});

const ports: readonly SuiteCase[] = [
  stepwise(
    'policy based on Ports',
    step(
      [create(inX('allow-y-81', labelled('a'), { ingress: [fromYOn(81)] }))],
      tcp(81, deny('x/*', 'x/a'), deny('z/*', 'x/a')),
    ),
  ),
  stepwise(
    'multiple, stacked policies with overlapping podSelectors',
    step(
      [create(inX('allow-y-81', labelled('a'), { ingress: [fromYOn(81)] }))],
      tcp(81, deny('x/*', 'x/a'), deny('z/*', 'x/a')),
      tcp(80, deny('*', 'x/a')),
    ),
    step(
      [create(inX('allow-y-80', labelled('a'), { ingress: [fromYOn(80)] }))],
      tcp(80, deny('x/*', 'x/a'), deny('z/*', 'x/a')),
      tcp(81, deny('x/*', 'x/a'), deny('z/*', 'x/a')),
    ),
  ),
  stepwise(
    'support allow-all policy',
    step([create(inX('allow-all', { matchLabels: {} }, { ingress: [{}] }))], tcp(80), tcp(81)),
  ),
  stepwise(
    'ingress access on one named port',
    step(
      [create(inX('allow-81', { matchLabels: {} }, { ingress: [{ ports: [{ port: 'serve-81-tcp' }] }] }))],
      tcp(81),
      tcp(80, deny('*', 'x/*')),
    ),
  ),
  stepwise(
    'ingress access from namespace on one named port',
    step(
      [
        create(
          inX('allow-y-named-80', labelled('a'), {
            ingress: [
              { peers: [{ namespaceSelector: named('y') }], ports: [{ port: 'serve-80-tcp', protocol: 'TCP' }] },
            ],
          }),
        ),
      ],
      tcp(80, deny('x/*', 'x/a'), deny('z/*', 'x/a')),
      tcp(81, deny('*', 'x/a')),
    ),
  ),
  stepwise(
    'egress access on one named port',
    step(
      [create(inX('allow-egress', { matchLabels: {} }, { egress: [{ ports: [{ port: 'serve-80-tcp' }] }] }))],
      tcp(80),
      tcp(81, deny('x/*', '*')),
    ),
  ),
  stepwise(
    'ingress policy allowing any port traffic to a server on a specific protocol',
    step(
      [create(inX('allow-ingress-by-proto', labelled('a'), { ingress: [{ ports: [{ protocol: 'TCP' }] }] }))],
      tcp(80),
      { port: 80, protocol: 'UDP', edges: [deny('*', 'x/a')] },
    ),
  ),
  stepwise(
    'multiple ingress policies with ingress allow-all policy taking precedence',
    step(
      [create(inX('allow-ingress-port-80', { matchLabels: {} }, { ingress: [{ ports: [{ port: 80 }] }] }))],
      tcp(81, deny('*', 'x/*')),
    ),
    step([create(inX('allow-ingress', { matchLabels: {} }, { ingress: [{}] }))], tcp(81)),
  ),
  stepwise(
    'multiple egress policies with egress allow-all policy taking precedence',
    step(
      [create(inX('allow-egress-port-80', { matchLabels: {} }, { egress: [{ ports: [{ port: 80 }] }] }))],
      tcp(81, deny('x/*', '*')),
    ),
    step([create(inX('allow-egress', { matchLabels: {} }, { egress: [{}] }))], tcp(81)),
  ),
  stepwise(
    "not mistake 'protocol: SCTP' for 'protocol: TCP'",
    step(
      [
        create(denyIngressToX),
        create(inX('allow-only-sctp-81', labelled('a'), { ingress: [{ ports: [{ port: 81, protocol: 'SCTP' }] }] })),
      ],
      tcp(81, deny('*', 'x/*')),
    ),
  ),
  stepwise(
    'isolate pods that are selected by a policy allowing SCTP',
    step(
      [create(inX('allow-only-sctp-80', labelled('a'), { ingress: [{ ports: [{ port: 80, protocol: 'SCTP' }] }] }))],
      tcp(81, deny('*', 'x/a')),
    ),
  ),
  stepwise(
    'not allow access by TCP when a policy specifies only UDP',
    step(
      [create(inX('allow-only-udp-81', labelled('a'), { ingress: [{ ports: [{ port: 81, protocol: 'UDP' }] }] }))],
      tcp(81, deny('*', 'x/a')),
    ),
  ),
];

const changes: readonly SuiteCase[] = [
  stepwise(
    'enforce updated policy',
    step([create(inX('mutate', { matchLabels: {} }, { ingress: [{}] }))], tcp(81)),
    step([update(inX('mutate', { matchLabels: {} }, { ingress: [] }))], tcp(81, deny('*', 'x/*'))),
  ),
  stepwise(
    'ingress access from updated namespace',
    step(
      [
        create(
          inX('allow-ns2', labelled('a'), {
            ingress: [from({ namespaceSelector: { matchLabels: { ns2: 'updated' } } })],
          }),
        ),
      ],
      tcp(80, deny('*', 'x/a')),
    ),
    step(
      [{ do: 'label namespace', namespace: 'y', labels: { ns: 'y', ns2: 'updated' } }],
      tcp(80, deny('*', 'x/a'), allow('y/*', '*')),
    ),
  ),
  stepwise(
    'ingress access from updated pod',
    step(
      [
        create(
          inX('allow-pod2', labelled('a'), {
            ingress: [from({ podSelector: { matchLabels: { pod: 'b', pod2: 'updated' } } })],
          }),
        ),
      ],
      tcp(80, deny('*', 'x/a')),
    ),
    step(
      [{ do: 'label pod', pod: 'x/b', labels: { pod: 'b', pod2: 'updated' } }],
      tcp(80, deny('*', 'x/a'), allow('x/b', 'x/a')),
    ),
  ),
  stepwise(
    'deny ingress access to updated pod',
    step([create(inX('deny-by-label', { matchLabels: { target: 'isolated' } }, { ingress: [] }))], tcp(80)),
    step([{ do: 'label pod', pod: 'x/a', labels: { pod: 'a', target: 'isolated' } }], tcp(80, deny('*', 'x/a'))),
  ),
  stepwise(
    'stop enforcing policies after they are deleted',
    step([create(denyAllInX)], tcp(80, deny('x/*', '*'), deny('*', 'x/*'))),
    step([{ do: 'delete policy', namespace: 'x', name: 'deny-all' }], tcp(80)),
  ),
];

/** A single host's prefix, and the /4 around it that upstream takes as "many addresses". */
const host = (around: 'x/b' | 'y/b'): AroundPod => ({ around, size: { hostBits: 0 } });
const manyButXb: AroundPod = { around: 'x/b', size: { prefixLen: 4 }, exceptHostBits: 0 };
const cidrPolicy = (peer: AroundPod): SuitePolicy => inX('allow-via-cidr', labelled('a'), { egress: [from(peer)] });
const toYa = inX('allow-to-y-a', labelled('a'), {
  egress: [from({ namespaceSelector: named('y'), podSelector: labelled('a') })],
});
const yAllowsXa = (pod: string): SuitePolicy => ({
  namespace: 'y',
  name: `allow-from-xa-on-y${pod}`,
  pods: labelled(pod),
  ingress: [from({ namespaceSelector: named('x'), podSelector: labelled('a') })],
});

const egress: readonly SuiteCase[] = [
  once(
    'deny egress from pods based on PodSelector',
    [inX('deny-egress-pod-a', labelled('a'), { egress: [] })],
    deny('x/a', '*'),
  ),
  once(
    'deny egress from all pods in a namespace',
    [inX('deny-egress-ns-x', everyPod, { egress: [] })],
    deny('x/*', '*'),
  ),
  stepwise(
    'Ingress, Egress specified together',
    step(
      [
        create(
          inX('both', labelled('a'), {
            ingress: [from({ podSelector: labelled('b') })],
            egress: [{ ports: [{ port: 80 }] }],
          }),
        ),
      ],
      tcp(80, deny('*', 'x/a'), allow('x/b', 'x/a')),
      tcp(81, deny('*', 'x/a'), deny('x/a', '*'), allow('x/b', 'x/a')),
    ),
  ),
  once(
    'deny egress on the client side even if the server allows',
    [toYa, yAllowsXa('a'), yAllowsXa('b')],
    deny('x/a', '*'),
    deny('*', 'y/a'),
    allow('x/a', 'y/a'),
    deny('*', 'y/b'),
  ),
  once(
    'egress to a server in a different namespace based on PodSelector and NamespaceSelector',
    [toYa],
    deny('x/a', '*'),
    allow('x/a', 'y/a'),
  ),
  once('egress access to server in CIDR block', [cidrPolicy(host('y/b'))], deny('x/a', '*'), allow('x/a', 'y/b')),
  once('except clause while egress access to server in CIDR block', [cidrPolicy(manyButXb)], deny('x/a', 'x/b')),
  stepwise(
    'an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed',
    step([create(cidrPolicy(manyButXb))], tcp(80, deny('x/a', 'x/b'))),
    step([update(cidrPolicy(host('x/b')))], tcp(80, deny('x/a', '*'), allow('x/a', 'x/b'))),
  ),
  stepwise(
    'ingress and egress policies can be controlled independently based on PodSelector',
    step([create(inX('allow-egress', labelled('a'), { egress: [{}] }))], tcp(80)),
    step([create(inX('deny-ingress', labelled('a'), { ingress: [] }))], tcp(80, deny('*', 'x/a'))),
  ),
];

/** Three cases that upstream repeats over another protocol. */
function over(protocol: Protocol): SuiteCase[] {
  const single = (name: string, policy: SuitePolicy, port: number, ...edges: Edges): SuiteCase => ({
    name: `${protocol}: ${name}`,
    tags: [protocol.toLowerCase()],
    steps: [step([create(policy)], { port, protocol, edges })],
  });
  const onlyYa = inX('allow-y-a', labelled('a'), {
    ingress: [from({ namespaceSelector: named('y'), podSelector: labelled('a') })],
  });
  const y81 = inX('allow-y-81', labelled('a'), { ingress: [fromYOn(81, protocol)] });
  return [
    single("support a 'default-deny-ingress' policy", denyIngressToX, 80, deny('*', 'x/*')),
    single('policy based on Ports', y81, 81, deny('x/*', 'x/a'), deny('z/*', 'x/a')),
    single('only from a pod in a different namespace', onlyYa, 80, deny('*', 'x/a'), allow('y/a', 'x/a')),
  ];
}

export const upstreamE2e: readonly SuiteCase[] = [
  ...selectors,
  ...ports,
  ...changes,
  ...egress,
  ...over('UDP'),
  ...over('SCTP'),
];
