/**
 * cyclonus' 230 cases (mattfenwick/cyclonus, pkg/generator), as variations of one policy; facts only, in our words.
 * Its expectations come from its own model, so ours come from the oracle. Its tags are kept, since its default run is
 * defined by them: everything but multi-peer, upstream-e2e, example and end-port, 114 cases.
 */

import { conflicts } from './cyclonus-conflicts.ts';
import { actions, examples, upstream } from './cyclonus-steps.ts';
import { create, type SuiteCase, type SuitePeer, type SuiteRule } from './case.ts';
import { both, podC, podsIn, varied, withPeers, withPorts, type Direction, type PolicyPort } from './cyclonus-base.ts';

const single = (name: string, tags: readonly string[], policy: ReturnType<typeof varied>): SuiteCase => ({
  name,
  tags,
  steps: [{ actions: [create(policy)] }],
});

export const targets: readonly SuiteCase[] = [
  ...['x', 'y', 'z'].map((namespace) =>
    single(`set namespace to ${namespace}`, ['target', 'target-namespace'], varied({ namespace })),
  ),
  single('select every pod', ['target', 'target-pod-selector'], varied({ pods: {} })),
  single('select pods by label', ['target', 'target-pod-selector'], varied({ pods: { matchLabels: { pod: 'a' } } })),
  single('select pods by expression', ['target', 'target-pod-selector'], varied({ pods: podsIn('a', 'b') })),
];

const withRules = (direction: Direction, rules: readonly SuiteRule[]) => varied({ [direction]: rules });

export const rules: readonly SuiteCase[] = both.flatMap((direction) => [
  single(`${direction}: deny all`, ['rule', 'deny-all', direction], withRules(direction, [])),
  single(`${direction}: allow all`, ['rule', 'allow-all', direction], withRules(direction, [{}])),
]);

interface PeerChoice {
  readonly name: string;
  readonly peer: SuitePeer;
  readonly tags: readonly string[];
}

const podSelectors = [
  { name: 'nil pods', tag: 'all-pods', podSelector: undefined },
  { name: 'empty pods', tag: 'all-pods', podSelector: {} },
  { name: 'pods by label', tag: 'pods-by-label', podSelector: podC },
];
const namespaceSelectors = [
  { name: 'nil ns', tag: 'policy-namespace', namespaceSelector: undefined },
  { name: 'empty ns', tag: 'all-namespaces', namespaceSelector: {} },
  { name: 'ns by label', tag: 'namespaces-by-label', namespaceSelector: { matchLabels: { ns: 'x' } } },
];

const peerChoices: readonly PeerChoice[] = [
  ...namespaceSelectors.flatMap(({ name, tag, namespaceSelector }) =>
    podSelectors
      .filter(({ podSelector }) => podSelector !== undefined || namespaceSelector !== undefined)
      .map((pods): PeerChoice => ({
        name: `${pods.name} + ${name}`,
        peer: {
          ...(pods.podSelector && { podSelector: pods.podSelector }),
          ...(namespaceSelector && { namespaceSelector }),
        },
        tags: ['peer-pods', tag, pods.tag],
      })),
  ),
  {
    name: 'simple ipblock',
    peer: { around: 'z/c', size: { hostBits: 8 } },
    tags: ['peer-ipblock', 'ip-block-no-except'],
  },
  {
    name: 'ipblock with except',
    peer: { around: 'z/c', size: { hostBits: 8 }, exceptHostBits: 4 },
    tags: ['peer-ipblock', 'ip-block-with-except'],
  },
];

export const peers: readonly SuiteCase[] = both.flatMap((direction) => [
  single(`${direction}: empty peers`, ['rule', 'any-peer', direction], withPeers(direction, [])),
  ...peerChoices.map(({ name, peer, tags }) =>
    single(`${direction}: ${name}`, [...tags, direction], withPeers(direction, [peer])),
  ),
  ...peerChoices.flatMap((one, index) =>
    peerChoices
      .slice(index + 1)
      .map((other) =>
        single(
          `${direction}, 2-peer: ${one.name}, ${other.name}`,
          ['rule', 'multi-peer', ...one.tags, ...other.tags, direction],
          withPeers(direction, [one.peer, other.peer]),
        ),
      ),
  ),
]);

const protocols = ['TCP', 'UDP', 'SCTP'] as const;

const portChoices: readonly PolicyPort[] = [
  ...[undefined, ...protocols].flatMap((protocol) =>
    [undefined, 80, 81].map((port) => ({ ...(protocol && { protocol }), ...(port !== undefined && { port }) })),
  ),
  ...protocols.flatMap((protocol) =>
    [80, 81].map((port) => ({ protocol, port: `serve-${port}-${protocol.toLowerCase()}` })),
  ),
  ...protocols.flatMap((protocol) => [80, 84].map((endPort) => ({ protocol, port: 53, endPort }))),
];

const pathological: readonly { readonly name: string; readonly port: PolicyPort }[] = [
  { name: "a named port that doesn't match its protocol", port: { protocol: 'TCP', port: 'serve-81-udp' } },
  { name: "a named port that isn't served", port: { protocol: 'TCP', port: 'serve-7981-udp' } },
  { name: "a numbered port that isn't served", port: { protocol: 'TCP', port: 7981 } },
];

const portPairs: readonly (readonly PolicyPort[])[] = [
  [{}, { port: 80 }],
  [{}, { port: 'serve-80-tcp' }],
  [{}, { protocol: 'UDP' }],
  [{ port: 80 }, { port: 81 }],
  [{ port: 80 }, { port: 'serve-81-tcp' }],
  [{ port: 80 }, { protocol: 'UDP', port: 'serve-81-udp' }],
  [
    { protocol: 'UDP', port: 80 },
    { protocol: 'UDP', port: 'serve-81-udp' },
  ],
];

function portText({ protocol, port, endPort }: PolicyPort): string {
  return `${protocol ?? 'nil protocol'} ${port ?? 'nil port'}${endPort === undefined ? '' : ` to ${endPort}`}`;
}

function portTags({ protocol, port, endPort }: PolicyPort): string[] {
  const kind = port === undefined ? 'any-port' : typeof port === 'number' ? 'numbered-port' : 'named-port';
  return [
    'port',
    kind,
    ...(protocol === undefined ? [] : ['protocol', protocol.toLowerCase()]),
    ...(endPort === undefined ? [] : ['end-port']),
  ];
}

export const portProtocols: readonly SuiteCase[] = both.flatMap((direction) => [
  single(`${direction}: empty port/protocol`, ['rule', 'any-port-protocol', direction], withPorts(direction, [])),
  ...portChoices.map((port) =>
    single(`${direction}: ${portText(port)}`, [...portTags(port), direction], withPorts(direction, [port])),
  ),
  ...pathological.map(({ name, port }) =>
    single(
      `${direction}: open ${name}`,
      ['miscellaneous', 'pathological', ...portTags(port), direction],
      withPorts(direction, [port]),
    ),
  ),
  ...portPairs.map((pair) =>
    single(
      `${direction}: ${pair.map(portText).join(' and ')}`,
      ['rule', 'multi-port/protocol', ...pair.flatMap(portTags), direction],
      withPorts(direction, pair),
    ),
  ),
]);

const nsZ = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'z' } } };

export const defaultLabel: readonly SuiteCase[] = both.map((direction) =>
  single(
    `${direction}: select namespace by default label`,
    ['peer-pods', 'namespaces-by-default-label', direction],
    withPeers(direction, [nsZ]),
  ),
);

/** By generator, in cyclonus' order. */
export const cyclonusGroups = {
  target: targets,
  rules,
  peers,
  'port/protocol': portProtocols,
  example: examples,
  action: actions,
  conflict: conflicts,
  'default-label': defaultLabel,
  'upstream-e2e': upstream,
} as const satisfies Record<string, readonly SuiteCase[]>;

export const cyclonus: readonly SuiteCase[] = Object.values(cyclonusGroups).flat();

const excludedByDefault = ['multi-peer', 'upstream-e2e', 'example', 'end-port'];

export const cyclonusDefault: readonly SuiteCase[] = cyclonus.filter(
  ({ tags }) => !tags.some((tag) => excludedByDefault.includes(tag)),
);
