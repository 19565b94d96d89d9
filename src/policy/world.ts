/** Random worlds, policies and flows for the property tests. For tests only. */

import fc from 'fast-check';
import type {
  IpBlock,
  Namespace,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  Node,
  Pod,
} from '../api/kubernetes.ts';
import { parseIp, type IpAddress } from '../core/ip.ts';
import type { LabelSelector } from '../core/labels.ts';
import type { World } from './oracle.ts';

export const nodeName = 'node-a';
const namespaceNames = ['red', 'blue', 'green'];
const keys = ['app', 'tier'];
const values = ['a', 'b'];
const protocols = ['TCP', 'UDP', 'SCTP'];
const portNames = ['http', 'dns'];
/** Few ports, around range ends, so that flows meet rules. */
const ports = [1, 79, 80, 81, 1023, 1024, 8080, 32768, 65535];

/** Nested and disjoint, some around pods, nodes and the outside, of both families. */
const cidrs = [
  '0.0.0.0/0',
  '10.0.0.0/8',
  '10.1.0.0/16',
  '10.1.0.0/30',
  '10.1.0.2/32',
  '10.9.0.0/24',
  '192.0.2.0/24',
  '192.0.2.128/25',
  '::/0',
  'fd00::/16',
  'fd00:1::/64',
  'fd00:1::2/128',
  '2001:db8::/32',
];
const outside = ['192.0.2.1', '192.0.2.200', '203.0.113.7', '2001:db8::9', '2001:db9::1'];

const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });
/** Mostly the first, seldom the second. */
const mostly = <T>(usual: fc.Arbitrary<T>, seldom: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight: 12, arbitrary: usual }, { weight: 1, arbitrary: seldom });

const labels = fc.dictionary(fc.constantFrom(...keys), fc.constantFrom(...values), { maxKeys: 2 });

const requirement = fc.oneof(
  fc.record({
    key: fc.constantFrom(...keys),
    operator: fc.constantFrom('In', 'NotIn'),
    values: fc.uniqueArray(fc.constantFrom(...values), { minLength: 1 }),
  }),
  fc.record({ key: fc.constantFrom(...keys), operator: fc.constantFrom('Exists', 'DoesNotExist') }),
);
const badRequirement = fc.constantFrom(
  { key: 'app', operator: 'Gt', values: ['1'] },
  { key: 'app', operator: 'In', values: [] },
);
const selector: fc.Arbitrary<LabelSelector> = fc.record(
  {
    matchLabels: labels,
    matchExpressions: fc.array(
      mostly<LabelSelector['matchExpressions'] extends readonly (infer R)[] | undefined ? R : never>(
        requirement,
        badRequirement,
      ),
      { maxLength: 2 },
    ),
  },
  { requiredKeys: [] },
);
/** Empty often: it selects everything. */
const anySelector = fc.oneof(fc.constant<LabelSelector>({}), selector);

const ipBlock: fc.Arbitrary<IpBlock> = fc.record(
  {
    cidr: mostly(fc.constantFrom(...cidrs), fc.constantFrom('10.0.0.0', '10.0.0.0/99', '')),
    except: fc.array(fc.constantFrom(...cidrs), { maxLength: 2 }),
  },
  { requiredKeys: ['cidr'] },
);
/** With excepts inside their cidr, which two random prefixes seldom are. */
const nestedBlock: fc.Arbitrary<IpBlock> = fc.constantFrom(
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] },
  { cidr: '10.0.0.0/8', except: ['10.1.0.0/30', '10.9.0.0/24'] },
  { cidr: '10.1.0.0/16', except: ['10.1.0.2/32'] },
  { cidr: '192.0.2.0/24', except: ['192.0.2.128/25'] },
  { cidr: '::/0', except: ['fd00:1::/64', '2001:db8::/32'] },
  { cidr: 'fd00::/16', except: ['fd00:1::2/128'] },
);
const peer: fc.Arbitrary<NetworkPolicyPeer> = mostly<NetworkPolicyPeer>(
  fc.oneof(
    fc.record({ podSelector: anySelector }),
    fc.record({ namespaceSelector: anySelector }),
    fc.record({ podSelector: anySelector, namespaceSelector: anySelector }),
    fc.record({ ipBlock: fc.oneof(ipBlock, nestedBlock) }),
  ),
  fc.oneof(fc.constant({}), fc.record({ ipBlock, podSelector: selector })),
);

const port: fc.Arbitrary<NetworkPolicyPort> = mostly<NetworkPolicyPort>(
  fc.oneof(
    fc.record({ protocol: fc.constantFrom(...protocols), port: fc.constantFrom(...ports) }, { requiredKeys: [] }),
    fc
      .tuple(fc.constantFrom(...protocols), fc.constantFrom(...ports), fc.constantFrom(...ports))
      .map(([protocol, a, b]) => ({ protocol, port: Math.min(a, b), endPort: Math.max(a, b) })),
    fc.record(
      { protocol: fc.constantFrom(...protocols), port: fc.constantFrom(...portNames) },
      { requiredKeys: ['port'] },
    ),
  ),
  fc.constantFrom<NetworkPolicyPort>(
    { protocol: 'ICMP' },
    { port: 0 },
    { port: 70_000 },
    { port: 80, endPort: 79 },
    { endPort: 80 },
    { port: 'http', endPort: 80 },
  ),
);

const peers = maybe(fc.array(peer, { maxLength: 3 }));
const policyPorts = maybe(fc.array(port, { maxLength: 3 }));
const spec = fc.record(
  {
    podSelector: anySelector,
    policyTypes: fc.uniqueArray(mostly(fc.constantFrom('Ingress', 'Egress'), fc.constant('Sideways')), {
      maxLength: 2,
    }),
    ingress: fc.array(fc.record({ from: peers, ports: policyPorts }), { maxLength: 3 }),
    egress: fc.array(fc.record({ to: peers, ports: policyPorts }), { maxLength: 3 }),
  },
  { requiredKeys: [] },
);

const policies = fc.array(fc.tuple(fc.constantFrom(...namespaceNames), spec), { maxLength: 6 }).map((drawn) =>
  drawn.map(([namespace, one], index): NetworkPolicy => ({
    metadata: { namespace, name: `policy-${index}`, uid: `policy-uid-${index}` },
    spec: one,
  })),
);

const namespaces = fc.tuple(labels, labels, labels).map((all) =>
  all.map((one, index): Namespace => {
    const name = namespaceNames[index] ?? '';
    return { metadata: { name, labels: { ...one, 'kubernetes.io/metadata.name': name } } };
  }),
);

const containerPorts = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom(...portNames),
    containerPort: fc.constantFrom(...ports),
    protocol: fc.constantFrom('TCP', 'UDP'),
  }),
  { maxLength: 2, selector: ({ name }) => name },
);
/** A few ended pods show the address of a living one: addresses are used again. */
const podKinds = fc.constantFrom('running', 'running', 'running', 'running', 'ended', 'hostNetwork');
const pods = fc
  .array(fc.tuple(fc.constantFrom(...namespaceNames), labels, containerPorts, podKinds, fc.nat(7)), {
    minLength: 2,
    maxLength: 8,
  })
  .map((drawn) =>
    drawn.map(([namespace, podLabels, declared, kind, other], index): Pod => {
      const number = kind === 'ended' ? other + 1 : index + 1;
      const podIPs =
        kind === 'hostNetwork' ? [{ ip: '10.9.0.1' }] : [{ ip: `10.1.0.${number}` }, { ip: `fd00:1::${number}` }];
      return {
        metadata: { namespace, name: `pod-${index}`, uid: `pod-uid-${index}`, labels: podLabels },
        spec: { nodeName, hostNetwork: kind === 'hostNetwork', containers: [{ name: 'main', ports: declared }] },
        status: { phase: kind === 'ended' ? 'Succeeded' : 'Running', podIP: podIPs[0]?.ip ?? '', podIPs },
      };
    }),
  );

const nodes: Node[] = [
  {
    metadata: { name: nodeName },
    status: {
      addresses: [
        { type: 'InternalIP', address: '10.9.0.1' },
        { type: 'InternalIP', address: 'fd00:9::1' },
        { type: 'Hostname', address: nodeName },
      ],
    },
  },
  { metadata: { name: 'node-b' }, status: { addresses: [{ type: 'InternalIP', address: '10.9.0.2' }] } },
];

export const world: fc.Arbitrary<World> = fc
  .record({ pods, namespaces, policies })
  .map((drawn) => ({ ...drawn, nodes, nodeName }));

export interface FlowShape {
  readonly direction: 'ingress' | 'egress';
  readonly peer: IpAddress;
  readonly protocol: string;
  readonly port: number;
}

/** Every address of the world and some outside it, ports that rules name and their neighbours. */
export function flowsOf(one: World): fc.Arbitrary<FlowShape> {
  const inside = [
    ...one.pods.flatMap((pod) => (pod.status?.podIPs ?? []).map(({ ip }) => ip)),
    '10.9.0.1',
    '10.9.0.2',
    'fd00:9::1',
  ];
  return fc.record({
    direction: fc.constantFrom('ingress' as const, 'egress' as const),
    peer: fc.oneof(fc.constantFrom(...inside), fc.constantFrom(...outside)).map((text) => parseIp(text) as IpAddress),
    protocol: fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom(...protocols) },
      { weight: 1, arbitrary: fc.constant('ICMP') },
    ),
    port: fc.oneof(fc.constantFrom(...ports), fc.constantFrom(2, 78, 1025, 8079, 8081, 40_000, 65_534)),
  });
}
