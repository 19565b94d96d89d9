import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { FlowChange, FlowSide } from '../api/agent-api.ts';
import type { NetworkPolicy, NetworkPolicySpec, Pod } from '../api/kubernetes.ts';
import { parseIp, parsePrefix, prefixContainsIp, type IpAddress } from '../core/ip.ts';
import { check } from '../core/property.ts';
import { evaluate, type World } from './oracle.ts';
import { preview } from './preview.ts';
import { world as anyWorld } from './world.ts';

const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';
const nameOf = (pod: Pod): string => `${pod.metadata?.namespace ?? ''}/${pod.metadata?.name ?? ''}`;
const probes = [1, 79, 80, 81, 1023, 8080, 40_000].flatMap((port) =>
  ['TCP', 'UDP', 'SCTP'].map((protocol) => ({ protocol, port })),
);

describe('preview, against the oracle before and after', () => {
  it('lists exactly the flows between pods, and between pods and the outside, that change', () => {
    const met = { same: 0, allow: 0, deny: 0, outside: 0 };
    const scenes = fc
      .tuple(anyWorld, anyWorld, fc.nat(5))
      .filter(([before]) => before.pods.filter(isProtected).length > 1);
    check(
      fc.property(scenes, ([before, other, removed]) => {
        const apply = other.policies.slice(0, 2);
        const remove = before.policies
          .slice(removed, removed + 1)
          .map(({ metadata }) => ({ namespace: metadata?.namespace ?? '', name: metadata?.name ?? '' }));
        const after: World = { ...before, policies: changed(before.policies, apply, remove) };
        const { flows, flowsOmitted } = preview({ ...before, enforcement: 'default' }, { apply, remove });
        assert.equal(flowsOmitted, 0);
        for (const flow of pairs(before)) {
          const [was, is] = [passes(before, flow), passes(after, flow)];
          const told = flows.filter((row) => covers(row, flow)).map((row) => row.change);
          const expected = was === is ? [] : [is ? 'allow' : 'deny'];
          const says = `${flow.source.text} → ${flow.destination.text} ${flow.port} ${flow.protocol}`;
          assert.deepEqual(told, expected, `${says}\n${JSON.stringify(flows, undefined, 1)}`);
          met[was === is ? 'same' : is ? 'allow' : 'deny']++;
          if (was !== is && (flow.source.pod === undefined || flow.destination.pod === undefined)) met.outside++;
        }
      }),
      { runs: 60 },
    );
    for (const [kind, count] of Object.entries(met)) assert.ok(count > 200, `only ${count}: ${kind}`);
  });
});

interface End {
  readonly text: string;
  readonly ip: IpAddress;
  readonly pod?: Pod;
}
interface Probe {
  readonly source: End;
  readonly destination: End;
  readonly protocol: string;
  readonly port: number;
}

function* pairs(world: World): Iterable<Probe> {
  const pods = world.pods
    .filter(isProtected)
    .flatMap((pod) => (pod.status?.podIPs ?? []).map(({ ip }) => endOf(ip, pod)));
  const outside = ['192.0.2.1', '192.0.2.200', '203.0.113.7', '2001:db8::9'].map((ip) => endOf(ip));
  for (const [index, source] of [...pods, ...outside].entries()) {
    for (const destination of [...pods, ...outside]) {
      if (source.ip.family !== destination.ip.family || source.pod === destination.pod) continue;
      for (const [i, probe] of probes.entries()) if ((i + index) % 3 === 0) yield { source, destination, ...probe };
    }
  }
}

function endOf(text: string, pod?: Pod): End {
  return { text, ip: parseIp(text) as IpAddress, ...(pod && { pod }) };
}

/** Both sides by the letter. */
function passes(world: World, { source, destination, protocol, port }: Probe): boolean {
  const sides = [
    ...(source.pod === undefined ? [] : [{ pod: source.pod, direction: 'egress' as const, peer: destination.ip }]),
    ...(destination.pod === undefined
      ? []
      : [{ pod: destination.pod, direction: 'ingress' as const, peer: source.ip }]),
  ];
  return sides.every((side) => evaluate(world, { ...side, protocol, port }).verdict === 'allow');
}

function covers(row: FlowChange, flow: Probe): boolean {
  if (row.family !== undefined && row.family !== flow.source.ip.family) return false;
  return isOn(row.from, flow.source) && isOn(row.to, flow.destination) && portFits(row.ports, flow);
}

function isOn(side: FlowSide, end: End): boolean {
  if (side.kind === 'pods') return end.pod !== undefined && side.pods.includes(nameOf(end.pod));
  if (side.kind === 'nodes' || end.pod !== undefined) return false;
  const inside = (text: string): boolean => {
    const prefix = parsePrefix(text);
    return prefix !== undefined && prefixContainsIp(prefix, end.ip);
  };
  return (side.prefix === undefined || inside(side.prefix)) && !side.except.some(inside);
}

function portFits(text: string, { protocol, port }: Probe): boolean {
  if (text === 'every port') return true;
  return text.split(', ').some((one) => {
    if (one === `every port of ${protocol.toLowerCase()}`) return true;
    const match = /^(\d+)(?:-(\d+))?\/(\w+)$/.exec(one);
    if (match?.[3] !== protocol.toLowerCase()) return false;
    return Number(match[1]) <= port && port <= Number(match[2] ?? match[1]);
  });
}

function changed(
  policies: readonly NetworkPolicy[],
  apply: readonly NetworkPolicy[],
  remove: readonly { namespace: string; name: string }[],
): NetworkPolicy[] {
  const key = ({ metadata }: NetworkPolicy): string => `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
  const all = new Map([...policies, ...apply].map((policy) => [key(policy), policy]));
  for (const { namespace, name } of remove) all.delete(`${namespace}/${name}`);
  return [...all.values()];
}

describe('preview, by example', () => {
  const pods = [
    pod('client-1', 'client', '10.0.0.1'),
    pod('client-2', 'client', '10.0.0.2'),
    pod('web', 'web', '10.0.0.3'),
  ];
  const base = { pods, namespaces: [{ metadata: { name: 'demo' } }], nodes: [], enforcement: 'default' as const };
  const policy = (name: string, spec: NetworkPolicySpec): NetworkPolicy => ({
    metadata: { namespace: 'demo', name },
    spec,
  });
  const onlyWeb: NetworkPolicySpec = {
    podSelector: { matchLabels: { app: 'web' } },
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 80 }] }],
  };

  it('puts what is alike into one line', () => {
    const { flows, isolation, policies } = preview(
      { ...base, policies: [] },
      { apply: [policy('p', onlyWeb)], remove: [] },
    );
    assert.deepEqual(policies, [{ namespace: 'demo', name: 'p', change: 'create' }]);
    assert.deepEqual(isolation, [{ pods: ['demo/web'], direction: 'ingress', isolated: true }]);
    const web = { kind: 'pods', pods: ['demo/web'] };
    assert.deepEqual(flows, [
      {
        change: 'deny',
        from: { kind: 'pods', pods: ['demo/client-1', 'demo/client-2'] },
        to: web,
        ports: '0-79/tcp, 81-65535/tcp, every port of udp, every port of sctp, other protocols',
      },
      { change: 'deny', from: { kind: 'outside', prefix: '0.0.0.0/0', except: [] }, to: web, ports: 'every port' },
    ]);
  });

  it('tells connections that would be cut, and says nothing when nothing changes', () => {
    const world = { ...base, policies: [policy('p', onlyWeb)] };
    const connection = {
      ...{
        pod: { namespace: 'demo', name: 'web' },
        direction: 'ingress' as const,
        protocol: 6,
        localPort: 80,
        remotePort: 40_000,
      },
      ...{ local: parseIp('10.0.0.3') as IpAddress, remote: parseIp('10.0.0.1') as IpAddress },
    };
    const same = preview(world, { apply: [policy('p', onlyWeb)], remove: [] }, [connection]);
    assert.deepEqual([same.policies[0]?.change, same.flows, same.connections], ['none', [], []]);
    const deny = preview(world, { apply: [policy('p', { ...onlyWeb, ingress: [] })], remove: [] }, [connection]);
    assert.equal(deny.policies[0]?.change, 'update');
    assert.deepEqual(
      deny.flows.map(({ change, ports }) => `${change} ${ports}`),
      ['deny 80/tcp'],
    );
    assert.deepEqual(
      deny.connections.map(({ from, to, destinationPort, change }) => [from.name, to.name, destinationPort, change]),
      [['client-1', 'web', 80, 'deny']],
    );
  });
});

function pod(name: string, app: string, ip: string): Pod {
  const metadata = { namespace: 'demo', name, uid: name, labels: { app } };
  return {
    metadata,
    spec: { nodeName: 'node1', containers: [{ name: 'c' }] },
    status: { phase: 'Running', podIPs: [{ ip }] },
  };
}
