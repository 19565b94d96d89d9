/** 1,000 pods of ten agents from one pool: addresses a second, conflicts, and what a pod waits. */
import assert from 'node:assert/strict';
import { encodeAllocatedIps, type AllocationRecord } from '../src/ipam/allocated-ips.ts';
import { unavailable } from '../test/real-apiserver/start.ts';
import { TimedApi } from './ipam-api.ts';
import { RealCluster } from './ipam-real.ts';
import { sizeRows } from './ipam-sizes.ts';
import { oneByOne, TurnByLease, type Allocate } from './ipam-writers.ts';
import { percentile, spread, type BenchRow, type Suite } from './report.ts';

const agents = 10;
/** Of one agent at once, as its CNI server has it. */
const concurrency = 32;
/** Spiderpool's published figure (docs/concepts/ipam-performance.md, v0.8.0): start of the containers included. */
const published = 1000 / 207;

interface Case {
  readonly name: string;
  readonly pools: readonly { readonly name: string; readonly ips: string; readonly taken?: number }[];
  readonly how: 'agent' | 'five tries' | 'tries without end' | 'lease';
}

const realName = '1,000 addresses for 1,000 pods, kube-apiserver';

const exact = [{ name: 'p', ips: '10.0.0.1-10.0.3.232' }] as const;
const cases: readonly Case[] = [
  { name: '1,000 addresses for 1,000 pods', pools: exact, how: 'agent' },
  { name: 'one write per request, 5 tries', pools: exact, how: 'five tries' },
  { name: 'one write per request, no limit', pools: exact, how: 'tries without end' },
  { name: 'batches, in turns by a Lease', pools: exact, how: 'lease' },
  { name: '2,000 addresses', pools: [{ name: 'p', ips: '10.0.0.1-10.0.7.208' }], how: 'agent' },
  {
    name: '65,534 addresses, 4,000 taken',
    pools: [{ name: 'p', ips: '10.0.0.1-10.0.255.254', taken: 4000 }],
    how: 'agent',
  },
  {
    name: '100 pools of 10',
    pools: Array.from({ length: 100 }, (_, n) => ({ name: `p${n}`, ips: `10.0.${n}.1-10.0.${n}.10` })),
    how: 'agent',
  },
];

export const ipamSuite: Suite = {
  name: 'ipam',
  describe: 'addresses for 1,000 pods on ten nodes, from one pool and from many; what a pool of a million costs',
  async run({ quick, log }) {
    const rows: BenchRow[] = [];
    for (const each of cases) {
      const rounds: Round[] = [];
      for (let round = 0; round < (quick ? 1 : 5); round++) {
        rounds.push(await measure(each, quick ? 300 : 1000));
        log(`${each.name}: ${JSON.stringify(rounds.at(-1))}`);
      }
      rows.push(...rowsOf(each, rounds));
    }
    return [...rows, ...(await realRows(quick, log)), ...(await sizeRows(quick, log))];
  },
};

/** Of a real API server, where this machine has one. */
async function realRows(quick: boolean, log: (line: string) => void): Promise<BenchRow[]> {
  const reason = unavailable();
  if (reason !== undefined) {
    log(`left out: ${realName}: ${reason}`);
    return [];
  }
  const cluster = await RealCluster.start(agents);
  try {
    const rounds: Round[] = [];
    const pods = quick ? 300 : 1000;
    for (let round = 0; round < (quick ? 1 : 5); round++) {
      const allocators = await cluster.round(round, pods);
      rounds.push({ ...(await allocateAll(allocators, pods)), conflicts: cluster.conflicts });
      log(`${realName}: ${JSON.stringify(rounds.at(-1))}`);
    }
    return rowsOf({ name: realName, how: 'agent' }, rounds);
  } finally {
    await cluster.stop();
  }
}

interface Round {
  readonly perSecond: number;
  readonly conflicts: number;
  readonly failures: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

async function measure(each: Case, pods: number): Promise<Round> {
  const api = new TimedApi();
  for (const pool of each.pools) {
    api.addPool(pool.name, { ipVersion: 4, subnet: '10.0.0.0/16', ips: [pool.ips] });
    if (pool.taken !== undefined) fill(api, pool.name, pool.taken);
  }
  for (let n = 0; n < pods; n++) api.addPod(`pod-${n}`);
  return { ...(await allocateAll(allocatorsOf(api, each), pods)), conflicts: api.conflicts };
}

/** pod-0 to the last, those of an agent by its workers side by side. */
async function allocateAll(allocators: readonly Allocate[], pods: number): Promise<Omit<Round, 'conflicts'>> {
  const waits: number[] = [];
  const addresses: string[] = [];
  let failures = 0;
  const startMs = performance.now();
  await Promise.all(
    allocators.map(async (allocate, index) => {
      let next = index;
      const worker = async (): Promise<void> => {
        while (next < pods) {
          const pod = next;
          next += agents;
          const sinceMs = performance.now();
          await allocate(`pod-${pod}`).then(
            (address) => addresses.push(address),
            () => failures++,
          );
          waits.push(performance.now() - sinceMs);
        }
      };
      await Promise.all(Array.from({ length: concurrency }, worker));
    }),
  );
  const seconds = (performance.now() - startMs) / 1000;
  assert.equal(new Set(addresses).size, addresses.length, 'an address twice');
  return {
    perSecond: addresses.length / seconds,
    failures,
    p50Ms: percentile(waits, 50),
    p99Ms: percentile(waits, 99),
  };
}

function allocatorsOf(api: TimedApi, { how, pools }: Case): Allocate[] {
  const step = api.onStep();
  const lease = new TurnByLease(async (kind) => {
    const name = kind === 'read' ? 'read pool' : 'write pool';
    await step(name, 'before');
    await step(name, 'after');
  });
  return Array.from({ length: agents }, (_, index): Allocate => {
    const agent = api.timedAgent(`node${index}`, 5000);
    if (how === 'five tries') return oneByOne(agent, 'p', 5);
    if (how === 'tries without end') return oneByOne(agent, 'p', Infinity);
    if (how === 'lease') return lease.allocator(agent, 'p', `node${index}`);
    return async (pod) => {
      const pool = pools[Number(pod.slice(4)) % pools.length]?.name ?? '';
      return (await agent('ADD', pod, { pools4: [pool] }))?.ips[0]?.address ?? '';
    };
  });
}

function fill(api: TimedApi, name: string, taken: number): void {
  const records = new Map<string, AllocationRecord>();
  for (let n = 1; n <= taken; n++) {
    const record = { pod: `default/older-7d9c5b6f4-${n}`, podUid: `3f1c7a3a-1111-4222-8333-${n}`, interface: 'eth0' };
    records.set(`10.0.${n >> 8}.${n & 255}`, record);
  }
  const pool = api.pools.get(name);
  if (pool === undefined) return;
  const allocatedIPs = encodeAllocatedIps(records);
  api.pools.set(name, { ...pool, status: { ...(allocatedIPs && { allocatedIPs }) } });
}

function rowsOf({ name, how }: Pick<Case, 'name' | 'how'>, rounds: readonly Round[]): BenchRow[] {
  const row = (metric: string, unit: string, values: readonly number[], baseline: number | null = null): BenchRow => ({
    ...{ suite: 'ipam', case: name, metric, unit, ...spread(values) },
    baseline: baseline === null ? null : 'Spiderpool, published, with container start',
    ratio: baseline === null ? null : spread(values).value / baseline,
  });
  const values = (key: keyof Round): number[] => rounds.map((round) => round[key]);
  return [
    row('addresses', '/s', values('perSecond'), how === 'agent' ? published : null),
    row('conflicts', '', values('conflicts')),
    row('failures', '', values('failures')),
    row('wait p50', 'ms', values('p50Ms')),
    row('wait p99', 'ms', values('p99Ms')),
  ];
}
