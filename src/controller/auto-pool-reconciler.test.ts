import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { AutoPoolReconciler, applicationKey, type ApplicationState } from './auto-pool-reconciler.ts';

const subnet: SpiderSubnet = {
  metadata: { name: 's4', uid: 's' },
  spec: { ipVersion: 4, subnet: '10.6.0.0/16', ips: ['10.6.0.1-10.6.0.10'] },
};

function application(podCount: number, annotations: Record<string, string> = {}, uid = 'a-12345'): ApplicationState {
  const named = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'demo', name: 'web', uid };
  return {
    ...named,
    podCount,
    object: {},
    annotations: { 'ipam.spidernet.io/subnet': '{"ipv4":["s4"]}', ...annotations },
  };
}

function world(reserved: readonly SpiderReservedIP[] = []) {
  const pools = new Map<string, SpiderIPPool>();
  const events: string[] = [];
  const state: { application: ApplicationState | undefined; ownerLives: boolean } = {
    application: undefined,
    ownerLives: false,
  };
  const put = async (pool: SpiderIPPool): Promise<SpiderIPPool> => {
    pools.set(pool.metadata.name ?? '', pool);
    return pool;
  };
  const reconciler = new AutoPoolReconciler({
    find: () => state.application,
    ownerLives: async () => state.ownerLives,
    pools: {
      list: async () => [...pools.values()],
      create: put,
      replace: put,
      remove: async ({ metadata }) => void pools.delete(metadata.name ?? ''),
    },
    subnets: { read: async (_namespace, name) => (name === 's4' ? subnet : undefined) },
    reserved: { list: async () => reserved },
    defaultExtra: 1,
    disabledFamilies: [],
    writeEvent: (_application, type, reason) => events.push(`${type} ${reason}`),
  });
  const reconcile = async (wanted: ApplicationState | undefined): Promise<void> => {
    state.application = wanted;
    await reconciler.reconcile(applicationKey(wanted ?? application(0)));
  };
  const ips = (): string => [...pools.values()].map(({ spec }) => spec.ips?.join(' ') ?? '').join(' | ');
  return { state, pools, events, reconcile, ips };
}

function use(pools: Map<string, SpiderIPPool>, address: string): void {
  for (const [name, pool] of pools) {
    const allocatedIPs = JSON.stringify({ [address]: { pod: 'demo/web-1', podUid: 'u' } });
    pools.set(name, { ...pool, status: { allocatedIPs } });
  }
}

describe('pools of applications', () => {
  it('are made with one more address than replicas, grow and shrink with them, and go with the application', async () => {
    const { pools, reconcile, ips } = world();
    await reconcile(application(2));
    assert.deepEqual([...pools.keys()], ['auto4-web-eth0-12345']);
    assert.equal(ips(), '10.6.0.1-10.6.0.3');
    await reconcile(application(4));
    assert.equal(ips(), '10.6.0.1-10.6.0.5');
    use(pools, '10.6.0.5');
    await reconcile(application(1));
    assert.equal(ips(), '10.6.0.1 10.6.0.5');
    await reconcile(undefined);
    assert.equal(pools.size, 0);
  });

  it('have a fixed size when the annotation says so, and leave out reserved addresses', async () => {
    const { reconcile, ips } = world([{ metadata: {}, spec: { ipVersion: 4, ips: ['10.6.0.2'] } }]);
    await reconcile(application(9, { 'ipam.spidernet.io/ippool-ip-number': '3' }));
    assert.equal(ips(), '10.6.0.1 10.6.0.3-10.6.0.4');
  });

  it('that are kept serve the next application of that name', async () => {
    const { pools, reconcile } = world();
    const kept = { 'ipam.spidernet.io/ippool-reclaim': 'false' };
    await reconcile(application(1, kept));
    await reconcile(undefined);
    assert.equal(pools.size, 1);
    await reconcile(application(1, kept, 'b-67890'));
    assert.deepEqual([...pools.keys()], ['auto4-web-eth0-12345']);
    const [pool] = pools.values();
    assert.equal(pool?.metadata.labels?.['ipam.spidernet.io/owner-application-uid'], 'b-67890');
  });

  it('stay while their owner is there without pods, if it is of a kind that is known by its pods', async () => {
    const { state, pools, reconcile, ips } = world();
    await reconcile(application(2));
    state.ownerLives = true;
    await reconcile(undefined);
    assert.equal(ips(), '10.6.0.1-10.6.0.3');
    state.ownerLives = false;
    await reconcile(undefined);
    assert.equal(pools.size, 0);
  });

  it('of a pod that nobody controls have one address, unless it asks for more', async () => {
    const { reconcile, ips } = world();
    const pod = { ...application(1), apiVersion: 'v1', kind: 'Pod' };
    await reconcile(pod);
    assert.equal(ips(), '10.6.0.1');
    await reconcile({ ...pod, annotations: { ...pod.annotations, 'ipam.spidernet.io/ippool-ip-number': '+2' } });
    assert.equal(ips(), '10.6.0.1-10.6.0.3');
  });

  it('get what there is when the subnet is too small, and an event says so', async () => {
    const { reconcile, ips, events } = world();
    await reconcile(application(20));
    assert.equal(ips(), '10.6.0.1-10.6.0.10');
    assert.ok(events.includes('Warning SubnetExhausted'));
  });

  it('stay as they are while the annotation is malformed or its subnet is missing', async () => {
    const { pools, reconcile, events } = world();
    await reconcile(application(1));
    await reconcile(application(1, { 'ipam.spidernet.io/subnet': '{' }));
    await reconcile(application(1, { 'ipam.spidernet.io/subnet': '{"ipv4":["nowhere"]}' }));
    assert.equal(pools.size, 1);
    assert.deepEqual(events.slice(1), ['Warning InvalidSubnetAnnotation', 'Warning SubnetNotFound']);
  });
});
