/**
 * The whole agent, killed with SIGKILL at each step of handing out and taking back addresses: before a write reaches the API server,
 * and after it took effect but before the agent knows. Then the next agent goes on, or the pod is gone and garbage collection
 * comes: no address is given twice, none stays. In one round many pods stand at the same step, each of another operation.
 *
 * test/ipam-chaos.test.ts does the same to the allocation alone, at reads as well, thousands of times.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { KubeObject, Pod } from '../src/api/kubernetes.ts';
import {
  namespaces,
  pods,
  spiderEndpoints,
  spiderIPPools,
  statefulSets,
  type GroupVersionResource,
} from '../src/api/resources.ts';
import type { SpiderEndpoint } from '../src/api/spiderendpoint.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import { collectGarbage } from '../src/cli/ipam-gc.ts';
import { whyNoKernelTests } from '../src/datapath/test-bed.ts';
import { decodeAllocatedIps, type AllocationRecord } from '../src/ipam/allocated-ips.ts';
import { readSettings } from '../src/ipam/settings.ts';
import { unlessNotFound } from '../src/kube/error.ts';
import { formatKubeconfig } from '../src/lab/api/credentials.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';
import { AgentBed, node, until, type RunningAgent } from './agent-bed.ts';
import { callShim } from './cni-shim.ts';
import { WriteGate, type Step } from './write-gate.ts';

type Interface = 'eth0' | 'net1';
type PoolSet = 'first' | 'second';

interface Answer {
  readonly status: number | null;
  readonly addresses: readonly string[];
}

/** A pod in a namespace of its own, with pools of its own that hold exactly what it needs. */
class Victim {
  readonly name = 'web-0';
  readonly namespace: string;
  readonly #bed: AgentBed;
  readonly #index: number;
  readonly #pools: string[] = [];
  uid = '';
  /** Which pools its CNI configuration names. */
  draws: PoolSet = 'first';

  constructor(bed: AgentBed, index: number) {
    [this.#bed, this.#index] = [bed, index];
    this.namespace = `victim-${index}`;
  }

  async create(): Promise<void> {
    await this.#bed.kube.create(namespaces, { metadata: { name: this.namespace } });
    await this.createPod();
  }

  async createPod(metadata: KubeObject['metadata'] = {}): Promise<void> {
    const { namespace, name } = this;
    const spec = { nodeName: node, containers: [{ name: 'c', image: 'none' }] };
    const pod = await this.#bed.kube.create<Pod>(pods, { metadata: { ...metadata, namespace, name }, spec });
    this.uid = pod.metadata?.uid ?? '';
  }

  /** `count` addresses per family; IPv6 as many as `count6`. */
  async createPools(count: number, count6 = count, set: PoolSet = 'first'): Promise<void> {
    const [high, low] = [Math.floor(this.#index / 250), this.#index % 250];
    const range = (prefix: string, many: number): string[] => (many === 0 ? [] : [`${prefix}1-${prefix}${many}`]);
    const [net4, net6] = [
      `10.${set === 'first' ? 80 + high : 90 + high}.${low}.`,
      `fd${set === 'first' ? 80 : 90}:${this.#index}::`,
    ];
    const specs = [
      { ipVersion: 4, subnet: `${net4}0/24`, ips: range(net4, count) },
      { ipVersion: 6, subnet: `${net6}/64`, ips: range(net6, count6) },
    ];
    for (const spec of specs) {
      const metadata = { name: poolName(this.namespace, set, spec.ipVersion) };
      this.#pools.push(metadata.name);
      await this.#bed.kube.create(spiderIPPools, { metadata, spec } as KubeObject);
    }
  }

  /** The pod becomes one of a StatefulSet's; answers what its successors are made with. */
  async joinStatefulSet(): Promise<KubeObject['metadata']> {
    const { namespace } = this;
    const labels = { app: 'web' };
    const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'none' }] } };
    const spec = { serviceName: 'web', replicas: 1, selector: { matchLabels: labels }, template };
    const set = await this.#bed.kube.create<KubeObject>(statefulSets, {
      ...{ metadata: { namespace, name: 'web' }, spec },
    });
    const owner = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: 'web', uid: set.metadata?.uid ?? '' };
    const metadata = { ownerReferences: [{ ...owner, controller: true }] };
    await this.replacePod(metadata);
    return metadata;
  }

  async replacePod(metadata: KubeObject['metadata'] = {}): Promise<void> {
    await this.remove(pods, this.name);
    await this.createPod(metadata);
  }

  /** With what would make another. */
  async removePod(): Promise<void> {
    await this.remove(statefulSets, 'web');
    await this.remove(pods, this.name);
  }

  async remove(gvr: GroupVersionResource, name: string): Promise<void> {
    const ref = { namespace: this.namespace, name };
    await unlessNotFound(this.#bed.kube.delete(gvr, ref, { gracePeriodSeconds: 0 }));
  }

  /** The real executable, as a main plugin calls it. */
  async cni(command: 'ADD' | 'DEL', ifName: Interface = 'eth0'): Promise<Answer> {
    const { namespace, name, uid, draws } = this;
    const [v4, v6] = ([4, 6] as const).map((family) => [poolName(namespace, draws, family)]);
    const ipam = { type: 'spiderpool', default_ipv4_ippool: v4, default_ipv6_ippool: v6 };
    const env = {
      ...{ CNI_COMMAND: command, CNI_CONTAINERID: `c-${uid}`, CNI_NETNS: '/proc/1/ns/net', CNI_IFNAME: ifName },
      CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
      SLUICE_CNI_SOCKET: join(this.#bed.dir, 'cni.sock'),
    };
    const config = { cniVersion: '1.0.0', name: 'net', type: 'macvlan', ipam };
    const { status, body } = await callShim('spiderpool', env, config);
    const { ips = [] } = body as { readonly ips?: readonly { readonly address: string }[] };
    return { status, addresses: ips.map(({ address }) => address.split('/')[0] ?? '') };
  }

  async mustCni(command: 'ADD' | 'DEL', ifName: Interface = 'eth0'): Promise<Answer> {
    const answer = await this.cni(command, ifName);
    assert.equal(answer.status, 0, `${command} of ${this.namespace}/${ifName}`);
    return answer;
  }

  /** Of all its pools: address → record. */
  async records(): Promise<Map<string, AllocationRecord>> {
    const found = await Promise.all(this.#pools.map((name) => this.#bed.kube.get(spiderIPPools, { name })));
    return new Map(
      (found as SpiderIPPool[]).flatMap(({ metadata, status }) => [
        ...decodeAllocatedIps(status?.allocatedIPs, metadata.name ?? ''),
      ]),
    );
  }

  async endpoint(): Promise<SpiderEndpoint | undefined> {
    const ref = { namespace: this.namespace, name: this.name };
    return (await this.#bed.kube.find(spiderEndpoints, ref)) as SpiderEndpoint | undefined;
  }

  async nothingIsLeft(where: string): Promise<void> {
    assert.deepEqual([...(await this.records())], [], `${where}: leaked`);
    assert.equal(await this.endpoint(), undefined, `${where}: its endpoint is left`);
  }
}

function poolName(namespace: string, set: PoolSet, family: number): string {
  return `${namespace}-${set}-v${family}`;
}

function subjectOfPool(name: string): string | undefined {
  return /^(victim-\d+)-(?:first|second)-v[46]$/.exec(name)?.[1];
}

/** Whose addresses a path is about. */
function subjectOf(path: string): string | undefined {
  const pool = /\/spiderippools\/([^/]+)\/status$/.exec(path)?.[1];
  return pool === undefined ? /\/namespaces\/([^/]+)\/spiderendpoints/.exec(path)?.[1] : subjectOfPool(pool);
}

interface Operation {
  readonly what: string;
  /** Up to what the agent is killed in. */
  prepare(victim: Victim): Promise<unknown>;
  run(victim: Victim): Promise<Answer>;
  /** Interfaces with addresses once the next agent has done it again; none: it is a DEL, or cannot succeed. */
  readonly has: readonly Interface[];
  /** At least; one more where Kubernetes' own garbage collection comes between. */
  readonly writes: number;
}

const operations: readonly Operation[] = [
  {
    what: 'ADD of the first interface',
    writes: 3,
    prepare: (victim) => victim.createPools(2),
    run: (victim) => victim.cni('ADD'),
    has: ['eth0', 'net1'],
  },
  {
    what: 'ADD of the second interface',
    writes: 3,
    prepare: async (victim) => {
      await victim.createPools(2);
      await victim.mustCni('ADD');
    },
    run: (victim) => victim.cni('ADD', 'net1'),
    has: ['eth0', 'net1'],
  },
  {
    what: 'ADD where a pod of that name was before',
    writes: 3,
    prepare: async (victim) => {
      await victim.createPools(2);
      await victim.mustCni('ADD');
      await victim.replacePod();
    },
    run: (victim) => victim.cni('ADD'),
    has: ['eth0'],
  },
  {
    what: 'ADD of a StatefulSet’s pod that keeps its addresses',
    writes: 3,
    prepare: async (victim) => {
      await victim.createPools(1);
      const metadata = await victim.joinStatefulSet();
      await victim.mustCni('ADD');
      await victim.replacePod(metadata);
    },
    run: (victim) => victim.cni('ADD'),
    has: ['eth0'],
  },
  {
    what: 'ADD of a StatefulSet’s pod that moves to other pools',
    writes: 7,
    prepare: async (victim) => {
      await victim.createPools(1);
      await victim.createPools(1, 1, 'second');
      const metadata = await victim.joinStatefulSet();
      await victim.mustCni('ADD');
      await victim.replacePod(metadata);
      victim.draws = 'second';
    },
    run: (victim) => victim.cni('ADD'),
    has: ['eth0'],
  },
  {
    what: 'ADD that has to give one family back, as there is no address of the other',
    writes: 2,
    prepare: (victim) => victim.createPools(1, 0),
    run: (victim) => victim.cni('ADD'),
    has: [],
  },
  {
    what: 'DEL of one of two interfaces',
    writes: 3,
    prepare: async (victim) => {
      await victim.createPools(2);
      for (const ifName of ['eth0', 'net1'] as const) await victim.mustCni('ADD', ifName);
      await victim.removePod();
    },
    run: (victim) => victim.cni('DEL', 'net1'),
    has: [],
  },
  {
    what: 'DEL of the last interface',
    writes: 4,
    prepare: async (victim) => {
      await victim.createPools(1);
      await victim.mustCni('ADD');
      await victim.removePod();
    },
    run: (victim) => victim.cni('DEL'),
    has: [],
  },
];

const endings = ['the next agent goes on', 'the pod is gone'] as const;
type Ending = (typeof endings)[number];

interface Case {
  readonly operation: Operation;
  readonly step: Step;
  readonly ending: Ending;
  readonly victim: Victim;
}

function describeCase({ operation, step, ending }: Case): string {
  return `${operation.what}, killed ${step.when} write ${step.write}, ${ending}`;
}

describe('an agent that is killed while it hands out addresses', { skip: whyNoKernelTests() ?? false }, () => {
  let bed: AgentBed;
  let gate: WriteGate;
  let kubeConfigPath: string;
  let victims = 0;

  before(async () => {
    bed = await AgentBed.create();
    await applyDefinitions(bed.kube);
    gate = await WriteGate.open(() => bed.api, subjectOf);
    kubeConfigPath = join(bed.dir, 'gated-kubeconfig');
    const { caCert, token } = bed.api.credentials;
    writeFileSync(kubeConfigPath, formatKubeconfig({ server: gate.url, caCert, token }), { mode: 0o600 });
  });
  after(async () => {
    await bed.close();
    await gate.close();
  });

  it('at any write, of any operation: no address twice, none lost', async () => {
    const kills = new Map<string, number>(operations.map(({ what }) => [what, 0]));
    let open = operations;
    let agent = await bed.startReady({ kubeConfigPath });
    for (let write = 1; open.length > 0; write++) {
      const cases = await Promise.all(
        open.flatMap((operation) =>
          (['before', 'after'] as const).flatMap((when) =>
            endings.map((ending) => prepare(operation, { write, when }, ending)),
          ),
        ),
      );
      const killed = await killAt(agent, cases);
      for (const { operation } of killed) kills.set(operation.what, (kills.get(operation.what) ?? 0) + 1);
      await endWithout(killed.filter(({ ending }) => ending === 'the pod is gone'));
      agent = await bed.startReady({ kubeConfigPath });
      await endWith(killed.filter(({ ending }) => ending === 'the next agent goes on'));
      open = open.filter((operation) => killed.some((each) => each.operation === operation));
    }
    console.log(`# kills: ${[...kills].map(([what, count]) => `${count} in ${what}`).join(', ')}`);
    for (const { what, writes } of operations)
      assert.ok((kills.get(what) ?? 0) >= writes * 4, `${what}: not killed at every write`);
  });

  async function prepare(operation: Operation, step: Step, ending: Ending): Promise<Case> {
    const victim = new Victim(bed, victims++);
    await victim.create();
    await operation.prepare(victim);
    return { operation, step, ending, victim };
  }

  /** Runs all, each up to its step. Answers those that have come that far; the agent is dead. */
  async function killAt(agent: RunningAgent, cases: readonly Case[]): Promise<Case[]> {
    gate.hold(new Map(cases.map(({ victim, step }) => [victim.namespace, step])));
    const answered = new Map<Case, Answer>();
    const running = cases.map(async (each) => {
      answered.set(each, await each.operation.run(each.victim));
    });
    const stands = ({ victim }: Case): boolean => gate.standing.has(victim.namespace);
    await until('all to stand or to be done', () => cases.every((each) => stands(each) || answered.has(each)));
    const killed = cases.filter(stands);
    await bed.stop(agent, 'SIGKILL');
    await Promise.all(running);
    gate.release();
    for (const each of killed) assert.notEqual(answered.get(each)?.status, 0, `${describeCase(each)}: it succeeded`);
    return killed;
  }

  /** No agent comes: garbage collection finds what is left. */
  async function endWithout(cases: readonly Case[]): Promise<void> {
    await Promise.all(cases.map(({ victim }) => victim.removePod()));
    await collect();
    await Promise.all(cases.map((each) => each.victim.nothingIsLeft(describeCase(each))));
  }

  /** The runtime calls again, and in the end takes the pod away. */
  async function endWith(cases: readonly Case[]): Promise<void> {
    await Promise.all(cases.map(goOn));
    await collect();
    await Promise.all(cases.map((each) => each.victim.nothingIsLeft(describeCase(each))));
  }

  async function goOn(each: Case): Promise<void> {
    const { operation, victim } = each;
    const where = describeCase(each);
    for (const ifName of operation.has) {
      const { addresses } = await victim.mustCni('ADD', ifName);
      assert.equal(addresses.length, 2, where);
      const own = [...(await victim.records())].filter(
        ([, record]) => record.interface === ifName && record.podUid === victim.uid,
      );
      assert.deepEqual(own.map(([address]) => address).sort(), [...addresses].sort(), `${where}: ${ifName}`);
    }
    if (operation.has.length > 0) {
      const ips = (await victim.endpoint())?.status?.current.ips ?? [];
      assert.deepEqual(
        ips.map((entry) => entry.interface),
        operation.has,
        `${where}: its endpoint`,
      );
    }
    await victim.removePod();
    for (const ifName of ['net1', 'eth0'] as const) await victim.mustCni('DEL', ifName);
  }

  /** As `sluice ipam gc`: the controller's decisions, without its pauses. */
  async function collect(): Promise<void> {
    const cluster = { client: bed.kube, agents: [], [Symbol.dispose]: () => undefined };
    await collectGarbage(cluster, readSettings(undefined).settings, false);
  }
});
