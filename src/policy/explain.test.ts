import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { NetworkPolicy, NetworkPolicySpec, Pod } from '../api/kubernetes.ts';
import { formatIp } from '../core/ip.ts';
import { check } from '../core/property.ts';
import { explain, type ExplainWorld } from './explain.ts';
import { parsePortQuery } from './judge.ts';
import { evaluate } from './oracle.ts';
import { PolicyIndex } from './policy-index.ts';
import { flowsOf, world as anyWorld } from './world.ts';

const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';

describe('explain, against the oracle', () => {
  it('gives its verdict on each side, and names rules that really match', () => {
    const met = { allow: 0, deny: 0, byRule: 0, reasons: 0 };
    const scenes = anyWorld
      .filter(({ pods }) => pods.some(isProtected))
      .chain((world) => fc.tuple(fc.constant(world), fc.array(flowsOf(world), { minLength: 5, maxLength: 15 })));
    check(
      fc.property(scenes, ([world, flows]) => {
        const scene = sceneOf(world);
        for (const pod of world.pods.filter(isProtected)) {
          for (const flow of flows) {
            const port = parsePortQuery(flow.protocol === 'ICMP' ? 'icmp' : `${flow.port}/${flow.protocol}`);
            const own = `${pod.metadata?.namespace}/${pod.metadata?.name}`;
            const peer = formatIp(flow.peer);
            const [from, to] = flow.direction === 'egress' ? [own, peer] : [peer, own];
            const [path] = explain(scene, { from, to, port }).paths;
            assert.ok(path);
            const side = path[flow.direction];
            if (side.reason === 'self') continue;
            const expected = evaluate(world, { ...flow, pod });
            const says = `${from} → ${to} ${flow.protocol} ${flow.port}`;
            assert.equal(side.verdict, expected.verdict, says);
            const matching = side.rules.filter(({ matches }) => matches);
            assert.deepEqual(
              matching.map((rule) => `${rule.policy}/${rule.index}`).sort(),
              expected.rules.map((rule) => `${rule.name}/${rule.ruleIndex}`).sort(),
              says,
            );
            for (const rule of side.rules) assert.equal(rule.matches, rule.reasons.length === 0, says);
            if (side.rule.kind === 'policy') met.byRule++;
            met.reasons += side.rules.length - matching.length;
            met[expected.verdict]++;
          }
        }
      }),
      { runs: 200 },
    );
    for (const [kind, count] of Object.entries(met)) assert.ok(count > 200, `only ${count}: ${kind}`);
  });
});

function sceneOf(
  world: { pods: readonly Pod[]; policies: readonly NetworkPolicy[] } & Partial<ExplainWorldParts>,
): ExplainWorld {
  const { pods, policies, namespaces = [], nodes = [] } = world;
  const common = { enforcement: 'default' as const, audited: () => false };
  return { ...common, pods, namespaces, nodes, policies: new PolicyIndex(policies) };
}
type ExplainWorldParts = Pick<ExplainWorld, 'namespaces' | 'nodes'>;

describe('explain, by example', () => {
  const pods = [
    pod('demo', 'web', '10.0.0.1', { app: 'web' }, [{ name: 'http', containerPort: 8080 }]),
    pod('demo', 'db', '10.0.0.2', { app: 'db' }),
    pod('other', 'web', '10.0.0.3', { app: 'web' }),
  ];
  const namespaces = [{ metadata: { name: 'demo' } }, { metadata: { name: 'other', labels: { team: 'x' } } }];
  const nodes = [{ metadata: { name: 'node1' }, status: { addresses: [{ type: 'InternalIP', address: '10.9.0.1' }] } }];
  const base = { pods, namespaces, nodes };

  const ask = (spec: NetworkPolicySpec | undefined, from: string, to: string, port?: string, more: object = {}) => {
    const policies = spec === undefined ? [] : [{ metadata: { namespace: 'demo', name: 'p', uid: 'p' }, spec }];
    const query = port === undefined ? undefined : parsePortQuery(port);
    return explain({ ...sceneOf({ ...base, policies }), ...more }, { from, to, port: query });
  };
  const ingressOf = (spec: NetworkPolicySpec, from: string, port?: string) => {
    const side = ask({ podSelector: { matchLabels: { app: 'web' } }, ...spec }, from, 'demo/web', port).paths[0]
      ?.ingress;
    assert.ok(side);
    return side;
  };

  it('says what stands in the way, for each kind of peer and port', () => {
    const rows: [NetworkPolicySpec, string, string | undefined, RegExp][] = [
      [
        { ingress: [{ from: [{ podSelector: { matchLabels: { app: 'x' } } }] }] },
        'demo/db',
        '80',
        /podSelector app=x does not match pod demo\/db \(app=db\)/,
      ],
      [
        { ingress: [{ from: [{ podSelector: {} }] }] },
        'other/web',
        '80',
        /without a namespaceSelector it means pods of namespace demo, not of other/,
      ],
      [
        { ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'y' } } }] }] },
        'other/web',
        '80',
        /namespaceSelector team=y does not match namespace other \(.*team=x\)/,
      ],
      [
        { ingress: [{ from: [{ podSelector: {} }] }] },
        '192.0.2.1',
        '80',
        /it selects pods, and 192\.0\.2\.1 is the address of none/,
      ],
      [
        { ingress: [{ from: [{ ipBlock: { cidr: '192.0.2.0/24', except: ['192.0.2.0/28'] } }] }] },
        '192.0.2.1',
        '80',
        /has the exception 192\.0\.2\.0\/28/,
      ],
      [
        { ingress: [{ from: [{ ipBlock: { cidr: '198.51.100.0/24' } }] }] },
        '192.0.2.1',
        '80',
        /198\.51\.100\.0\/24 does not contain 192\.0\.2\.1/,
      ],
      [
        { ingress: [{ ports: [{ port: 443 }, { protocol: 'UDP', port: 80 }] }] },
        'demo/db',
        '80',
        /it allows 443\/tcp, 80\/udp, not 80\/tcp/,
      ],
      [
        { ingress: [{ ports: [{ port: 'htttp' }] }] },
        'demo/db',
        '80',
        /no container port of demo\/web is called "htttp"\/tcp/,
      ],
      [
        { ingress: [{ ports: [{ port: 80, endPort: 70 }] }] },
        'demo/db',
        '80',
        /spec\.ingress\[0\]\.ports\[0\]\.endPort: 70 is not a port from 80 on/,
      ],
    ];
    for (const [spec, from, port, reason] of rows) {
      const side = ingressOf(spec, from, port);
      assert.equal(side.verdict, 'deny');
      assert.equal(side.reason, 'no_rule');
      assert.match(side.rules[0]?.reasons.join('; ') ?? '', reason);
      assert.match(side.summary, /^ingress of demo\/web is isolated by p and no rule allows it from /);
    }
  });

  it('names the rule by policy and index, and resolves named ports', () => {
    const side = ingressOf(
      { ingress: [{ from: [{ podSelector: { matchLabels: { app: 'x' } } }] }, { ports: [{ port: 'http' }] }] },
      'demo/db',
      '8080/tcp',
    );
    assert.deepEqual(side.rule, { kind: 'policy', namespace: 'demo', policy: 'p', direction: 'ingress', index: 1 });
    assert.equal(side.summary, 'demo/p ingress[1] allows it');
  });

  it('without a port tells which are allowed', () => {
    const side = ingressOf({ ingress: [{ ports: [{ port: 80, endPort: 90 }] }] }, 'demo/db');
    assert.equal(side.verdict, 'partly');
    assert.equal(side.allowedPorts, '80-90/tcp');
    assert.equal(ask(undefined, 'demo/db', 'demo/web').verdict, 'allow');
  });

  it('tells the pod itself, its node, other nodes and what is no pod', () => {
    const deny: NetworkPolicySpec = { podSelector: {}, policyTypes: ['Ingress', 'Egress'] };
    assert.equal(ask(deny, 'demo/web', 'demo/web', '80').paths[0]?.egress.reason, 'self');
    assert.equal(ask(deny, '10.9.0.1', 'demo/web', '80').paths[0]?.ingress.reason, 'own_node');
    assert.equal(ask(deny, '10.9.0.1', 'demo/web', '80').paths[0]?.egress.reason, 'not_policed');
    assert.equal(ask(deny, 'demo/web', '192.0.2.1', '80').paths[0]?.ingress.reason, 'not_policed');
    assert.equal(ask(deny, 'demo/web', '192.0.2.1', '80').verdict, 'deny');
  });

  it('follows the enforcement mode and audit', () => {
    const deny: NetworkPolicySpec = { podSelector: {} };
    const always = ask(undefined, 'demo/db', 'other/web', '80', { enforcement: 'always' });
    assert.equal(always.verdict, 'deny');
    assert.match(always.paths[0]?.egress.summary ?? '', /isolated by \(--policy-enforcement always\)/);
    assert.equal(ask(deny, 'demo/db', 'demo/web', '80', { enforcement: 'never' }).verdict, 'allow');
    const audit = ask(deny, 'demo/db', 'demo/web', '80', { audited: () => true });
    assert.equal(audit.verdict, 'allow');
    assert.equal(audit.paths[0]?.ingress.verdict, 'deny');
    assert.match(audit.paths[0]?.ingress.summary ?? '', /audit mode: it passes and is reported/);
  });

  it('refuses what it cannot answer, with a remedy', () => {
    assert.throws(() => ask(undefined, 'demo/nope', 'demo/web'), /there is no such pod/);
    assert.throws(() => ask(undefined, 'nope', 'demo/web'), /neither NAMESPACE\/POD nor an address/);
    assert.throws(() => ask(undefined, 'fd00::1', 'demo/web'), /no address family in common/);
  });
});

function pod(
  namespace: string,
  name: string,
  ip: string,
  labels: Record<string, string>,
  ports: { name: string; containerPort: number }[] = [],
): Pod {
  return {
    metadata: { namespace, name, uid: `${namespace}-${name}`, labels },
    spec: { nodeName: 'node1', containers: [{ name: 'c', ports }] },
    status: { phase: 'Running', podIPs: [{ ip }] },
  };
}
