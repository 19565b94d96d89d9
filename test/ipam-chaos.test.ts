/**
 * Many agents on one API server whose agents crash, lose the API and restart at any moment: never two living pods with one
 * address, and after garbage collection nothing is left of pods that are gone.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '../src/api/kubernetes.ts';
import { IpamTestApi, type AskOptions, type TestAgent } from '../src/cni/ipam-test-api.ts';
import { GcCollector } from '../src/controller/gc-collector.ts';
import { systemClock, type Clock } from '../src/core/clock.ts';
import { SluiceError } from '../src/core/error.ts';
import { silentLogger } from '../src/core/log.ts';
import { decodeAllocatedIps } from '../src/ipam/allocated-ips.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** Pauses are turns of the loop, so that thousands of steps take seconds. */
const hastyClock: Clock = { ...systemClock, sleep: turn };

function lost(): SluiceError {
  return new SluiceError({ code: 'kube_unreachable', operation: 'reach', object: 'API', what: 'no route' });
}

function collectorOf(api: IpamTestApi, clock: { nowMs: number }): GcCollector {
  return new GcCollector({
    pools: {
      cached: () => [...api.pools.values()],
      read: async (_, name) => {
        await turn();
        return api.pools.get(name);
      },
      replaceStatus: async (pool) => {
        await turn();
        return api.replaceStatus(pool);
      },
    },
    pods: {
      cached: (namespace, name) => api.pods.get(`${namespace}/${name}`) as Pod | undefined,
      read: async (namespace, name) => api.pods.get(`${namespace}/${name}`) as Pod | undefined,
    },
    endpoints: {
      read: async (namespace, name) => api.endpoints.get(`${namespace}/${name}`),
      remove: async (endpoint) => api.removeEndpoint(endpoint),
    },
    owners: { read: async ({ kind, namespace, name }) => api.owners.get(`${kind} ${namespace}/${name}`) },
    readNode: async () => undefined,
    settings: {
      additionalDelayMs: 0,
      terminatingOnReadyNode: true,
      terminatingOnNotReadyNode: true,
      runningWithoutIps: false,
      statefulSets: true,
      virtualMachines: true,
    },
    clock: { ...systemClock, nowMs: () => clock.nowMs },
    log: silentLogger,
  });
}

async function collectAll(api: IpamTestApi): Promise<void> {
  const clock = { nowMs: Date.now() };
  const collector = collectorOf(api, clock);
  for (let round = 0; round < 2; round++) {
    collector.scan();
    clock.nowMs += 60_000;
    await collector.collect();
  }
}

function recordsOf(api: IpamTestApi): { pool: string; address: string; podUid: string; interface: string }[] {
  return [...api.pools].flatMap(([pool, { status }]) =>
    [...decodeAllocatedIps(status?.allocatedIPs, pool)].map(([address, record]) => ({ pool, address, ...record })),
  );
}

describe('an agent that is killed at any step', () => {
  const ask: AskOptions = { pools4: ['p4'], pools6: ['p6'] };
  const world = (): IpamTestApi => {
    const api = new IpamTestApi();
    api.addPool('p4', { ipVersion: 4, subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'] });
    api.addPool('p6', { ipVersion: 6, subnet: 'fd00::/64', ips: ['fd00::1-fd00::9'] });
    api.addPod('a');
    return api;
  };
  /** Dies at the n-th hook: before the request of a step arrives, or after it took effect. */
  const mortal = (api: IpamTestApi, lifetime: number): { agent: TestAgent; isDead: () => boolean } => {
    let steps = 0;
    const onStep = (): void => {
      if (++steps >= lifetime) throw lost();
    };
    return { agent: api.agent({ onStep, deps: { clock: hastyClock } }), isDead: () => steps >= lifetime };
  };
  const operations = {
    'ADD of the first interface': async (agent: TestAgent) => agent('ADD', 'a', ask),
    'ADD of the second interface': async (agent: TestAgent) => agent('ADD', 'a', { ...ask, ifName: 'net1' }),
    DEL: async (agent: TestAgent) => agent('DEL', 'a'),
  };
  for (const [what, operation] of Object.entries(operations)) {
    for (const after of ['the next agent goes on', 'the pod is gone'] as const) {
      it(`${what}; ${after}`, async () => {
        let kills = 0;
        for (let lifetime = 1; ; lifetime++) {
          const api = world();
          if (what !== 'ADD of the first interface') await api.agent()('ADD', 'a', ask);
          if (what === 'DEL') api.pods.delete('default/a');
          const { agent, isDead } = mortal(api, lifetime);
          await operation(agent).catch(() => undefined);
          if (!isDead()) break;
          kills++;
          if (after === 'the next agent goes on' && what !== 'DEL') {
            const next = api.agent();
            for (const ifName of ['eth0', 'net1']) await next('ADD', 'a', { ...ask, ifName });
            assert.equal(recordsOf(api).length, 4, `killed at step ${lifetime}: nothing doubled`);
            api.pods.delete('default/a');
            for (const ifName of ['net1', 'eth0']) await next('DEL', 'a', { ifName });
          } else if (after === 'the next agent goes on') {
            await api.agent()('DEL', 'a');
          } else {
            api.pods.delete('default/a');
            await collectAll(api);
          }
          assert.deepEqual([recordsOf(api), api.endpoints.size], [[], 0], `killed at step ${lifetime}: nothing leaked`);
        }
        assert.ok(kills >= 4, `killed only ${kills} times: the test shows nothing`);
      });
    }
  }
});

const agentCount = 10;
const nameCount = 60;

interface Node {
  agent: TestAgent;
  isDead: boolean;
  isCutOff: boolean;
}

/** Pods and who has which address, as the nodes see it. */
class Chaos {
  readonly api = new IpamTestApi();
  readonly nodes: Node[] = Array.from({ length: agentCount }, () => this.#start());
  readonly #clock = { nowMs: Date.now() };
  readonly #collector = collectorOf(this.api, this.#clock);
  /** Pod name → its node and addresses, while its object exists. */
  readonly #pods = new Map<string, { node: number; uid: string; addresses: string[] }>();
  readonly #running = new Set<Promise<void>>();
  readonly #turns = new Map<string, Promise<unknown>>();
  #uids = 0;
  answers = 0;

  constructor() {
    this.api.addPool('small', { ipVersion: 4, subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.20'] });
    this.api.addPool('large', { ipVersion: 4, subnet: '10.0.1.0/24', ips: ['10.0.1.1-10.0.1.50'] });
  }

  async step(action: Action, pick: number): Promise<void> {
    const name = `pod${pick % nameCount}`;
    const index = pick % agentCount;
    const node = this.nodes[index];
    if (node === undefined) return;
    if (action === 'add') this.#add(name, index);
    else if (action === 'delete') this.#delete(name, true);
    else if (action === 'lose') this.#delete(name, false);
    else if (action === 'crash') {
      node.isDead = true;
      this.nodes[index] = this.#start();
    } else if (action === 'partition') node.isCutOff = !node.isCutOff;
    else {
      this.#clock.nowMs += 10_000;
      this.#collector.scan();
      this.#track(this.#collector.collect());
    }
    if (this.#running.size > 25) await Promise.race(this.#running);
    await turn();
  }

  async end(): Promise<void> {
    for (const node of this.nodes) node.isCutOff = false;
    await Promise.all(this.#running);
    for (const name of [...this.#pods.keys()]) this.#delete(name, false);
    await collectAll(this.api);
    assert.deepEqual(recordsOf(this.api), [], 'leaked');
  }

  #start(): Node {
    const node: Node = { isDead: false, isCutOff: false } as Node;
    const onStep = (): void => {
      if (node.isDead || node.isCutOff) throw lost();
    };
    node.agent = this.api.agent({ onStep, deps: { clock: hastyClock } });
    return node;
  }

  #add(name: string, index: number): void {
    let pod = this.#pods.get(name);
    if (pod === undefined) {
      pod = { node: index, uid: `uid-${this.#uids++}`, addresses: [] };
      this.#pods.set(name, pod);
      this.api.addPod(name, { uid: pod.uid });
    }
    const own = pod;
    const node = this.nodes[own.node];
    for (const ifName of ['eth0', 'net1'] as const) {
      this.#inTurn(own.uid, async () => {
        const asked = { pools4: ['small', 'large'], ifName, containerId: own.uid };
        const result = await node?.agent('ADD', name, asked);
        if (node?.isDead === false) this.#answered(name, own.uid, result?.ips[0]?.address);
      });
    }
  }

  #answered(name: string, uid: string, address: string | undefined): void {
    const pod = this.#pods.get(name);
    if (address === undefined || pod?.uid !== uid) return;
    this.answers++;
    for (const [other, { addresses }] of this.#pods) {
      assert.ok(other === name || !addresses.includes(address), `${address} is of ${other} and of ${name}`);
    }
    pod.addresses.push(address);
  }

  /** With a DEL, or as when the node never says that the pod is gone. */
  #delete(name: string, isTold: boolean): void {
    const pod = this.#pods.get(name);
    if (pod === undefined) return;
    this.#pods.delete(name);
    this.api.pods.delete(`default/${name}`);
    if (!isTold) return;
    const args = { K8S_POD_NAMESPACE: 'default', K8S_POD_NAME: name, K8S_POD_UID: pod.uid };
    for (const ifName of ['net1', 'eth0']) {
      this.#inTurn(pod.uid, () => this.nodes[pod.node]?.agent('DEL', name, { ifName, args, containerId: pod.uid }));
    }
  }

  /** One call per container at a time, as the agent's CNI server sees to it. */
  #inTurn(uid: string, call: () => Promise<unknown> | undefined): void {
    const before = this.#turns.get(uid) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(call);
    this.#turns.set(uid, mine);
    this.#track(mine);
  }

  /** A wrong answer ends the run; that an agent failed is what was asked for. */
  #track(work: Promise<unknown> | undefined): void {
    const tracked: Promise<void> = Promise.resolve(work)
      .then(
        () => undefined,
        (error: unknown) => {
          if (error instanceof assert.AssertionError) this.#wrong ??= error;
        },
      )
      .finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
  }

  #wrong: assert.AssertionError | undefined;

  verify(): void {
    if (this.#wrong !== undefined) throw this.#wrong;
  }
}

const weights = { add: 12, delete: 4, lose: 2, crash: 1, partition: 2, collect: 1 } as const;
type Action = keyof typeof weights;

describe('10 agents', () => {
  it('through 10,000 random steps: no address twice, none lost', { timeout: 300_000 }, async () => {
    const seed = Number(process.env.SLUICE_CHAOS_SEED ?? Date.now() % 2 ** 31);
    console.log(`# SLUICE_CHAOS_SEED=${seed}`);
    const action = fc.oneof(
      ...Object.entries(weights).map(([name, weight]) => ({ weight, arbitrary: fc.constant(name as Action) })),
    );
    const step = fc.tuple(action, fc.nat(10_000));
    let [total, answers] = [0, 0];
    const limitMs = 40_000;
    const property = fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 2_000, size: 'max' }),
      async (steps) => {
        const chaos = new Chaos();
        for (const [what, pick] of steps) {
          await chaos.step(what, pick);
          if (total++ % 20 === 0) chaos.verify();
        }
        await chaos.end();
        chaos.verify();
        answers += chaos.answers;
      },
    );
    for (let run = 0; total < 10_000; run++) {
      await fc.assert(property, {
        seed: (seed + run) & 0x7fff_ffff,
        numRuns: 4,
        includeErrorInReport: true,
        interruptAfterTimeLimit: limitMs,
      });
    }
    console.log(`# ${total} steps, ${answers} answers`);
    assert.ok(answers > 1_000, `only ${answers} answers: the test shows nothing`);
  });
});
