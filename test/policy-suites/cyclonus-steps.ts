/** cyclonus' cases of several steps: its example, its 6 actions and its 13 repetitions of upstream cases. */

import type { LabelSelector } from '../../src/core/labels.ts';
import { create, update, type Step, type SuiteCase, type SuitePeer, type SuitePolicy } from './case.ts';
import { allowDns, base, namespacesIn, podsIn, withPeers, withPorts } from './cyclonus-base.ts';

const step = (...actions: Step['actions']): Step => ({ actions });
const labelled = (pod: string): LabelSelector => ({ matchLabels: { pod } });
const inNamespace = (ns: string): LabelSelector => ({ matchLabels: { ns } });
const everyPod: LabelSelector = { matchLabels: {} };

const inX = (name: string, pods: LabelSelector, rules: Pick<SuitePolicy, 'ingress' | 'egress'>): SuitePolicy => ({
  namespace: 'x',
  name,
  pods,
  ...rules,
});

const onlyNamed81 = inX('allow-all', everyPod, { ingress: [{ ports: [{ port: 'serve-81-tcp' }] }] });

const action = (name: string, tags: readonly string[], ...steps: Step[]): SuiteCase => ({
  name,
  tags: ['action', ...tags],
  steps,
});

/** The example also probes single ports; we probe all of them after every step. */
export const examples: readonly SuiteCase[] = [
  {
    name: 'example: ingress access on one named port, with pods that come and go',
    tags: ['miscellaneous', 'example'],
    steps: [
      step(create(onlyNamed81)),
      step(
        { do: 'create namespace', namespace: 'w', labels: { ns: 'w' } },
        { do: 'create pod', pod: 'w/a', labels: { pod: 'a' } },
      ),
      step({ do: 'delete pod', pod: 'w/a' }),
      step({ do: 'delete namespace', namespace: 'w' }),
    ],
  },
];

const peersWithNewLabel: readonly SuitePeer[] = [
  { podSelector: { matchLabels: { 'new-label': 'abc' } }, namespaceSelector: namespacesIn('y', 'z') },
];

export const actions: readonly SuiteCase[] = [
  action(
    'create/delete policy',
    ['create-policy', 'delete-policy'],
    step(create(base)),
    step({ do: 'delete policy', namespace: base.namespace, name: base.name }),
  ),
  action(
    'create/update policy',
    ['create-policy', 'update-policy'],
    step(create(base)),
    step(update(withPorts('ingress', [{ protocol: 'UDP', port: 'serve-81-udp' }]))),
  ),
  action(
    'create/delete namespace',
    ['create-namespace', 'delete-namespace'],
    step(create(base)),
    step(
      { do: 'create namespace', namespace: 'y-2', labels: { ns: 'y' } },
      { do: 'create pod', pod: 'y-2/a', labels: { pod: 'a' } },
      { do: 'create pod', pod: 'y-2/b', labels: { pod: 'b' } },
    ),
    step({ do: 'delete namespace', namespace: 'y-2' }),
  ),
  action(
    'update namespace so that policy applies, then again so it no longer applies',
    ['set-namespace-labels'],
    step(create(withPeers('ingress', [{ namespaceSelector: { matchLabels: { 'new-ns': 'qrs' } } }]))),
    step({ do: 'label namespace', namespace: 'y', labels: { ns: 'y', 'new-ns': 'qrs' } }),
    step({ do: 'label namespace', namespace: 'y', labels: { ns: 'y' } }),
  ),
  action(
    'create/delete pod',
    ['create-pod', 'delete-pod'],
    step(create(base)),
    step({ do: 'create pod', pod: 'x/d', labels: { pod: 'd' } }),
    step({ do: 'delete pod', pod: 'x/d' }),
  ),
  action(
    'update pod so that policy applies, then again so it no longer applies',
    ['set-pod-labels'],
    step(create(withPeers('ingress', peersWithNewLabel))),
    step({ do: 'label pod', pod: 'y/b', labels: { pod: 'b', 'new-label': 'abc' } }),
    step({ do: 'label pod', pod: 'y/b', labels: { pod: 'b' } }),
  ),
];

const repeated = (name: string, tags: readonly string[], ...steps: Step[]): SuiteCase => ({
  name: `upstream: ${name}`,
  tags: ['miscellaneous', 'upstream-e2e', ...tags],
  steps,
});

const fromY = (port: number): SuitePolicy =>
  inX(`allow-client-a-via-ns-selector-${port}`, labelled('a'), {
    ingress: [{ peers: [{ namespaceSelector: inNamespace('y') }], ports: [{ port, protocol: 'TCP' }] }],
  });
const ingressFrom = (name: string, peer: SuitePeer): SuitePolicy =>
  inX(name, labelled('a'), { ingress: [{ peers: [peer] }] });
const yAllowsXa = (pod: string): SuitePolicy => ({
  namespace: 'y',
  name: `allow-from-xa-on-y${pod}-match-selector`,
  pods: labelled(pod),
  ingress: [{ peers: [{ namespaceSelector: inNamespace('x'), podSelector: labelled('a') }] }],
});

export const upstream: readonly SuiteCase[] = [
  repeated('default-deny-ingress', ['ingress', 'deny-all'], step(create(inX('deny-ingress', {}, { ingress: [] })))),
  repeated(
    'default-deny-all',
    ['deny-all'],
    step(create(inX('deny-all-allow-dns', {}, { ingress: [], egress: [allowDns] }))),
  ),
  repeated(
    'multiple PodSelectors and NamespaceSelectors',
    [],
    step(
      create(
        ingressFrom('allow-ns-y-z-pod-b-c', {
          namespaceSelector: { matchExpressions: [{ key: 'ns', operator: 'NotIn', values: ['x'] }] },
          podSelector: podsIn('b', 'c'),
        }),
      ),
    ),
  ),
  repeated('stacked policies with overlapping podSelectors', [], step(create(fromY(81))), step(create(fromY(80)))),
  repeated('allow-all policy', ['allow-all'], step(create(inX('allow-all', everyPod, { ingress: [{}] })))),
  repeated('ingress access on one named port', ['ingress', 'named-port'], step(create(onlyNamed81))),
  repeated(
    'updated policy',
    [],
    step(create(inX('mutate', everyPod, { ingress: [{}] }))),
    step(update(inX('mutate', everyPod, { ingress: [] }))),
  ),
  repeated(
    'ingress access from updated namespace',
    [],
    step(create(ingressFrom('via-ns', { namespaceSelector: { matchLabels: { ns2: 'updated' } } }))),
    step({ do: 'label namespace', namespace: 'y', labels: { ns: 'y', ns2: 'updated' } }),
  ),
  repeated(
    'ingress access from updated pod',
    [],
    step(create(ingressFrom('via-pod', { podSelector: { matchLabels: { pod: 'b', pod2: 'updated' } } }))),
    step({ do: 'label pod', pod: 'x/b', labels: { pod: 'b', pod2: 'updated' } }),
  ),
  repeated(
    'deny ingress access to updated pod',
    [],
    step(create(inX('deny-by-label', { matchLabels: { target: 'isolated' } }, { ingress: [] }))),
    step({ do: 'label pod', pod: 'x/a', labels: { target: 'isolated' } }),
  ),
  repeated(
    'Ingress, Egress specified together',
    [],
    step(
      create(
        inX('both', labelled('a'), {
          ingress: [{ peers: [{ podSelector: labelled('b') }] }],
          egress: [{ ports: [{ port: 80 }, { protocol: 'UDP', port: 53 }] }],
        }),
      ),
    ),
  ),
  repeated(
    'deny egress on the client side even if the server allows',
    ['conflict'],
    step(
      create(
        inX('allow-to-ns-y-pod-a', labelled('a'), {
          egress: [
            { peers: [{ namespaceSelector: inNamespace('y'), podSelector: labelled('a') }] },
            { ports: [{ protocol: 'UDP', port: 53 }] },
          ],
        }),
      ),
      create(yAllowsXa('a')),
      create(yAllowsXa('b')),
    ),
  ),
  repeated(
    'stop enforcing policies after they are deleted',
    ['deny-all', 'delete-policy'],
    step(create(inX('deny-all', {}, { ingress: [], egress: [] }))),
    step({ do: 'delete policy', namespace: 'x', name: 'deny-all' }),
  ),
];
