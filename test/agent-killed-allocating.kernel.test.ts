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
import { agentLimits } from '../src/agent/limits.ts';
import { collectGarbage } from '../src/cli/ipam-gc.ts';
import { parseIp } from '../src/core/ip.ts';
import { whyNoKernelTests } from '../src/datapath/test-bed.ts';
import { readSettings } from '../src/ipam/settings.ts';
import { RtNetlink } from '../src/kernel/netlink/rtnetlink.ts';
import { formatKubeconfig } from '../src/lab/api/credentials.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';
import { AgentBed, until, type RunningAgent } from './agent-bed.ts';
import { subjectOf, Victim, type Answer, type Interface } from './victim.ts';
import { WriteGate, type Step } from './write-gate.ts';

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
    what: 'ADD out of the pools of an application',
    writes: 3,
    prepare: (victim) => victim.joinDeployment(),
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

/** Two addresses are taken, given back, two others taken, and all is told. */
const conflict: Operation = {
  what: 'ADD that finds somebody at its first addresses, and takes others',
  writes: 7,
  prepare: (victim) => victim.createPools(2),
  run: (victim) => victim.cni('ADD'),
  has: ['eth0'],
};

const endings = ['the next agent goes on', 'the pod is gone'] as const;
type Ending = (typeof endings)[number];

/** Each has victims for both ends, killed before and after the write; more calls the agent does not serve at once, and all of these stand still. */
const operationsAtOnce = agentLimits.cniConcurrency / (2 * endings.length);

interface Case {
  readonly operation: Operation;
  readonly step: Step;
  readonly ending: Ending;
  readonly victim: Victim;
}

function describeCase({ operation, step, ending }: Case): string {
  return `${operation.what}, killed ${step.when} write ${step.write}, ${ending}`;
}

/** Dozens of ADDs at once end late on an emulated CPU, before their last writes; and what they write is not the kernel's. */
const emulated = process.env['SLUICE_VM'] === '1' ? 'too many pods at once for an emulated CPU' : undefined;

describe(
  'an agent that is killed while it hands out addresses',
  { skip: whyNoKernelTests() ?? emulated ?? false },
  () => {
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
      let open = operations.map((operation) => ({ operation, write: 1 }));
      let agent = await bed.startReady({ kubeConfigPath });
      while (open.length > 0) {
        const [turn, later] = [open.slice(0, operationsAtOnce), open.slice(operationsAtOnce)];
        const cases = await Promise.all(
          turn.flatMap(({ operation, write }) =>
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
        const goesOn = turn.filter(({ operation }) => killed.some((each) => each.operation === operation));
        open = [...goesOn.map(({ operation, write }) => ({ operation, write: write + 1 })), ...later];
      }
      await bed.stop(agent, 'SIGTERM');
      console.log(`# kills: ${[...kills].map(([what, count]) => `${count} in ${what}`).join(', ')}`);
      for (const { what, writes } of operations)
        assert.ok((kills.get(what) ?? 0) >= writes * 4, `${what}: not killed at every write`);
    });

    it('at any write, while somebody has the addresses: no address twice, none lost, and none of theirs', async () => {
      const pair = bed.pair();
      const options = { kubeConfigPath, detection: { conflicts: true, gateways: false } };
      const agent = await bed.startReady(options);
      // What is written is known, so that one agent is killed at all of it.
      const cases = await Promise.all(
        Array.from({ length: conflict.writes }, (_, index) => index + 1).flatMap((write) =>
          (['before', 'after'] as const).flatMap((when) =>
            endings.map((ending) => prepare(conflict, { write, when }, ending, pair.pod)),
          ),
        ),
      );
      const theirs = cases.flatMap(({ victim }) => victim.firstAddresses);
      using peer = RtNetlink.open(pair.peer);
      const { ifindex } = peer.mustLink(pair.interfaceName);
      for (const text of theirs) {
        const address = parseIp(text) ?? assert.fail(text);
        peer.setAddress({ ifindex, address, prefixLen: address.family === 4 ? 24 : 64, noDad: address.family === 6 });
      }
      const killed = await killAt(agent, cases);
      console.log(`# kills: ${killed.length} in ${conflict.what}`);
      assert.equal(killed.length, cases.length, 'not killed at every write');
      await endWithout(killed.filter(({ ending }) => ending === 'the pod is gone'));
      const next = await bed.startReady(options);
      await endWith(
        killed.filter(({ ending }) => ending === 'the next agent goes on'),
        theirs,
      );
      await bed.stop(next, 'SIGTERM');
    });

    async function prepare(operation: Operation, step: Step, ending: Ending, netns?: string): Promise<Case> {
      const victim = new Victim(bed, victims++, netns);
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
    async function endWith(cases: readonly Case[], theirs: readonly string[] = []): Promise<void> {
      await Promise.all(cases.map((each) => goOn(each, theirs)));
      await collect();
      await Promise.all(cases.map((each) => each.victim.nothingIsLeft(describeCase(each))));
    }

    async function goOn(each: Case, theirs: readonly string[]): Promise<void> {
      const { operation, victim } = each;
      const where = describeCase(each);
      for (const ifName of operation.has) {
        const { addresses } = await victim.mustCni('ADD', ifName);
        assert.equal(addresses.length, 2, where);
        assert.deepEqual(
          addresses.filter((address) => theirs.includes(address)),
          [],
          `${where}: somebody else’s`,
        );
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
  },
);
