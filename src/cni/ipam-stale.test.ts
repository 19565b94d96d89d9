import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../core/clock.ts';
import type { IpamPod } from '../ipam/pod.ts';
import { StaleRecords } from './ipam-stale.ts';
import { IpamTestApi, type ApiStep, type TestAgent } from './ipam-test-api.ts';

const pools4 = ['p'];
const running = { phase: 'Running', podIPs: [{ ip: '10.0.0.1' }] };
const signal = new AbortController().signal;

/** A running pod with 10.0.0.1, and a record of 10.0.0.9 that an ADD left behind. */
class World {
  readonly api = new IpamTestApi();
  nowMs = 1_000_000;
  onStep: (step: ApiStep, when: 'before' | 'after') => Promise<void> | void = () => undefined;
  agent!: TestAgent;
  stale!: StaleRecords;
  readonly told: string[] = [];

  static async with(status: IpamPod['status'] = running, metadata: Partial<IpamPod['metadata']> = {}): Promise<World> {
    const world = new World();
    world.api.addPool('p', { ipVersion: 4, subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'] });
    world.api.addPod('a');
    world.restartAgent();
    await world.agent('ADD', 'a', { pools4 });
    world.addRecord('10.0.0.9', 'uid-a', 'net1');
    world.api.addPod('a', metadata, { status });
    return world;
  }

  restartAgent(): void {
    this.agent = this.api.agent({
      onStep: (step, when) => this.onStep(step, when),
      deps: { clock: { ...systemClock, monotonicMs: () => this.nowMs } },
    });
    this.stale = new StaleRecords(this.agent.state, ({ address }) => this.told.push(address));
  }

  addRecord(address: string, podUid: string, nic: string): void {
    const pool = this.api.pools.get('p') ?? assert.fail('no pool');
    const records = JSON.parse(pool.status?.allocatedIPs ?? '{}') as object;
    const allocatedIPs = JSON.stringify({ ...records, [address]: { pod: 'default/a', podUid, interface: nic } });
    this.api.replaceStatus({ ...pool, status: { ...pool.status, allocatedIPs } });
  }

  get addresses(): string {
    return Object.keys(this.api.records('p')).join(' ');
  }

  async after(ms: number): Promise<string[]> {
    this.nowMs += ms;
    return this.stale.collect(signal);
  }
}

describe('records of a running pod', () => {
  it('goes when the pod does not use it, seen twice 120 s apart; what the pod uses stays', async () => {
    const world = await World.with();
    assert.deepEqual([await world.after(0), await world.after(119_000)], [[], []]);
    assert.equal(world.addresses, '10.0.0.1 10.0.0.9');
    assert.deepEqual(await world.after(1_000), ['10.0.0.9']);
    assert.equal(world.addresses, '10.0.0.1');
    assert.deepEqual(world.told, ['10.0.0.9']);
    assert.deepEqual(await world.after(300_000), []);
  });

  it('goes by the API server after a restart of the agent, too', async () => {
    const world = await World.with();
    world.restartAgent();
    await world.after(0);
    assert.deepEqual(await world.after(120_000), ['10.0.0.9']);
  });

  const network = 'k8s.v1.cni.cncf.io/network-status';
  const stays: readonly [string, IpamPod['status'], Partial<IpamPod['metadata']>][] = [
    ['a pending pod', { phase: 'Pending', podIPs: running.podIPs }, {}],
    ['a pod without addresses in its status', { phase: 'Running', podIPs: [] }, {}],
    ['a pod on its way out', running, { deletionTimestamp: '2026-01-01T00:00:00Z' }],
    ['a pod whose status has the address', { phase: 'Running', podIPs: [{ ip: '10.0.0.9' }] }, {}],
    ['a pod on whose networks it is', running, { annotations: { [network]: '[{"ips": ["10.0.0.9"]}]' } }],
  ];
  for (const [what, status, metadata] of stays) {
    it(`stays with ${what}`, async () => {
      const world = await World.with(status, metadata);
      await world.after(0);
      assert.deepEqual(await world.after(120_000), []);
      assert.equal(world.addresses, '10.0.0.1 10.0.0.9');
    });
  }

  it('stays when the copy of the pod is behind: the API server decides', async () => {
    const world = await World.with();
    await world.after(0);
    world.onStep = (step) => {
      if (step === 'read pod')
        world.api.addPod('a', { deletionTimestamp: '2026-01-01T00:00:00Z' }, { status: running });
    };
    assert.deepEqual(await world.after(120_000), []);
    assert.equal(world.addresses, '10.0.0.1 10.0.0.9');
  });

  for (const [what, change] of [
    ['no SpiderEndpoint', (world: World) => world.api.endpoints.clear()],
    [
      'the SpiderEndpoint of an earlier pod',
      (world: World) => {
        const endpoint = world.api.endpoints.get('default/a') ?? assert.fail('no endpoint');
        const status = endpoint.status && { ...endpoint.status, current: { ...endpoint.status.current, uid: 'old' } };
        world.api.endpoints.set('default/a', { ...endpoint, status });
      },
    ],
  ] as const) {
    it(`stays with ${what}`, async () => {
      const world = await World.with();
      change(world);
      world.restartAgent();
      await world.after(0);
      assert.deepEqual(await world.after(120_000), []);
      assert.equal(world.addresses, '10.0.0.1 10.0.0.9');
    });
  }

  it('stays on record by the SpiderEndpoint of another interface, and the API server is asked once', async () => {
    const world = await World.with();
    // As Spiderpool writes it: the record names no interface, the endpoint does.
    await world.agent('ADD', 'a', { pools4, ifName: 'net1' });
    world.restartAgent();
    let asked = 0;
    world.onStep = (step, when) => void (step === 'read endpoint' && when === 'before' && asked++);
    for (let minute = 0; minute < 9; minute++) assert.deepEqual(await world.after(60_000), []);
    assert.equal(asked, 1);
    assert.equal(world.addresses, '10.0.0.1 10.0.0.9');
  });

  it('stays while nothing answers, and goes afterwards', async () => {
    const world = await World.with();
    world.restartAgent();
    await world.after(0);
    world.onStep = () => Promise.reject(new Error('no answer'));
    assert.deepEqual(await world.after(120_000), []);
    world.onStep = () => undefined;
    assert.deepEqual(await world.after(60_000), ['10.0.0.9']);
  });

  it('stays when an ADD takes it at any step of the collection, and the pod keeps the address', async () => {
    for (const at of ['before read pod', 'after read pod', 'after read endpoint', 'before write pool'] as const) {
      const world = await World.with();
      world.restartAgent();
      await world.after(0);
      let added: Promise<unknown> | undefined;
      world.onStep = async (step, when) => {
        if (`${when} ${step}` !== at || added !== undefined) return;
        added = world.agent('ADD', 'a', { pools4, ifName: 'net1' });
        // Done before the collection goes on, except where it waits for the collection's own write.
        if (at !== 'before write pool') await added;
      };
      await world.after(120_000);
      const result = (await added) as { ips: readonly { address: string }[] };
      const address = result.ips[0]?.address.split('/')[0] ?? '';
      assert.equal(world.api.records('p')[address], 'default/a net1', `ADD at ${at} has ${address} on record`);
      const entry = world.api.endpoints.get('default/a')?.status?.current.ips.find((one) => one.interface === 'net1');
      assert.equal(entry?.ipv4, `${address}/24`);
    }
  });
});
