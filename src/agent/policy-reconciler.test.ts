/** The order of writes, against a kernel in memory that looks at every state in between. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { NetworkPolicy, NetworkPolicySpec, Pod } from '../api/kubernetes.ts';
import { formatPrefix, parseIp, type IpAddress, type IpPrefix } from '../core/ip.ts';
import { silentLogger } from '../core/log.ts';
import { ManualClock } from '../core/manual-clock.ts';
import type { IdentityId } from '../policy/identity.ts';
import { IpcacheTable } from '../policy/ipcache-table.ts';
import type { PolicyEntry } from '../policy/compile.ts';
import { PolicyIndex } from '../policy/policy-index.ts';
import { lookupIdentity, simulate } from '../policy/simulate.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { PolicyReconciler, type PolicyMaps, type PolicyWorld, type ProgrammedPolicy } from './policy-reconciler.ts';

const ownIp = '10.0.0.1';
const peers = ['10.0.0.2', '10.0.0.3', '10.1.1.1', '192.0.2.1', '10.9.0.1'];
const record: EndpointRecord = {
  formatVersion: 1,
  endpointId: 7,
  containerId: 'c',
  ifName: 'eth0',
  networkName: 'n',
  netns: '/x',
  netnsInode: '1',
  pod: { namespace: 'demo', name: 'web', uid: 'web-uid' },
  ips: [ownIp],
  interfaces: ['eth0'],
  runtimeBandwidth: {},
  createdAt: '',
};

/** Maps as the kernel has them; `onWrite` is called between any two steps that a packet could fall between. */
class MemoryMaps implements PolicyMaps {
  readonly policies = new Map<number, ProgrammedPolicy>();
  readonly addresses = new Map<string, IdentityId>();
  onWrite: () => void = () => undefined;
  writes = 0;
  amendments = 0;

  setPolicy(endpointId: number, policy: ProgrammedPolicy): void {
    this.policies.set(endpointId, policy);
    this.#written();
  }

  amendPolicy(
    endpointId: number,
    { add, forget }: { readonly add: readonly PolicyEntry[]; readonly forget: ReadonlySet<number> },
  ): void {
    const { entries = [], ...policy } = this.policies.get(endpointId) ?? assert.fail('no policy to amend');
    const used = new Set<number>(this.addresses.values());
    for (const id of [...forget, ...add.map(({ identity }) => identity)]) assert(!used.has(id), `${id} has an address`);
    const kept = entries.filter(({ identity }) => !forget.has(identity));
    this.policies.set(endpointId, { ...policy, entries: [...kept, ...add] });
    this.amendments++;
    this.#written();
  }

  policy(endpointId: number): ProgrammedPolicy | undefined {
    return this.policies.get(endpointId);
  }

  updateIpcache(change: { upsert: readonly (readonly [IpPrefix, number])[]; remove: readonly IpPrefix[] }): void {
    for (const [prefix, identity] of change.upsert) {
      this.addresses.set(formatPrefix(prefix), identity as IdentityId);
      this.#written();
    }
    for (const prefix of change.remove) {
      this.addresses.delete(formatPrefix(prefix));
      this.#written();
    }
  }

  ipcache(): ReadonlyMap<string, number> {
    return new Map(this.addresses);
  }

  #written(): void {
    this.writes++;
    this.onWrite();
  }

  identityOf(ip: string): IdentityId {
    return lookupIdentity(this.addresses, parseIp(ip) as IpAddress);
  }

  allows(identity: IdentityId, direction: 'ingress' | 'egress'): boolean {
    const policy = this.policies.get(record.endpointId);
    if (policy === undefined) return false;
    return simulate(policy, { direction, identity, protocol: 6, port: 80 }).verdict === 'allow';
  }

  /** "10.0.0.2 ingress" … for what passes now. */
  allowed(): Set<string> {
    const flows = peers.flatMap((ip) => (['ingress', 'egress'] as const).map((direction) => [ip, direction] as const));
    return new Set(
      flows.filter(([ip, direction]) => this.allows(this.identityOf(ip), direction)).map((flow) => flow.join(' ')),
    );
  }
}

interface Cluster {
  readonly policies: readonly NetworkPolicySpec[];
  /** Value of the label "app" of the pods at the first two peers. */
  readonly apps: readonly [string, string];
}

class World implements PolicyWorld {
  synced = true;
  readonly addresses = new IpcacheTable('node1');
  policyIndex = new PolicyIndex();
  #pods: Pod[] = [];

  become(cluster: Cluster): void {
    for (const { metadata } of this.#pods) this.addresses.deletePod('demo', metadata?.name ?? '');
    this.#pods = [pod('web', 'web', ownIp), ...cluster.apps.map((app, i) => pod(`peer${i}`, app, peers[i] ?? ''))];
    this.addresses.setNamespace({ metadata: { name: 'demo' } });
    for (const object of this.#pods) this.addresses.setPod(object);
    const objects = cluster.policies.map((spec, i) => policyObject(`p${i}`, spec));
    this.policyIndex = new PolicyIndex(objects);
  }

  podOf(): Pod | undefined {
    return this.#pods[0];
  }
}

function pod(name: string, app: string, ip: string): Pod {
  const metadata = { namespace: 'demo', name, uid: `${name}-uid`, labels: { app } };
  return { metadata, spec: { containers: [{ name: 'c' }] }, status: { phase: 'Running', podIPs: [{ ip }] } };
}

function policyObject(name: string, spec: NetworkPolicySpec): NetworkPolicy {
  return { metadata: { namespace: 'demo', name, uid: `${name}-${JSON.stringify(spec).length}` }, spec };
}

/** A reconciler over the maps, and a way to run it once. */
function reconcilerOf(world: World, maps: MemoryMaps) {
  const stop = new AbortController();
  const reconciler = new PolicyReconciler({
    cluster: world,
    maps,
    endpoints: () => [record],
    clock: new ManualClock(),
    log: silentLogger,
    onDiagnostic: () => undefined,
    onRun: () => undefined,
  });
  const once = async (): Promise<void> => {
    const turn = new AbortController();
    const loop = reconciler.start(turn.signal);
    await reconciler.program(record.endpointId, stop.signal);
    turn.abort();
    await loop;
  };
  return { reconciler, once };
}

const cidr = fc.constantFrom('0.0.0.0/0', '10.0.0.0/8', '10.1.0.0/16', '10.0.0.0/30', '10.1.1.1/32', '192.0.2.0/24');
const peer = fc.oneof(
  fc.record({ podSelector: fc.constantFrom({}, { matchLabels: { app: 'a' } }, { matchLabels: { app: 'b' } }) }),
  cidr.map((text) => ({ ipBlock: { cidr: text } })),
  fc
    .constantFrom('10.1.0.0/16', '10.0.0.0/30', '10.1.1.1/32')
    .map((hole) => ({ ipBlock: { cidr: '10.0.0.0/8', except: [hole] } })),
);
const rule = (key: 'from' | 'to') =>
  fc.oneof(fc.constant({}), fc.record({ [key]: fc.array(peer, { minLength: 1, maxLength: 2 }) }));
const policy: fc.Arbitrary<NetworkPolicySpec> = fc.record({
  podSelector: fc.constant({}),
  policyTypes: fc.constantFrom(['Ingress'], ['Egress'], ['Ingress', 'Egress']),
  ingress: fc.array(rule('from'), { maxLength: 2 }),
  egress: fc.array(rule('to'), { maxLength: 2 }),
});
const cluster: fc.Arbitrary<Cluster> = fc.record({
  policies: fc.array(policy, { maxLength: 3 }),
  apps: fc.tuple(fc.constantFrom('a', 'b'), fc.constantFrom('a', 'b', 'c')),
});

describe('the policy reconciler', () => {
  it('while policies change, lets nobody in that neither the old nor the new ones let in', async () => {
    let states = 0;
    await checkAsync(
      fc.asyncProperty(cluster, fc.array(policy, { maxLength: 3 }), async (before, policies) => {
        const world = new World();
        const maps = new MemoryMaps();
        world.become(before);
        const { once } = reconcilerOf(world, maps);
        await once();
        const old = maps.allowed();
        const after = { ...before, policies };
        const next = finalState(after);
        world.become(after);
        maps.onWrite = () => {
          states++;
          for (const flow of maps.allowed()) assert(old.has(flow) || next.has(flow), `${flow} was let in on the way`);
        };
        await once();
        assert.deepEqual(maps.allowed(), next);
      }),
    );
    assert(states > 100, `only ${states} states in between were seen`);
  });

  it('after a restart, changes not one verdict on the way to its own numbers', async () => {
    await checkAsync(
      fc.asyncProperty(cluster, async (objects) => {
        const world = new World();
        const maps = new MemoryMaps();
        world.become(objects);
        await reconcilerOf(world, maps).once();
        const before = maps.allowed();
        const highest = Math.max(...maps.addresses.values());
        maps.onWrite = () => assert.deepEqual(maps.allowed(), before);
        await reconcilerOf(world, maps).once();
        assert.deepEqual(maps.allowed(), before);
        for (const id of maps.addresses.values()) assert(id > highest || id < 256, 'a number is used twice');
      }),
    );
  });

  it('cuts no flow that stays allowed when an ipBlock splits the addresses of another policy', async () => {
    const world = new World();
    const maps = new MemoryMaps();
    const everywhere = {
      podSelector: {},
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }],
    };
    world.become({ policies: [everywhere], apps: ['a', 'b'] });
    const { once } = reconcilerOf(world, maps);
    await once();
    const hole = { podSelector: {}, policyTypes: ['Egress'], egress: [{ to: [{ ipBlock: { cidr: '10.1.0.0/16' } }] }] };
    world.become({ policies: [everywhere, hole], apps: ['a', 'b'] });
    maps.onWrite = () => assert(maps.allowed().has('10.1.1.1 egress'));
    const writes = maps.writes;
    await once();
    assert(maps.writes > writes);
    assert(maps.amendments > 0, 'the new identity was taken in without a new policy');
  });

  it('writes nothing before the informers are synced, and nothing when nothing changed', async () => {
    const world = new World();
    const maps = new MemoryMaps();
    world.become({ policies: [], apps: ['a', 'b'] });
    world.synced = false;
    const { once } = reconcilerOf(world, maps);
    await assert.rejects(once(), /did not reach it/);
    assert.equal(maps.writes, 0);
    world.synced = true;
    await once();
    const { writes } = maps;
    assert(writes > 0);
    await once();
    assert.equal(maps.writes, writes);
  });

  it('goes on with the others when one endpoint cannot be written, and says which', async () => {
    const world = new World();
    const maps = new MemoryMaps();
    world.become({ policies: [], apps: ['a', 'b'] });
    const { reconciler, once } = reconcilerOf(world, maps);
    const write = maps.setPolicy.bind(maps);
    maps.setPolicy = () => {
      throw new Error('no space');
    };
    await assert.rejects(
      once(),
      (error: Error) => /endpoint 7/.test(error.message) && /no space/.test(String(error.cause)),
    );
    assert.match(reconciler.problems()[0] ?? '', /no space/);
    maps.setPolicy = write;
    await once();
    assert.deepEqual(reconciler.problems(), []);
  });
});

/** What a fresh node would enforce for these objects. */
function finalStateMaps(objects: Cluster): MemoryMaps {
  const world = new World();
  const maps = new MemoryMaps();
  world.become(objects);
  const { reconciler } = reconcilerOf(world, maps);
  reconciler.runNow();
  return maps;
}

function finalState(objects: Cluster): Set<string> {
  return finalStateMaps(objects).allowed();
}

async function checkAsync(property: fc.IAsyncProperty<unknown>): Promise<void> {
  const seed = Math.floor(Math.random() * 0x7fff_ffff);
  console.log(`# fast-check seed ${seed}`);
  await fc.assert(property, { seed, numRuns: 150 });
}
