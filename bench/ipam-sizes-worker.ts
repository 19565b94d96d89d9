/**
 * node --import tsx --expose-gc bench/ipam-sizes-worker.ts CASE SECONDS: what one pool costs, in a process of its own, so that the memory is
 * that pool's. Prints one JSON document.
 */
import assert from 'node:assert/strict';
import type { Pod } from '../src/api/kubernetes.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import { GcCollector } from '../src/controller/gc-collector.ts';
import { podCopy } from '../src/controller/pod-copy.ts';
import { systemClock } from '../src/core/clock.ts';
import { silentLogger } from '../src/core/log.ts';
import { encodeAllocatedIps, type AllocationRecord } from '../src/ipam/allocated-ips.ts';
import { PoolBook } from '../src/ipam/pool-book.ts';
import { defaultPool } from '../src/ipam/pool-defaults.ts';
import { validatePoolCreate, validatePoolUpdate } from '../src/ipam/pool-validation.ts';
import { sizeCases, type SizeCase, type SizeFigures } from './ipam-sizes.ts';
import { percentile } from './report.ts';

const [index = '0', seconds = '1'] = process.argv.slice(2);
const given = sizeCases[Number(index)] ?? assert.fail(`no case ${index}`);
const key = { pod: 'default/new-7d9c5b6f4-x2x4z', podUid: '3f1c7a3a-1111-4222-8333-999999999999', interface: 'eth0' };

function poolOf({ subnet, ips, taken }: SizeCase): SpiderIPPool {
  const empty: SpiderIPPool = { metadata: { name: 'p', resourceVersion: '1' }, spec: { subnet, ips: [ips] } };
  const { object } = defaultPool(empty);
  const book = new PoolBook(object);
  for (let n = 0; n < taken; n++) assert.ok('address' in book.allocate(keyOf(n)));
  return { ...object, status: book.status() };
}

function keyOf(n: number): AllocationRecord {
  const podUid = `3f1c7a3a-1111-4222-8333-${String(n).padStart(12, '0')}`;
  return { pod: `default/web-7d9c5b6f4-${n}`, podUid, interface: 'eth0' };
}

/** Other pools, so that admission has something to compare with. */
const neighbours = Array.from({ length: 100 }, (_, n): SpiderIPPool => {
  return {
    metadata: { name: `n${n}` },
    spec: { ipVersion: 4, subnet: `172.16.${n}.0/24`, ips: [`172.16.${n}.10-172.16.${n}.250`] },
  };
});

function admit(pool: SpiderIPPool): void {
  const { object } = defaultPool({
    metadata: { name: 'new' },
    spec: { subnet: pool.spec.subnet, ips: [...(pool.spec.ips ?? [])] },
  });
  assert.deepEqual(validatePoolCreate(object, { pools: neighbours, subnets: [] }), []);
}

function admitChange(pool: SpiderIPPool): void {
  const changed = { ...pool, spec: { ...pool.spec, disable: true } };
  assert.deepEqual(validatePoolUpdate(changed, pool, { pools: [...neighbours, pool], subnets: [] }), []);
}

/** What an agent computes for one address: from the object to the status that it writes. */
function allocate(pool: SpiderIPPool): SpiderIPPool {
  const book = new PoolBook(pool);
  assert.ok('address' in book.allocate(key));
  return { ...pool, status: book.status() };
}

function release(pool: SpiderIPPool): SpiderIPPool {
  const book = new PoolBook(pool);
  assert.equal(book.release(({ podUid }) => podUid === key.podUid).length, 1);
  return { ...pool, status: book.status() };
}

/** A scan of every record, and what the API server is asked and told about the one whose pod is gone. */
function garbageCollection(pool: SpiderIPPool): () => Promise<void> {
  const pods = new Map<string, Pod>();
  const { records } = new PoolBook(pool);
  for (const { pod, podUid } of records.values()) {
    const [namespace = '', name = ''] = pod.split('/');
    const status = { phase: 'Running' as const, podIPs: [{ ip: '10.0.0.1' }] };
    pods.set(pod, podCopy({ metadata: { namespace, name, uid: podUid }, spec: { containers: [] }, status }));
  }
  const withGone = allocate(pool);
  const find = (namespace: string, name: string): Pod | undefined => pods.get(`${namespace}/${name}`);
  const settings = { additionalDelayMs: 0, terminatingOnReadyNode: true, terminatingOnNotReadyNode: true };
  let nowMs = Date.now();
  let released = 0;
  const collector = new GcCollector({
    pools: {
      cached: () => [withGone],
      read: async () => withGone,
      replaceStatus: async (written) => written,
    },
    pods: { cached: find, read: async (...at) => find(...at) },
    endpoints: { read: async () => undefined, remove: async () => undefined },
    owners: { read: async () => undefined },
    readNode: async () => undefined,
    settings: { ...settings, runningWithoutIps: false, statefulSets: true, virtualMachines: true },
    observe: (_outcome, count) => (released += count),
    clock: { ...systemClock, nowMs: () => nowMs },
    log: silentLogger,
  });
  return async () => {
    released = 0;
    collector.scan();
    nowMs += 60_000;
    await collector.collect();
    assert.equal(released, 1, 'the address of the pod that is gone');
  };
}

/** Median of as many runs as fit into the time, at least three; milliseconds. */
async function timeOf(work: () => unknown): Promise<number> {
  await work();
  const samples: number[] = [];
  const endMs = performance.now() + Number(seconds) * 1000;
  while (samples.length < 3 || performance.now() < endMs) {
    const sinceMs = performance.now();
    await work();
    samples.push(performance.now() - sinceMs);
  }
  return percentile(samples, 50);
}

const residentMb = (): number => {
  globalThis.gc?.();
  return process.memoryUsage().rss / 1e6;
};

const beforeMb = residentMb();
const pool = poolOf(given);
const taken = allocate(pool);
const figures: SizeFigures = {
  admitMs: await timeOf(() => admit(pool)),
  changeMs: await timeOf(() => admitChange(pool)),
  allocateMs: await timeOf(() => allocate(pool)),
  releaseMs: await timeOf(() => release(taken)),
  gcMs: await timeOf(garbageCollection(pool)),
  documentKb: (encodeAllocatedIps(new PoolBook(pool).records)?.length ?? 0) / 1000,
  rssMb: residentMb(),
  grownMb: residentMb() - beforeMb,
};
process.stdout.write(`${JSON.stringify(figures)}\n`);
