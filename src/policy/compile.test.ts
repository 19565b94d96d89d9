import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { NetworkPolicy, NetworkPolicySpec, Pod } from '../api/kubernetes.ts';
import type { IpAddress } from '../core/ip.ts';
import { check } from '../core/property.ts';
import { compileEndpointPolicy, endpointOfPod, type EndpointPolicy, type PolicyEntry } from './compile.ts';
import { formatDiagnostic } from './diagnostics.ts';
import { IdentityAllocator, type IdentityId } from './identity.ts';
import { computeIpcache } from './ipcache.ts';
import { evaluate, type World } from './oracle.ts';
import { PolicyIndex } from './policy-index.ts';
import { protocolNumber } from './port.ts';
import { RuleIds } from './rule-id.ts';
import { IdentityView } from './select.ts';
import { lookupIdentity, simulate, type SimulatedVerdict } from './simulate.ts';
import { flowsOf, world as anyWorld } from './world.ts';

/** Everything that the agent holds, made from a world in the way it makes it. */
function build(world: World) {
  const policies = new PolicyIndex(world.policies);
  const ipcache = new Map<string, IdentityId>();
  const allocator = new IdentityAllocator({ nowMs: () => 0 });
  for (const [prefix, descriptor] of computeIpcache({ ...world, prefixes: policies.prefixes() })) {
    ipcache.set(prefix, allocator.acquire(descriptor) as IdentityId);
  }
  const view = new IdentityView(allocator.entries());
  const ruleIds = new RuleIds();
  const compiled = new Map<Pod, EndpointPolicy>();
  const compile = (pod: Pod): EndpointPolicy => {
    const known = compiled.get(pod);
    const policy = known ?? compileEndpointPolicy(endpointOfPod(pod), policies, view, ruleIds);
    compiled.set(pod, policy);
    return policy;
  };
  const judge = (
    pod: Pod,
    flow: { direction: 'ingress' | 'egress'; peer: IpAddress; protocol: string; port: number },
  ): SimulatedVerdict =>
    simulate(compile(pod), {
      direction: flow.direction,
      identity: lookupIdentity(ipcache, flow.peer),
      protocol: protocolNumber(flow.protocol) ?? 1,
      port: protocolNumber(flow.protocol) === undefined ? 0 : flow.port,
    });
  return { policies, ipcache, ruleIds, compile, judge };
}

const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';

describe('compiled policies against the oracle', () => {
  it('agree on the verdict of every flow, and name a rule that allows it', () => {
    const judged = { allow: 0, deny: 0, byRule: 0, notIsolated: 0 };
    const scenes = anyWorld
      .filter(({ pods }) => pods.some(isProtected))
      .chain((world) => fc.tuple(fc.constant(world), fc.array(flowsOf(world), { minLength: 20, maxLength: 40 })));
    check(
      fc.property(scenes, ([world, flows]) => {
        const { judge, ruleIds } = build(world);
        for (const pod of world.pods.filter(isProtected)) {
          for (const flow of flows) {
            const expected = evaluate(world, { ...flow, pod });
            const actual = judge(pod, flow);
            const says = `${pod.metadata?.name} ${flow.direction} ${flow.peer.value.toString(16)} ${flow.protocol} ${flow.port}`;
            assert.equal(actual.verdict, expected.verdict, says);
            const rule = ruleIds.lookup(actual.ruleId);
            if (rule !== undefined) {
              const names = expected.rules.map(({ namespace, name, ruleIndex }) => `${namespace}/${name}/${ruleIndex}`);
              assert.ok(
                names.includes(`${rule.namespace}/${rule.name}/${rule.ruleIndex}`),
                `${says}: rule ${rule.name} ${rule.ruleIndex}`,
              );
              assert.equal(rule.direction, flow.direction);
              judged.byRule++;
            }
            judged[actual.verdict]++;
          }
        }
      }),
      { runs: 600 },
    );
    // A generator that never meets a rule would prove nothing.
    for (const kind of ['allow', 'deny', 'byRule'] as const)
      assert.ok(judged[kind] > 1000, `only ${judged[kind]} flows: ${kind}`);
  });

  it('do not depend on the order of objects or of keys', () => {
    const shuffled = anyWorld.chain((world) =>
      fc.tuple(
        fc.constant(world),
        fc.record({
          pods: fc.shuffledSubarray([...world.pods], { minLength: world.pods.length }),
          namespaces: fc.shuffledSubarray([...world.namespaces], { minLength: world.namespaces.length }),
          nodes: fc.shuffledSubarray([...world.nodes], { minLength: world.nodes.length }),
          policies: fc.shuffledSubarray([...world.policies], { minLength: world.policies.length }),
        }),
      ),
    );
    check(
      fc.property(shuffled, ([world, order]) => {
        const one = build(world);
        const other = build({ ...world, ...order });
        assert.equal(JSON.stringify([...one.ipcache]), JSON.stringify([...other.ipcache]));
        for (const pod of world.pods.filter(isProtected)) {
          assert.equal(JSON.stringify(one.compile(pod)), JSON.stringify(other.compile(pod)));
        }
      }),
      { runs: 200 },
    );
  });

  it('hold entries once, sorted, frozen diagnostics, and nothing for directions that are not isolated', () => {
    check(
      fc.property(anyWorld, (world) => {
        const { compile } = build(world);
        for (const pod of world.pods.filter(isProtected)) {
          const { entries, isolated } = compile(pod);
          const keys = entries.map((e) => `${e.direction}/${e.identity}/${e.protocol}/${e.port}/${e.portPrefixLen}`);
          assert.equal(new Set(keys).size, keys.length);
          for (const entry of entries) {
            assert.ok(isolated[entry.direction]);
            assert.ok(entry.ruleId !== 0);
            // What the datapath's key can express: a port only with a protocol, host bits of the port clear.
            if (entry.protocol === 0) assert.equal(entry.portPrefixLen, 0);
            assert.equal(entry.port % 2 ** (16 - entry.portPrefixLen), 0);
          }
        }
      }),
      { runs: 200 },
    );
  });
});

describe('compileEndpointPolicy, by example', () => {
  const web: Pod = {
    metadata: { namespace: 'demo', name: 'web', uid: 'u1', labels: { app: 'web' } },
    spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 8080 }] }] },
    status: { phase: 'Running', podIPs: [{ ip: '10.1.0.1' }] },
  };
  const db: Pod = {
    metadata: { namespace: 'demo', name: 'db', uid: 'u2', labels: { app: 'db' } },
    spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 5432 }] }] },
    status: { phase: 'Running', podIPs: [{ ip: '10.1.0.2' }] },
  };
  const other: Pod = {
    metadata: { namespace: 'other', name: 'web', uid: 'u3', labels: { app: 'web' } },
    spec: { containers: [] },
    status: { phase: 'Running', podIPs: [{ ip: '10.1.0.3' }] },
  };

  function compileSpec(spec: NetworkPolicySpec): { text: string[]; policy: EndpointPolicy } {
    const policies: NetworkPolicy[] = [
      {
        metadata: { namespace: 'demo', name: 'p', uid: 'p' },
        spec: { podSelector: { matchLabels: { app: 'web' } }, ...spec },
      },
    ];
    const scene = build({
      pods: [web, db, other],
      namespaces: [{ metadata: { name: 'demo' } }, { metadata: { name: 'other', labels: { team: 'x' } } }],
      nodes: [],
      policies,
      nodeName: 'n',
    });
    const names = new Map([...scene.ipcache].map(([prefix, id]) => [id as number, prefix]));
    names.set(0, 'any').set(1, 'host');
    const print = (e: PolicyEntry): string => {
      const where = e.protocol === 0 ? 'all' : `${e.protocol}:${e.port}/${e.portPrefixLen}`;
      const rule = scene.ruleIds.lookup(e.ruleId);
      return `${e.direction} ${names.get(e.identity)} ${where} ${rule === undefined ? 'node' : `#${rule.ruleIndex}`}`;
    };
    const policy = scene.compile(web);
    return { text: policy.entries.map(print), policy };
  }

  const rows: [name: string, spec: NetworkPolicySpec, isolated: string, entries: string[]][] = [
    ['without policyTypes and rules: ingress is isolated', {}, 'ingress', ['ingress host all node']],
    [
      'without policyTypes, with egress rules: both',
      { egress: [{}] },
      'ingress egress',
      ['ingress host all node', 'egress any all #0'],
    ],
    ['without policyTypes, with empty egress: ingress only', { egress: [] }, 'ingress', ['ingress host all node']],
    ['type Egress without rules cuts egress only', { policyTypes: ['Egress'] }, 'egress', []],
    ['rules of a direction that is not a type do not count', { policyTypes: ['Egress'], ingress: [{}] }, 'egress', []],
    ['an empty rule allows everyone', { ingress: [{}] }, 'ingress', ['ingress any all #0', 'ingress host all node']],
    [
      'an empty from is no restriction',
      { ingress: [{ from: [] }] },
      'ingress',
      ['ingress any all #0', 'ingress host all node'],
    ],
    [
      'podSelector alone stays in the namespace',
      { ingress: [{ from: [{ podSelector: {} }] }] },
      'ingress',
      ['ingress host all node', 'ingress 10.1.0.1/32 all #0', 'ingress 10.1.0.2/32 all #0'],
    ],
    [
      'namespaceSelector {} is every pod, and no address outside',
      { policyTypes: ['Egress'], egress: [{ to: [{ namespaceSelector: {} }] }] },
      'egress',
      ['egress 10.1.0.1/32 all #0', 'egress 10.1.0.2/32 all #0', 'egress 10.1.0.3/32 all #0'],
    ],
    [
      'both selectors in one peer: and',
      {
        policyTypes: ['Egress'],
        egress: [
          { to: [{ namespaceSelector: { matchLabels: { team: 'x' } }, podSelector: { matchLabels: { app: 'web' } } }] },
        ],
      },
      'egress',
      ['egress 10.1.0.3/32 all #0'],
    ],
    [
      'selectors in two peers: or',
      {
        policyTypes: ['Egress'],
        egress: [
          {
            to: [
              { namespaceSelector: { matchLabels: { team: 'x' } } },
              { podSelector: { matchLabels: { app: 'db' } } },
            ],
          },
        ],
      },
      'egress',
      ['egress 10.1.0.2/32 all #0', 'egress 10.1.0.3/32 all #0'],
    ],
    [
      'a namespace not labelled is found by its name',
      {
        policyTypes: ['Egress'],
        egress: [{ to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'other' } } }] }],
      },
      'egress',
      ['egress 10.1.0.3/32 all #0'],
    ],
    [
      'a port without protocol is TCP',
      { policyTypes: ['Egress'], egress: [{ ports: [{ port: 80 }] }] },
      'egress',
      ['egress any 6:80/16 #0'],
    ],
    [
      'a protocol without port is all its ports',
      { policyTypes: ['Egress'], egress: [{ ports: [{ protocol: 'SCTP' }] }] },
      'egress',
      ['egress any 132:0/0 #0'],
    ],
    [
      'a range becomes port prefixes',
      {
        policyTypes: ['Egress'],
        egress: [
          {
            ports: [
              { port: 32768, endPort: 65535 },
              { protocol: 'UDP', port: 5, endPort: 8 },
            ],
          },
        ],
      },
      'egress',
      ['egress any 6:32768/1 #0', 'egress any 17:5/16 #0', 'egress any 17:6/15 #0', 'egress any 17:8/16 #0'],
    ],
    [
      'a name is the endpoint’s for ingress',
      { ingress: [{ ports: [{ port: 'http' }] }] },
      'ingress',
      ['ingress any 6:8080/16 #0', 'ingress host all node'],
    ],
    [
      'a name is each peer’s for egress',
      { policyTypes: ['Egress'], egress: [{ to: [{ podSelector: {} }], ports: [{ port: 'http' }] }] },
      'egress',
      ['egress 10.1.0.1/32 6:8080/16 #0', 'egress 10.1.0.2/32 6:5432/16 #0'],
    ],
    [
      'ipBlock reaches pods and the outside, less its excepts',
      { policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.1.0.0/16', except: ['10.1.0.2/31'] } }] }] },
      'egress',
      ['egress 10.1.0.0/16 all #0', 'egress 10.1.0.1/32 all #0'],
    ],
    [
      'of two rules that allow the same, the first is named',
      { policyTypes: ['Egress'], egress: [{ ports: [{ port: 80 }] }, { ports: [{ port: 80 }, { port: 81 }] }] },
      'egress',
      ['egress any 6:80/16 #0', 'egress any 6:81/16 #1'],
    ],
  ];
  for (const [name, spec, isolated, entries] of rows) {
    it(name, () => {
      const { text, policy } = compileSpec(spec);
      assert.deepEqual(text.sort(), [...entries].sort());
      assert.equal(['ingress', 'egress'].filter((d) => policy.isolated[d as 'ingress']).join(' '), isolated);
      assert.deepEqual(policy.diagnostics, []);
    });
  }

  const bad: [name: string, spec: NetworkPolicySpec, diagnostic: RegExp][] = [
    [
      'a bad cidr',
      { policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/33' } }, { podSelector: {} }] }] },
      /^NetworkPolicy demo\/p, spec\.egress\[0\]\.to\[0\]\.ipBlock\.cidr: "10\.0\.0\.0\/33" is not an address prefix; .*write it as/,
    ],
    [
      'an except outside',
      { policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }] }] },
      /except\[0\]: 11\.0\.0\.0\/16 is not inside 10\.0\.0\.0\/8/,
    ],
    [
      'an unknown protocol',
      { policyTypes: ['Egress'], egress: [{ ports: [{ protocol: 'ICMP' }] }] },
      /ports\[0\]\.protocol: "ICMP" is not a protocol/,
    ],
    [
      'a port out of range',
      { policyTypes: ['Egress'], egress: [{ ports: [{ port: 70000 }] }] },
      /ports\[0\]\.port: 70000 is not a port/,
    ],
    [
      'a reversed range',
      { policyTypes: ['Egress'], egress: [{ ports: [{ port: 80, endPort: 79 }] }] },
      /endPort: 79 is not a port from 80 on/,
    ],
    [
      'a range after a name',
      { policyTypes: ['Egress'], egress: [{ ports: [{ port: 'http', endPort: 79 }] }] },
      /endPort stands beside the port name/,
    ],
    ['an empty peer', { policyTypes: ['Egress'], egress: [{ to: [{}] }] }, /to\[0\]: the peer is empty/],
    [
      'an ipBlock beside a selector',
      { policyTypes: ['Egress'], egress: [{ to: [{ podSelector: {}, ipBlock: { cidr: '::/0' } }] }] },
      /ipBlock stands beside a selector/,
    ],
    [
      'an unknown operator',
      {
        policyTypes: ['Egress'],
        egress: [{ to: [{ podSelector: { matchExpressions: [{ key: 'a', operator: 'Gt', values: ['1'] }] } }] }],
      },
      /podSelector\.matchExpressions\[0\]: operator "Gt"/,
    ],
    [
      'an unresolved name',
      { policyTypes: ['Egress'], egress: [{ to: [{ podSelector: {} }], ports: [{ port: 'nope' }] }] },
      /spec\.egress\[0\]\.ports: no container port of any pod that the rule selects is called "nope"/,
    ],
    [
      'an unknown policy type',
      { policyTypes: ['Egress', 'Sideways'] },
      /policyTypes\[1\]: "Sideways" is not a policy type/,
    ],
    [
      'a bad subject',
      { policyTypes: ['Egress'], podSelector: { matchExpressions: [{ key: 'a', operator: 'Gt' }] }, egress: [{}] },
      /spec\.podSelector\.matchExpressions\[0\]/,
    ],
  ];
  for (const [name, spec, diagnostic] of bad) {
    it(`${name}: says so, and the rule allows nothing`, () => {
      const { text, policy } = compileSpec(spec);
      // The node reaches its pods whatever the policy says.
      assert.deepEqual(
        text.filter((line) => !line.endsWith(' node')),
        [],
      );
      assert.ok(policy.isolated.egress);
      assert.equal(policy.diagnostics.length, 1);
      assert.match(policy.diagnostics.map(formatDiagnostic).join(), diagnostic);
    });
  }

  it('a bad rule leaves the good ones alone', () => {
    const { text, policy } = compileSpec({
      policyTypes: ['Egress'],
      egress: [{ to: [{}] }, { ports: [{ port: 80 }] }],
    });
    assert.deepEqual(text, ['egress any 6:80/16 #1']);
    assert.equal(policy.diagnostics.length, 1);
  });

  it('survives null where the API allows it to be absent', () => {
    const spec = JSON.parse(
      '{"policyTypes":["Egress"],"ingress":null,"egress":[{"to":null,"ports":[{"port":null,"protocol":null,"endPort":null}]}]}',
    ) as NetworkPolicySpec;
    assert.deepEqual(compileSpec(spec).text, ['egress any 6:0/0 #0']);
  });
});

describe('addresses', () => {
  it('are the node’s although a pod claims them', () => {
    const pod: Pod = {
      metadata: { namespace: 'a', name: 'p' },
      status: { phase: 'Running', podIPs: [{ ip: '10.9.0.1' }] },
    };
    const node = { metadata: { name: 'n' }, status: { addresses: [{ type: 'InternalIP', address: '10.9.0.1' }] } };
    const ipcache = computeIpcache({ pods: [pod], nodes: [node], namespaces: [], nodeName: 'n', prefixes: [] });
    assert.deepEqual([...ipcache], [['10.9.0.1/32', { kind: 'host', prefixes: [] }]]);
  });

  it('of two pods belong to the one that stays', () => {
    const leaving: Pod = {
      metadata: {
        namespace: 'a',
        name: 'old',
        uid: 'z',
        deletionTimestamp: '2026-01-01T00:00:00Z',
        labels: { who: 'old' },
      },
      status: { phase: 'Running', podIPs: [{ ip: '10.1.0.1' }] },
    };
    const staying: Pod = {
      metadata: { namespace: 'a', name: 'new', uid: 'a', labels: { who: 'new' } },
      status: { phase: 'Running', podIPs: [{ ip: '10.1.0.1' }] },
    };
    for (const pods of [
      [leaving, staying],
      [staying, leaving],
    ]) {
      const ipcache = computeIpcache({ pods, nodes: [], namespaces: [], nodeName: 'n', prefixes: [] });
      assert.deepEqual(ipcache.get('10.1.0.1/32')?.labels, { who: 'new' });
    }
  });

  it('name every prefix in use around them, not only the longest', () => {
    const ipcache = computeIpcache({
      pods: [],
      nodes: [],
      namespaces: [],
      nodeName: 'n',
      prefixes: ['10.0.0.0/8', '10.1.2.3/16', '0.0.0.0/0', '::/0', 'nonsense'],
    });
    assert.deepEqual(ipcache.get('10.1.0.0/16')?.prefixes, ['0.0.0.0/0', '10.0.0.0/8', '10.1.0.0/16']);
    assert.deepEqual([...ipcache.keys()], ['0.0.0.0/0', '10.0.0.0/8', '10.1.0.0/16', '::/0']);
  });
});
