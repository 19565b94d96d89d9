/**
 * An IPv6 pool of 2^64 addresses costs what one of eight does (Spiderpool lists addresses one by one in places, its issues #3541,
 * #3618). What is compared is work, not time: how often V8 ran each block of our code (precise coverage), which is the same
 * on every machine.
 */
import assert from 'node:assert/strict';
import { Session } from 'node:inspector/promises';
import { after, before, describe, it } from 'node:test';
import type { PoolSpec, SpiderIPPool } from '../src/api/spiderippool.ts';
import type { SpiderSubnet } from '../src/api/spidersubnet.ts';
import { poolView } from '../src/cli/ipam-views.ts';
import { IpamTestApi } from '../src/cni/ipam-test-api.ts';
import { parseIpRange, type IpRange } from '../src/core/ip-range.ts';
import { encodeAllocatedIps } from '../src/ipam/allocated-ips.ts';
import { PoolBook } from '../src/ipam/pool-book.ts';
import { defaultPool } from '../src/ipam/pool-defaults.ts';
import { poolUsage } from '../src/ipam/pool-usage.ts';
import { validatePoolCreate, validatePoolUpdate } from '../src/ipam/pool-validation.ts';

/** Executed blocks of files below src/. */
class WorkCounter {
  readonly #session = new Session();

  async start(): Promise<void> {
    this.#session.connect();
    await this.#session.post('Profiler.enable');
    await this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  async of(work: () => unknown): Promise<number> {
    // Compiled and cached things count once, whichever pool comes first.
    await work();
    await this.#session.post('Profiler.takePreciseCoverage');
    await work();
    const { result } = await this.#session.post('Profiler.takePreciseCoverage');
    const ours = result.filter(({ url }) => url.includes('/src/') || url.includes('/test/'));
    return ours.reduce((sum, { functions }) => sum + sumOf(functions.flatMap(({ ranges }) => ranges)), 0);
  }

  stop(): void {
    this.#session.disconnect();
  }
}

function sumOf(ranges: readonly { readonly count: number }[]): number {
  return ranges.reduce((sum, { count }) => sum + count, 0);
}

interface Size {
  readonly spec: PoolSpec;
  /** In use, in front of what is free. */
  readonly used: readonly string[];
  readonly reserved: IpRange;
}

const small: Size = {
  spec: { ipVersion: 6, subnet: 'fd00::/125', ips: ['fd00::1-fd00::7'], excludeIPs: ['fd00::6'], gateway: 'fd00::6' },
  used: ['fd00::1', 'fd00::2'],
  reserved: parseIpRange('fd00::3') ?? assert.fail(),
};
const large: Size = {
  spec: {
    ...{ ipVersion: 6, subnet: 'fd00::/64', ips: ['fd00::1-fd00::ffff:ffff:ffff:ffff'] },
    ...{ excludeIPs: ['fd00::6-fd00::7fff:ffff:ffff:ffff'], gateway: 'fd00::6' },
  },
  used: ['fd00::1', 'fd00::2'],
  reserved: parseIpRange('fd00::3-fd00::4') ?? assert.fail(),
};

function poolOf({ spec, used }: Size, name = 'p'): SpiderIPPool {
  const records = new Map(used.map((ip, n) => [ip, { pod: `d/p${n}`, podUid: `u${n}`, interface: 'eth0' }]));
  const status = { allocatedIPs: encodeAllocatedIps(records) ?? '', totalIPCount: 1, allocatedIPCount: used.length };
  return { metadata: { name, finalizers: ['spiderpool.spidernet.io'] }, spec, status };
}

const neighbour = (size: Size): SpiderIPPool => ({
  metadata: { name: 'neighbour' },
  spec: { ...size.spec, ips: size.spec.excludeIPs ?? [], excludeIPs: [] },
});
const owner = ({ spec }: Size): SpiderSubnet => ({ metadata: { name: 's' }, spec: { ...spec, excludeIPs: [] } });

const operations: Readonly<Record<string, (size: Size) => unknown>> = {
  'mutating admission': (size) => defaultPool(poolOf(size), { subnets: [owner(size)] }).object,
  'validation of a new pool': (size) =>
    accepted(validatePoolCreate(poolOf(size, 'new'), { pools: [neighbour(size)], subnets: [owner(size)] })),
  'validation of a change': (size) => {
    const grown = { ...poolOf(size), spec: { ...size.spec, excludeIPs: [size.spec.gateway ?? ''] } };
    return accepted(validatePoolUpdate(grown, poolOf(size), { pools: [poolOf(size)], subnets: [owner(size)] }));
  },
  'validation that finds an overlap': (size) => {
    const errors = validatePoolCreate(poolOf(size, 'twin'), { pools: [poolOf(size)] });
    assert.match(errors[0]?.detail ?? '', /overlap with IPPool p/);
    return errors;
  },
  'allocation, status and release': (size) => {
    const book = new PoolBook(poolOf(size));
    const key = { pod: 'd/x', podUid: 'x', interface: 'eth0' };
    assert.ok('address' in book.allocate(key, [size.reserved]));
    const status = book.status();
    book.release(({ podUid }) => podUid === 'x');
    return status;
  },
  'usage and free ranges': (size) => poolUsage(poolOf(size), [size.reserved]),
  '`sluice ipam pools` and `free`': (size) => poolView(poolOf(size), [size.reserved]),
  'ADD and DEL of the plugin': async (size) => {
    const api = new IpamTestApi();
    api.addPool('p', size.spec);
    api.addPod('a');
    const agent = api.agent();
    const result = await agent('ADD', 'a', { pools6: ['p'] });
    await agent('DEL', 'a');
    assert.deepEqual(api.records('p'), {});
    return result;
  },
};

function accepted(errors: readonly { readonly detail: string }[]): readonly unknown[] {
  assert.deepEqual(errors, []);
  return errors;
}

describe('a pool of 2^64 addresses costs what one of eight does', () => {
  const work = new WorkCounter();
  before(() => work.start());
  after(() => work.stop());

  for (const [what, operation] of Object.entries(operations)) {
    it(what, async () => {
      const [few, many] = [await work.of(() => operation(small)), await work.of(() => operation(large))];
      assert.ok(few > 20, `only ${few} blocks were seen: the counter is blind`);
      // Longer texts have more groups; that is all.
      assert.ok(many <= few * 1.5, `${few} blocks with 8 addresses, ${many} with 2^64`);
      const size = async (of: Size): Promise<number> => lengthOf(await operation(of));
      assert.ok((await size(large)) <= (await size(small)) + 400, 'what comes out is as small');
    });
  }

  it('which a list of addresses does not, not even of 2^12', async () => {
    const { first } = small.reserved;
    const listed = (count: number) => () => Array.from({ length: count }, (_, n) => first.value + BigInt(n));
    assert.ok((await work.of(listed(4096))) > 100 * (await work.of(listed(8))));
  });
});

function lengthOf(value: unknown): number {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? each.toString() : each)).length;
}
