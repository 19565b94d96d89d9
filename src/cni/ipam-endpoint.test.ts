import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PoolSpec } from '../api/spiderippool.ts';
import type { IpamPod } from '../ipam/pod.ts';
import { IpamTestApi } from './ipam-test-api.ts';

const first: PoolSpec = { ipVersion: 4, subnet: '10.1.0.0/24', ips: ['10.1.0.10-10.1.0.19'], gateway: '10.1.0.1' };
const second: PoolSpec = { ipVersion: 4, subnet: '10.2.0.0/24', ips: ['10.2.0.10-10.2.0.19'], gateway: '10.2.0.1' };
const third: PoolSpec = { ipVersion: 6, subnet: 'fd00::/64', ips: ['fd00::10-fd00::19'] };
const pools4 = ['p1'];

function api(): IpamTestApi {
  const made = new IpamTestApi();
  for (const [name, spec] of Object.entries({ p1: first, p2: second, p6: third })) made.addPool(name, spec);
  return made;
}

const ippools = 'ipam.spidernet.io/ippools';
const controller = (kind: string, name: string, apiVersion = 'apps/v1') => ({
  ownerReferences: [{ apiVersion, kind, name, uid: `${kind}-${name}`, controller: true }],
});
const addresses = (result: { ips: readonly { address: string }[] } | undefined): string[] =>
  (result?.ips ?? []).map(({ address }) => address);

/** The pod of the same name anew, with another UID. */
function restart(of: IpamTestApi, name: string, uid: string, metadata: Partial<IpamPod['metadata']> = {}): void {
  const old = of.pods.get(`default/${name}`)?.metadata;
  of.addPod(name, { ...old, uid, ...metadata });
}

describe('SpiderEndpoint', () => {
  it('is what Spiderpool writes', async () => {
    const world = api();
    world.addPod('a', { annotations: { 'ipam.spidernet.io/routes': '[{"dst":"10.9.0.0/16","gw":"10.1.0.9"}]' } });
    await world.agent()('ADD', 'a', { pools4, pools6: ['p6'] });
    const { metadata, status } = world.endpoints.get('default/a') ?? assert.fail('no endpoint');
    assert.deepEqual(metadata.finalizers, ['spiderpool.spidernet.io']);
    assert.deepEqual(metadata.ownerReferences, [{ apiVersion: 'v1', kind: 'Pod', name: 'a', uid: 'uid-a' }]);
    assert.deepEqual(status, {
      current: {
        uid: 'uid-a',
        node: 'node1',
        ips: [
          {
            interface: 'eth0',
            vlan: 0,
            cleanGateway: false,
            ipv4: '10.1.0.10/24',
            ipv4Pool: 'p1',
            ipv4Gateway: '10.1.0.1',
            ipv6: 'fd00::10/64',
            ipv6Pool: 'p6',
            routes: [{ dst: '10.9.0.0/16', gw: '10.1.0.9' }],
          },
        ],
      },
      ownerControllerType: 'Pod',
      ownerControllerName: 'a',
    });
  });

  it('names the Deployment above the ReplicaSet, which is asked for once', async () => {
    const world = api();
    world.owners.set('ReplicaSet default/web-1', { metadata: controller('Deployment', 'web') });
    let asked = 0;
    const agent = world.agent({ onStep: (step) => void (step === 'read owner' && asked++) });
    for (const pod of ['a', 'b']) {
      world.addPod(pod, controller('ReplicaSet', 'web-1'));
      await agent('ADD', pod, { pools4 });
    }
    const { status } = world.endpoints.get('default/b') ?? assert.fail('no endpoint');
    assert.deepEqual([status?.ownerControllerType, status?.ownerControllerName], ['Deployment', 'web']);
    assert.equal(asked, 2, 'before and after one read');
  });

  it('has an entry for each interface and goes with the last one', async () => {
    const world = api();
    world.addPod('a');
    const agent = world.agent();
    await agent('ADD', 'a', { pools4 });
    await agent('ADD', 'a', { pools4, ifName: 'net1' });
    const names = () => world.endpoints.get('default/a')?.status?.current.ips.map((each) => each.interface);
    assert.deepEqual(names(), ['eth0', 'net1']);
    await agent('DEL', 'a', { ifName: 'net1' });
    assert.deepEqual(names(), ['eth0']);
    await agent('DEL', 'a');
    assert.equal(world.endpoints.size, 0);
  });

  it('goes with a pod whose runtime does not say its UID, when the pod is gone already', async () => {
    const world = api();
    world.addPod('a');
    const args = { K8S_POD_NAMESPACE: 'default', K8S_POD_NAME: 'a' };
    await world.agent()('ADD', 'a', { pools4, args });
    world.pods.clear();
    await world.agent()('DEL', 'a', { args });
    assert.deepEqual([world.records('p1'), world.endpoints.size], [{}, 0]);
  });

  it('answers for a pod that lives on, whatever its pool admits by now', async () => {
    const world = api();
    world.addPod('a', {}, { status: { podIPs: [{ ip: '10.1.0.10' }] } });
    const before = await world.agent()('ADD', 'a', { pools4 });
    world.changePool('p1', { disable: true });
    const after = await world.agent()('ADD', 'a', { pools4: ['p2'], containerId: 'after a reboot' });
    assert.deepEqual(after, before);
    assert.deepEqual(world.records('p2'), {});
  });

  it('of an earlier pod of that name is replaced, and its address not taken over (#1187)', async () => {
    const world = api();
    world.addPod('a');
    await world.agent()('ADD', 'a', { pools4 });
    restart(world, 'a', 'uid-next');
    assert.deepEqual(addresses(await world.agent()('ADD', 'a', { pools4 })), ['10.1.0.11/24']);
    assert.equal(world.endpoints.get('default/a')?.status?.current.uid, 'uid-next');
    await world.agent()('DEL', 'a', {
      args: { K8S_POD_NAMESPACE: 'default', K8S_POD_NAME: 'a', K8S_POD_UID: 'uid-a' },
    });
    assert.deepEqual(Object.keys(world.records('p1')), ['10.1.0.11'], 'the old pod returns its own and no other');
    assert.equal(world.endpoints.get('default/a')?.status?.current.uid, 'uid-next');
  });
});

describe('addresses of a StatefulSet', () => {
  const set = (replicas: number, start?: number) => ({
    spec: { replicas, ...(start === undefined ? {} : { ordinals: { start } }) },
  });
  const made = (replicas = 2): IpamTestApi => {
    const world = api();
    world.owners.set('StatefulSet default/db', set(replicas));
    world.addPod('db-0', controller('StatefulSet', 'db'));
    world.addPod('db-1', controller('StatefulSet', 'db'));
    return world;
  };

  it('stay through a restart on another node, and have no owner reference (E00003)', async () => {
    const world = made();
    const here = world.agent();
    for (const pod of ['db-0', 'db-1']) await here('ADD', pod, { pools4 });
    assert.equal(world.endpoints.get('default/db-1')?.metadata.ownerReferences, undefined);
    await here('DEL', 'db-1');
    world.addPod('other');
    assert.deepEqual(addresses(await here('ADD', 'other', { pools4 })), ['10.1.0.12/24']);
    restart(world, 'db-1', 'uid-next');
    const there = world.agent({ node: 'node2' });
    assert.deepEqual(addresses(await there('ADD', 'db-1', { pools4 })), ['10.1.0.11/24']);
    const { current } = world.endpoints.get('default/db-1')?.status ?? assert.fail();
    assert.deepEqual([current.uid, current.node], ['uid-next', 'node2']);
    assert.match(
      world.pools.get('p1')?.status?.allocatedIPs ?? '',
      /"10.1.0.11":\{"pod":"default\/db-1","podUid":"uid-next"\}/,
    );
  });

  it('go with the ordinal when it is scaled down, spec.ordinals.start honoured', async () => {
    const world = made();
    const agent = world.agent();
    for (const pod of ['db-0', 'db-1']) await agent('ADD', pod, { pools4 });
    world.owners.set('StatefulSet default/db', set(1, 1));
    for (const pod of ['db-0', 'db-1']) {
      world.pods.delete(`default/${pod}`);
      await agent('DEL', pod);
    }
    assert.deepEqual(world.records('p1'), { '10.1.0.11': 'default/db-1 eth0' });
    assert.deepEqual([...world.endpoints.keys()], ['default/db-1']);
  });

  it('are given back when the annotation names another pool, one interface alone (A00009, A00017)', async () => {
    const world = made();
    const agent = world.agent();
    const pools = (net1: string) => ({
      [ippools]: JSON.stringify([
        { interface: 'eth0', ipv4: ['p1'] },
        { interface: 'net1', ipv4: [net1] },
      ]),
    });
    restart(world, 'db-0', 'uid-1', { annotations: pools('p1') });
    for (const ifName of ['eth0', 'net1']) await agent('ADD', 'db-0', { ifName });
    assert.deepEqual(Object.keys(world.records('p1')), ['10.1.0.10', '10.1.0.11']);
    restart(world, 'db-0', 'uid-2', { annotations: pools('p2') });
    assert.deepEqual(addresses(await agent('ADD', 'db-0', { ifName: 'eth0' })), ['10.1.0.10/24']);
    assert.deepEqual(addresses(await agent('ADD', 'db-0', { ifName: 'net1' })), ['10.2.0.10/24']);
    assert.deepEqual(world.records('p1'), { '10.1.0.10': 'default/db-0 eth0' });
  });

  it('of the family whose pool is no longer named are given back, the endpoint first; the other family’s stay', async () => {
    const world = made();
    const asked = { pools4, pools6: ['p6'] };
    restart(world, 'db-0', 'uid-1');
    await world.agent()('ADD', 'db-0', asked);
    restart(world, 'db-0', 'uid-2');
    const seen: unknown[] = [];
    const onStep = (step: string, when: string): void => {
      if (step !== 'write pool' || when !== 'before' || seen.length > 0) return;
      const [entry] = world.endpoints.get('default/db-0')?.status?.current.ips ?? [];
      seen.push(entry?.ipv4, entry?.ipv4Pool, entry?.ipv6);
    };
    const result = await world.agent({ onStep })('ADD', 'db-0', { ...asked, pools4: ['p2'] });
    assert.deepEqual(seen, [undefined, undefined, 'fd00::10/64']);
    assert.deepEqual(addresses(result), ['10.2.0.10/24', 'fd00::10/64']);
    assert.deepEqual(world.records('p1'), {});
  });

  it('stay on two unnamed interfaces whatever they are called (A00018)', async () => {
    const world = made();
    const annotations = {
      [ippools]: '[{"ipv4":["p1"]},{"ipv4":["p2"]}]',
      'k8s.v1.cni.cncf.io/networks': 'default/x@macv',
    };
    for (const uid of ['uid-1', 'uid-2']) {
      restart(world, 'db-0', uid, { annotations });
      const agent = world.agent();
      assert.deepEqual(addresses(await agent('ADD', 'db-0', { ifName: 'eth0' })), ['10.1.0.10/24']);
      assert.deepEqual(addresses(await agent('ADD', 'db-0', { ifName: 'macv' })), ['10.2.0.10/24']);
    }
  });

  it('are like any other when enableStatefulSet is off', async () => {
    const world = made();
    const agent = world.agent({ deps: { staticKinds: { statefulSets: false, virtualMachines: true } } });
    await agent('ADD', 'db-0', { pools4 });
    world.pods.delete('default/db-0');
    await agent('DEL', 'db-0');
    assert.deepEqual(world.records('p1'), {});
  });
});

describe('addresses of a virtual machine', () => {
  const machine = controller('VirtualMachineInstance', 'vm1', 'kubevirt.io/v1');

  it('are by its name: kept through its pods, shared in a migration, returned with it', async () => {
    const world = api();
    world.owners.set('VirtualMachineInstance default/vm1', {});
    world.addPod('launcher-a', machine);
    const agent = world.agent();
    const before = await agent('ADD', 'launcher-a', { pools4 });
    world.addPod('launcher-b', machine);
    assert.deepEqual(await agent('ADD', 'launcher-b', { pools4 }), before);
    assert.deepEqual(world.records('p1'), { '10.1.0.10': 'default/vm1 eth0' });
    world.pods.delete('default/launcher-a');
    await agent('DEL', 'launcher-a');
    assert.deepEqual(world.records('p1'), { '10.1.0.10': 'default/vm1 eth0' });
    world.owners.clear();
    world.pods.delete('default/launcher-b');
    await world.agent()('DEL', 'launcher-b');
    assert.deepEqual([world.records('p1'), world.endpoints.size], [{}, 0]);
  });
});

describe('what is never handed out', () => {
  it('reserved addresses, except for who has them already (S00001)', async () => {
    const world = api();
    for (const pod of ['a', 'b']) world.addPod(pod, {}, { status: { podIPs: [{ ip: 'x' }] } });
    const agent = world.agent();
    await agent('ADD', 'a', { pools4 });
    world.reserved.push({ metadata: { name: 'r' }, spec: { ips: ['10.1.0.9-10.1.0.14'] } });
    world.reserved.push({ metadata: { name: 'going', deletionTimestamp: 'x' }, spec: { ips: ['10.1.0.15'] } });
    assert.deepEqual(addresses(await agent('ADD', 'a', { pools4, containerId: 'again' })), ['10.1.0.10/24']);
    assert.deepEqual(addresses(await agent('ADD', 'b', { pools4 })), ['10.1.0.15/24']);
  });
});

describe('a second interface that fails', () => {
  it('does not drain the pool of the first one, however often it is tried (#4295, A00016)', async () => {
    const world = api();
    world.addPool('empty', { ipVersion: 4, subnet: '10.3.0.0/24', ips: [] });
    world.addPod('a');
    const agent = world.agent();
    for (let sandbox = 0; sandbox < 20; sandbox++) {
      const containerId = `c${sandbox}`;
      assert.deepEqual(addresses(await agent('ADD', 'a', { pools4, containerId })), ['10.1.0.10/24']);
      await assert.rejects(agent('ADD', 'a', { pools4: ['empty'], ifName: 'net1', containerId }), /used out/);
    }
    assert.deepEqual(world.records('p1'), { '10.1.0.10': 'default/a eth0' });
  });
});

describe('families', () => {
  it('that are switched off count as not named (E00009)', async () => {
    const world = api();
    world.addPod('a');
    const agent = world.agent({ deps: { families: [4] } });
    assert.deepEqual(addresses(await agent('ADD', 'a', { pools4, pools6: ['p6'] })), ['10.1.0.10/24']);
    assert.deepEqual(world.records('p6'), {});
  });
});

describe('pools made for an application', () => {
  const labels = {
    'ipam.spidernet.io/owner-application-gv': 'apps_v1',
    'ipam.spidernet.io/owner-application-kind': 'Deployment',
    'ipam.spidernet.io/owner-application-namespace': 'default',
    'ipam.spidernet.io/owner-application-name': 'web',
    'ipam.spidernet.io/owner-application-uid': 'Deployment-web',
    'ipam.spidernet.io/interface': 'eth0',
    'ipam.spidernet.io/ip-version': 'IPv4',
  };
  const annotations = { 'ipam.spidernet.io/subnet': '{"ipv4":["s"]}' };
  const world = (): IpamTestApi => {
    const made = api();
    made.owners.set('ReplicaSet default/web-1', { metadata: controller('Deployment', 'web') });
    made.addPod('web-1-x', { ...controller('ReplicaSet', 'web-1'), annotations });
    return made;
  };

  it('are waited for, and used by that application alone', async () => {
    const made = world();
    let waits = 0;
    const observe = { poolConflict: () => undefined, poolQueued: () => undefined, autoPoolAwaited: () => waits++ };
    const adding = made.agent({ deps: { observe } })('ADD', 'web-1-x', { pools4 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(waits, 1);
    made.addPool('auto4-web-eth0-x', {
      ...second,
      podAffinity: {
        matchLabels: {
          'ipam.spidernet.io/app-api-group': 'apps',
          'ipam.spidernet.io/app-api-version': 'v1',
          'ipam.spidernet.io/app-kind': 'Deployment',
          'ipam.spidernet.io/app-namespace': 'default',
          'ipam.spidernet.io/app-name': 'web',
        },
      },
    });
    const pool = made.pools.get('auto4-web-eth0-x') ?? assert.fail();
    made.pools.set('auto4-web-eth0-x', { ...pool, metadata: { ...pool.metadata, labels } });
    assert.deepEqual(addresses(await adding), ['10.2.0.10/24']);
    made.addPod('stranger');
    await assert.rejects(made.agent()('ADD', 'stranger', { pools4: ['auto4-web-eth0-x'] }), /unmatched Pod selector/);
  });

  for (const [what, deps, metadata, message] of [
    ['do not come', { autoPoolWaitMs: 100 }, {}, /no matching auto-created IPPool.*SpiderSubnet s/],
    ['are off', { autoPools: false }, {}, /it's invalid to use .* when Auto-Pool feature is disabled/],
    ['are for a lone pod and do not come', { autoPoolWaitMs: 100 }, { ownerReferences: [] }, /Pod .*no matching auto-/],
  ] as const) {
    it(`that ${what} are an error`, async () => {
      const made = world();
      restart(made, 'web-1-x', 'u', metadata);
      await assert.rejects(made.agent({ deps })('ADD', 'web-1-x', { pools4 }), message);
    });
  }
});
