import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { NodeAddresses } from '../api/agent-api.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { check } from '../core/property.ts';
import { releaseObjection } from './address-info.ts';
import { encodeAllocatedIps, type AllocationRecord } from './allocated-ips.ts';
import { auditAddresses, type AuditInput, type EndpointClaim } from './audit.ts';

/** A cluster that agrees: pods p0… on two nodes, each with 10.0.0.(10+n). */
function cluster(count: number) {
  const pods = Array.from({ length: count }, (_, n) => ({
    metadata: { namespace: 'd', name: `p${n}`, uid: `u${n}` },
    spec: { nodeName: `node${n % 2}` },
    status: { phase: 'Running' },
  }));
  const records = new Map<string, AllocationRecord>(
    pods.map(({ metadata }, n) => [`10.0.0.${10 + n}`, recordOf(metadata.name, metadata.uid)]),
  );
  const nodes = ['node0', 'node1'].map((node): NodeAddresses => {
    const own = pods.flatMap((pod, n) => (pod.spec.nodeName === node ? [{ pod, n }] : []));
    return {
      node,
      namespaces: own.map(({ pod, n }) => namespaceOf(`/run/netns/${n}`, pod.metadata, `10.0.0.${10 + n}`)),
    };
  });
  const endpoints = pods.map(({ metadata }, n) => claimOf(metadata.name, metadata.uid, `10.0.0.${10 + n}`));
  return { pods, records, nodes, endpoints };
}

const recordOf = (name: string, podUid: string): AllocationRecord => ({ pod: `d/${name}`, podUid, interface: 'eth0' });

function namespaceOf(
  netns: string,
  pod: { namespace: string; name: string; uid: string } | undefined,
  ...addresses: string[]
) {
  return { netns, ...(pod && { pod }), interfaces: [{ name: 'eth0', addresses }] };
}

function claimOf(name: string, uid: string, address: string, kept = false): EndpointClaim {
  return { ...{ namespace: 'd', name, uid, kept }, addresses: [{ interface: 'eth0', address, pool: 'p' }] };
}

function poolOf(records: ReadonlyMap<string, AllocationRecord>, counts = {}): SpiderIPPool {
  const allocatedIPs = encodeAllocatedIps(records);
  return {
    metadata: { name: 'p' },
    spec: { subnet: '10.0.0.0/24', ips: ['10.0.0.10-10.0.0.99'] },
    status: {
      ...(allocatedIPs !== undefined && { allocatedIPs }),
      allocatedIPCount: records.size,
      totalIPCount: 90,
      ...counts,
    },
  };
}

type Scene = ReturnType<typeof cluster>;

function findings(scene: Scene, change: Partial<AuditInput> = {}): string[] {
  const input = { ...scene, pools: [poolOf(scene.records)], ...change };
  return auditAddresses(input).map(({ kind, address = '-', message }) => `${kind} ${address}: ${message}`);
}

describe('audit of addresses', () => {
  it('finds nothing where all agree', () => {
    assert.deepEqual(findings(cluster(8)), []);
  });

  it('tells a leak by the uid, not by the name; a kept address is none', () => {
    const scene = cluster(2);
    scene.records.set('10.0.0.50', recordOf('gone', 'x'));
    scene.records.set('10.0.0.51', recordOf('p0', 'earlier'));
    scene.records.set('10.0.0.52', recordOf('kept', 'y'));
    scene.endpoints.push(claimOf('kept', 'y', '10.0.0.52', true));
    assert.deepEqual(findings(scene), [
      'leak 10.0.0.50: pod d/gone (uid x) is gone',
      'leak 10.0.0.51: pod d/p0 (uid earlier) is another pod of the same name now',
    ]);
  });

  it('tells that a pod has ended, and leaves one alone that is about to', () => {
    const scene = cluster(2);
    const [first, second] = scene.pods;
    assert.ok(first && second);
    const ended = { ...first, spec: { ...first.spec, restartPolicy: 'Never' }, status: { phase: 'Failed' } };
    const going = { ...second, metadata: { ...second.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' } };
    assert.deepEqual(findings(scene, { pods: [ended, going] }), ['leak 10.0.0.10: pod d/p0 has ended (Failed)']);
  });

  it('tells an address that is on no interface, only where the node answered', () => {
    const scene = cluster(4);
    const nodes = scene.nodes.map((one) => ({ ...one, namespaces: one.namespaces.slice(1) }));
    assert.deepEqual(findings(scene, { nodes }), [
      'missing 10.0.0.10: pod d/p0 runs on node0, and its eth0 does not have the address',
      'missing 10.0.0.11: pod d/p1 runs on node1, and its eth0 does not have the address',
    ]);
    assert.deepEqual(findings(scene, { nodes: [] }), []);
  });

  it('tells duplicates: on two nodes, on another pod, in two pools', () => {
    const scene = cluster(2);
    const [node0, node1] = scene.nodes;
    assert.ok(node0 && node1);
    const twice = { ...node1, namespaces: [...node1.namespaces, namespaceOf('/x', undefined, '10.0.0.10')] };
    assert.deepEqual(findings(scene, { nodes: [node0, twice] }), [
      'duplicate 10.0.0.10: on eth0 of pod d/p0 on node0 and eth0 of /x on node1',
    ]);
    const other = { namespace: 'd', name: 'z', uid: 'z' };
    const wrong = { ...node0, namespaces: [namespaceOf('/run/netns/0', other, '10.0.0.10')] };
    assert.deepEqual(
      findings(scene, { nodes: [wrong, node1] }).map((text) => text.split(':')[0]),
      ['duplicate 10.0.0.10', 'missing 10.0.0.10'],
    );
    const second = { ...poolOf(new Map([['10.0.0.11', recordOf('p1', 'u1')]])), metadata: { name: 'q' } };
    assert.deepEqual(findings(scene, { pools: [poolOf(scene.records), second] }), [
      'duplicate 10.0.0.11: recorded by p for d/p1 and q for d/p1',
    ]);
  });

  it('tells strays of pool addresses only', () => {
    const scene = cluster(0);
    const namespaces = [namespaceOf('/x', undefined, '10.0.0.20', '10.0.0.200', '192.0.2.1')];
    assert.deepEqual(findings(scene, { nodes: [{ node: 'node0', namespaces }] }), [
      'stray 10.0.0.20: on eth0 of /x on node0, and the pool records it for nobody',
    ]);
    const bridges = ['node0', 'node1'].map((node) => ({
      node,
      namespaces: [namespaceOf('/y', undefined, '172.17.0.1')],
    }));
    assert.deepEqual(findings(scene, { nodes: bridges }), [], 'every node has its docker0');
  });

  it('tells contradicting SpiderEndpoints, addresses that are not the pool’s, wrong counts, unreadable records', () => {
    const scene = cluster(1);
    scene.endpoints.push(claimOf('q', 'uq', '10.0.0.60'), claimOf('r', 'ur', '10.0.0.10'));
    assert.deepEqual(findings(scene), [
      'endpoint 10.0.0.10: SpiderEndpoint d/r (uid ur) has it on eth0, and the pool records it for d/p0 (uid u0)',
      'endpoint 10.0.0.60: SpiderEndpoint d/q (uid uq) has it on eth0, and the pool records it for nobody',
    ]);
    const fine = cluster(1);
    assert.deepEqual(findings(fine, { pools: [poolOf(fine.records, { allocatedIPCount: -1, totalIPCount: 91 })] }), [
      'count -: status.allocatedIPCount is -1, and it should be 1',
      'count -: status.totalIPCount is 91, and it should be 90',
    ]);
    const narrow = { ...poolOf(fine.records), spec: { subnet: '10.0.0.0/24', ips: ['10.0.0.90-10.0.0.179'] } };
    assert.deepEqual(findings(fine, { pools: [narrow] }), ['outside 10.0.0.10: the pool does not have this address']);
    const broken = { ...poolOf(new Map()), status: { allocatedIPs: '{' } };
    assert.deepEqual(findings(cluster(0), { pools: [broken] }), [
      'unreadable -: status.allocatedIPs is not the JSON it should be',
    ]);
  });

  it('sees every single change to a cluster that agrees', () => {
    check(
      fc.property(
        fc.integer({ min: 2, max: 12 }),
        fc.nat(),
        fc.constantFrom('record', 'pod', 'address'),
        (count, at, what) => {
          const scene = cluster(count);
          const n = at % count;
          const address = `10.0.0.${10 + n}`;
          const endpoints: EndpointClaim[] = [];
          if (what === 'record') {
            scene.records.delete(address);
            const found = auditAddresses({ ...scene, endpoints, pools: [poolOf(scene.records)] });
            assert.deepEqual(
              found.map((one) => [one.kind, one.address]),
              [['stray', address]],
            );
            return;
          }
          const pods = what === 'pod' ? scene.pods.filter((_, index) => index !== n) : scene.pods;
          const without = ({ node, namespaces }: NodeAddresses): NodeAddresses => ({
            node,
            namespaces: namespaces.filter(({ pod }) => pod?.uid !== `u${n}`),
          });
          const found = auditAddresses({
            ...{ pods, endpoints, pools: [poolOf(scene.records)] },
            nodes: scene.nodes.map(without),
          });
          assert.deepEqual(
            found.map((one) => [one.kind, one.address]),
            [[what === 'pod' ? 'leak' : 'missing', address]],
          );
        },
      ),
    );
  });
});

describe('release of an address', () => {
  const record = recordOf('p0', 'u0');
  const pod = {
    metadata: { namespace: 'd', name: 'p0', uid: 'u0' },
    spec: { nodeName: 'node0' },
    status: { phase: 'Running' },
  };
  const nobody = { pod: undefined, endpoints: [], onInterfaces: [] };

  it('is refused with the pod’s name while anybody has it', () => {
    assert.equal(releaseObjection('10.0.0.10', record, nobody), undefined);
    assert.equal(
      releaseObjection('10.0.0.10', record, { ...nobody, pod }),
      'pod d/p0 (Running on node0) has it on eth0',
    );
    const other = { ...pod, metadata: { ...pod.metadata, uid: 'other' } };
    assert.equal(releaseObjection('10.0.0.10', record, { ...nobody, pod: other }), undefined);
    const endpoints = [claimOf('p0', 'u0', '10.0.0.10', true)];
    assert.match(releaseObjection('10.0.0.10', record, { ...nobody, endpoints }) ?? '', /kept for d\/p0/);
    assert.match(
      releaseObjection('10.0.0.10', record, { ...nobody, onInterfaces: ['eth0 of /x on node0'] }) ?? '',
      /still on eth0 of \/x on node0/,
    );
  });
});
