import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Node, Pod } from '../api/kubernetes.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { systemClock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import type { OwnerObject } from '../ipam/pod-owner.ts';
import { GcCollector } from './gc-collector.ts';
import { decideRecord, type GcFacts, type GcFlags } from './gc-decision.ts';

const nowMs = Date.parse('2026-01-01T00:10:00Z');
const flags: GcFlags = {
  additionalDelayMs: 0,
  terminatingOnReadyNode: true,
  terminatingOnNotReadyNode: true,
  runningWithoutIps: false,
};
const record = { pod: 'default/a', podUid: 'u', interface: 'eth0' };

interface PodShape {
  readonly uid?: string;
  readonly phase?: string;
  readonly ips?: boolean;
  readonly going?: string;
  readonly restartPolicy?: string;
  readonly reason?: string;
  readonly finishedAt?: string;
  readonly owner?: string;
}

function pod(shape: PodShape): Pod {
  const { uid = 'u', phase = 'Running', ips = true, going, restartPolicy = 'Always', reason, finishedAt } = shape;
  return {
    metadata: {
      name: 'a',
      namespace: 'default',
      uid,
      ...(going === undefined ? {} : { deletionTimestamp: going, deletionGracePeriodSeconds: 30 }),
      ...(shape.owner === undefined
        ? {}
        : { ownerReferences: [{ apiVersion: 'apps/v1', kind: shape.owner, name: 'set', uid: 's', controller: true }] }),
    },
    spec: { restartPolicy, nodeName: 'n', terminationGracePeriodSeconds: 30, containers: [] },
    status: {
      phase,
      reason,
      podIPs: ips ? [{ ip: '10.0.0.1' }] : [],
      containerStatuses: finishedAt === undefined ? [] : [{ name: 'c', state: { terminated: { finishedAt } } }],
    },
  } as unknown as Pod;
}

function endpointOf(uid: string): SpiderEndpoint {
  const status = { current: { uid, node: 'n', ips: [] }, ownerControllerType: 'Pod', ownerControllerName: 'a' };
  return { metadata: { name: 'a', namespace: 'default' }, status };
}

describe('decision about a record', () => {
  const just = '2026-01-01T00:09:50Z';
  const long = '2026-01-01T00:05:00Z';
  const rows: readonly [string, string, Partial<Omit<GcFacts, 'pod'>> & { pod?: PodShape }, Partial<GcFlags>?][] = [
    ['pod gone', 'release', {}],
    ['pod gone, workload wants it', 'keep', { isWanted: true }],
    ['pod gone, workload does not', 'release', { isWanted: false }],
    ['another pod of the name (G00005, G00007)', 'release', { pod: { uid: 'v' } }],
    ['another pod of a wanted name, with addresses', 'release', { pod: { uid: 'v' }, isWanted: true }],
    ['another pod of a wanted name, none yet', 'keep', { pod: { uid: 'v', ips: false }, isWanted: true }],
    ['another pod of an unwanted name, none yet', 'release', { pod: { uid: 'v', ips: false }, isWanted: false }],
    ['pending', 'keep', { pod: { phase: 'Pending', ips: false } }],
    ['running', 'keep', { pod: {} }],
    ['running without addresses', 'keep', { pod: { ips: false } }],
    ['running without addresses, flag', 'release', { pod: { ips: false } }, { runningWithoutIps: true }],
    ['the same of a wanted one', 'keep', { pod: { ips: false }, isWanted: true }, { runningWithoutIps: true }],
    [
      'succeeded long ago (G00006)',
      'release',
      { pod: { phase: 'Succeeded', restartPolicy: 'Never', finishedAt: long } },
    ],
    ['succeeded just now', 'wait', { pod: { phase: 'Succeeded', restartPolicy: 'Never', finishedAt: just } }],
    ['failed, to be restarted', 'keep', { pod: { phase: 'Failed', restartPolicy: 'OnFailure', finishedAt: long } }],
    ['evicted', 'release', { pod: { phase: 'Failed', reason: 'Evicted' } }],
    ['evicted, wanted', 'keep', { pod: { phase: 'Failed', reason: 'Evicted' }, isWanted: true }],
    ['evicted, unwanted', 'release', { pod: { phase: 'Failed', reason: 'Evicted' }, isWanted: false }],
    // Upstream releases here what the living pod has.
    ['running, with an endpoint of an earlier pod', 'keep', { pod: {}, endpoint: endpointOf('earlier') }],
    ['the same, unwanted', 'keep', { pod: {}, endpoint: endpointOf('earlier'), isWanted: false }],
    ['going, within its grace period', 'wait', { pod: { going: just } }],
    ['going, grace over', 'release', { pod: { going: long } }],
    ['going, wanted', 'keep', { pod: { going: long }, isWanted: true }],
    ['going, unwanted', 'release', { pod: { going: long }, isWanted: false }],
    ['going on a ready node, flag off', 'keep', { pod: { going: long } }, { terminatingOnReadyNode: false }],
    ['going, node not ready (G00009)', 'release', { pod: { going: long }, isNodeReady: false }],
    [
      'going, node not ready, flag off',
      'keep',
      { pod: { going: long }, isNodeReady: false },
      { terminatingOnNotReadyNode: false },
    ],
    ['going, grace over, additional delay', 'wait', { pod: { going: long } }, { additionalDelayMs: 600_000 }],
  ];
  for (const [what, expected, { pod: shape, ...facts }, changed] of rows) {
    it(`${what}: ${expected}`, () => {
      const base = { record, endpoint: undefined, isWanted: undefined, isNodeReady: true, nowMs };
      const decision = decideRecord({ ...base, ...facts, pod: shape && pod(shape) }, { ...flags, ...changed });
      assert.equal(decision.action, expected, decision.reason);
    });
  }
});

class World {
  pool: SpiderIPPool = {
    metadata: { name: 'p', resourceVersion: '1' },
    spec: { subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'] },
    status: { allocatedIPs: '{"10.0.0.1":{"pod":"default/a","podUid":"u"},"10.0.0.2":{"pod":"other/a","podUid":"w"}}' },
  };
  readonly pods = new Map<string, Pod>([['other/a', pod({ uid: 'w' })]]);
  readonly endpoints = new Map<string, SpiderEndpoint>();
  readonly owners = new Map<string, OwnerObject>();
  node: Node | undefined = { status: { conditions: [{ type: 'Ready', status: 'True' }] } };
  /** What the copies do not show yet. */
  unseen = new Set<string>();
  conflictsLeft = 0;
  isDown = false;
  nowMs = nowMs;
  removed: string[] = [];

  collector(settings: Partial<GcFlags> = {}): GcCollector {
    const answer = async <T>(value: () => T): Promise<T> => {
      if (this.isDown) throw new SluiceError({ code: 'kube_unreachable', operation: 'get', object: 'x', what: 'down' });
      return value();
    };
    return new GcCollector({
      pools: {
        cached: () => [this.pool],
        read: () => answer(() => this.pool),
        replaceStatus: (pool) => answer(() => this.#write(pool)),
      },
      pods: {
        cached: (ns, name) => (this.unseen.has(`${ns}/${name}`) ? undefined : this.pods.get(`${ns}/${name}`)),
        read: (ns, name) => answer(() => this.pods.get(`${ns}/${name}`)),
      },
      endpoints: {
        read: (ns, name) => answer(() => this.endpoints.get(`${ns}/${name}`)),
        remove: async ({ metadata }) => void this.removed.push(metadata.name ?? ''),
      },
      owners: { read: ({ kind, namespace, name }) => answer(() => this.owners.get(`${kind} ${namespace}/${name}`)) },
      readNode: () => answer(() => this.node),
      settings: { ...flags, statefulSets: true, virtualMachines: true, ...settings },
      clock: { ...systemClock, nowMs: () => this.nowMs },
      log: silentLogger,
    });
  }

  get addresses(): string {
    return Object.keys(JSON.parse(this.pool.status?.allocatedIPs ?? '{}') as object).join(' ');
  }

  addEndpoint(name: string, uid: string, ownerControllerType: string, ownerControllerName: string): void {
    const current = { uid, node: 'n', ips: [] };
    const status = { current, ownerControllerType, ownerControllerName };
    this.endpoints.set(`default/${name}`, { metadata: { name, namespace: 'default' }, status });
  }

  #write(pool: SpiderIPPool): SpiderIPPool {
    if (this.conflictsLeft-- > 0)
      throw new SluiceError({ code: 'kube_conflict', operation: 'put', object: 'p', what: 'x' });
    assert.equal(pool.metadata.resourceVersion, this.pool.metadata.resourceVersion);
    this.pool = pool;
    return pool;
  }
}

async function scanAndCollect(world: World, collector: GcCollector, laterMs = 6_000): Promise<void> {
  collector.scan();
  await collector.collect();
  assert.match(world.addresses, /10\.0\.0\.1/, 'nothing goes at first sight');
  world.nowMs += laterMs;
  await collector.collect();
}

describe('garbage collection', () => {
  it('tells what it would return and changes nothing, then returns it at once when it is told to', async () => {
    const world = new World();
    const collector = world.collector();
    collector.scan();
    const [found, ...others] = await collector.examine();
    assert.deepEqual([found?.address, found?.pod, found?.decision.action], ['10.0.0.1', 'default/a', 'release']);
    assert.deepEqual(others, [], 'the record of the pod that lives is no suspect');
    assert.equal(world.addresses, '10.0.0.1 10.0.0.2');
    world.pods.set('default/a', pod({}));
    assert.equal((await collector.examine())[0]?.decision.action, 'keep', 'what the API server says now');
    assert.deepEqual(await collector.collectPod('default/a'), []);
    world.pods.delete('default/a');
    assert.deepEqual(await collector.collectPod('default/a'), ['10.0.0.1']);
    assert.equal(world.addresses, '10.0.0.2');
  });

  it('returns the address of a pod that is gone, with its endpoint, and no namesake’s (G00001, G00002)', async () => {
    const world = new World();
    world.addEndpoint('a', 'u', 'Deployment', 'web');
    await scanAndCollect(world, world.collector());
    assert.equal(world.addresses, '10.0.0.2');
    assert.deepEqual(world.removed, ['a']);
  });

  it('removes an endpoint that an earlier pod left, whose successor died before it wrote it', async () => {
    const world = new World();
    world.addEndpoint('a', 'earlier', 'StatefulSet', 'set');
    await scanAndCollect(world, world.collector());
    assert.deepEqual([world.addresses, world.removed], ['10.0.0.2', ['a']]);
  });

  it('asks the API server, and does not believe its copies', async () => {
    const world = new World();
    world.pods.set('default/a', pod({}));
    world.unseen.add('default/a');
    await scanAndCollect(world, world.collector());
    assert.equal(world.addresses, '10.0.0.1 10.0.0.2');
  });

  it('releases nothing while the API server does not answer', async () => {
    const world = new World();
    const collector = world.collector();
    collector.scan();
    world.isDown = true;
    world.nowMs += 6_000;
    await collector.collect();
    world.isDown = false;
    assert.equal(world.addresses, '10.0.0.1 10.0.0.2');
    await scanAndCollect(world, collector);
    assert.equal(world.addresses, '10.0.0.2');
  });

  it('tries again when an agent writes meanwhile, and looks at the pool anew', async () => {
    const world = new World();
    world.conflictsLeft = 2;
    await scanAndCollect(world, world.collector());
    assert.equal(world.addresses, '10.0.0.2');
  });

  it('leaves a StatefulSet’s address until the set is scaled down (#2442, G00010)', async () => {
    const world = new World();
    const records = '{"10.0.0.1":{"pod":"default/set-1","podUid":"u"}}';
    world.pool = { ...world.pool, status: { allocatedIPs: records } };
    world.addEndpoint('set-1', 'u', 'StatefulSet', 'set');
    world.owners.set('StatefulSet default/set', { spec: { replicas: 2 } });
    await scanAndCollect(world, world.collector());
    assert.equal(world.addresses, '10.0.0.1');
    world.owners.set('StatefulSet default/set', { spec: { replicas: 1 } });
    await scanAndCollect(world, world.collector());
    assert.equal(world.addresses, '');
    assert.deepEqual(world.removed, ['set-1']);
  });

  it('follows pods that go, without a scan: not before their grace period is over, node dead or not', async () => {
    const world = new World();
    const going = pod({ going: new Date(nowMs).toISOString() });
    world.pods.set('default/a', going);
    world.node = undefined;
    const collector = world.collector();
    collector.podChanged(going);
    for (const [laterMs, expected] of [
      [6_000, '10.0.0.1 10.0.0.2'],
      [29_000, '10.0.0.1 10.0.0.2'],
      [31_000, '10.0.0.2'],
    ] as const) {
      world.nowMs = nowMs + laterMs;
      await collector.collect();
      assert.equal(world.addresses, expected, `${laterMs} ms later`);
    }
  });

  it('leaves pods on a node that is not ready alone when told to', async () => {
    const world = new World();
    world.pods.set('default/a', pod({ going: '2026-01-01T00:05:00Z' }));
    world.node = { status: { conditions: [{ type: 'Ready', status: 'Unknown' }] } };
    await scanAndCollect(world, world.collector({ terminatingOnNotReadyNode: false }));
    assert.equal(world.addresses, '10.0.0.1 10.0.0.2');
  });
});
