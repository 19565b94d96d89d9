import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatIpRange, type IpRange } from '../core/ip-range.ts';
import { formatIp, type IpAddress } from '../core/ip.ts';
import { check } from '../core/property.ts';
import { addressInfo } from './address-info.ts';
import { encodeAllocatedIps } from './allocated-ips.ts';
import { poolUsage } from './pool-usage.ts';

/** 10.0.0.N */
const ip = (last: number): IpAddress => ({ family: 4, value: 0x0a00_0000n + BigInt(last) });
const rangeOf = (from: number, to: number): IpRange => ({
  first: ip(Math.min(from, to)),
  last: ip(Math.max(from, to)),
});
const ranges = fc.array(
  fc.tuple(fc.nat(63), fc.nat(63)).map(([from, to]) => rangeOf(from, to)),
  { maxLength: 4 },
);
const has = (set: readonly IpRange[], last: number): boolean =>
  set.some(({ first, last: end }) => first.value <= ip(last).value && ip(last).value <= end.value);

function poolOf(ips: readonly IpRange[], excludeIPs: readonly IpRange[], used: readonly number[]): SpiderIPPool {
  const records = new Map(
    used.map((last) => [formatIp(ip(last)), { pod: 'd/p', podUid: `u${last}`, interface: 'eth0' }]),
  );
  const allocatedIPs = encodeAllocatedIps(records);
  return {
    metadata: { name: 'p' },
    spec: { subnet: '10.0.0.0/24', ips: ips.map(formatIpRange), excludeIPs: excludeIPs.map(formatIpRange) },
    ...(allocatedIPs !== undefined && { status: { allocatedIPs } }),
  };
}

describe('usage of a pool', () => {
  it('is what a set of addresses says', () => {
    check(
      fc.property(ranges, ranges, ranges, fc.uniqueArray(fc.nat(63)), (ips, excluded, reserved, used) => {
        const pool = poolOf(ips, excluded, used);
        const usage = poolUsage(pool, reserved);
        const all = Array.from({ length: 64 }, (_, last) => last);
        const own = all.filter((last) => has(ips, last) && !has(excluded, last));
        const free = own.filter((last) => !used.includes(last) && !has(reserved, last));
        assert.equal(usage.total, BigInt(own.length));
        assert.equal(usage.allocated, used.length);
        assert.deepEqual(
          all.filter((last) => has(usage.free, last)),
          free,
        );
        assert.equal(usage.freeCount, BigInt(free.length));
        const withheld = own.filter((last) => !used.includes(last) && has(reserved, last));
        assert.equal(usage.reservedCount, BigInt(withheld.length));
        for (const last of all) {
          const { state } = addressInfo(ip(last), [pool], reserved);
          assert.equal(state === 'allocated', used.includes(last));
          assert.equal(state === 'free', free.includes(last));
          assert.equal(state === 'reserved', withheld.includes(last));
        }
      }),
    );
  });

  it('costs what the records cost, not what the subnet holds', () => {
    const pool = { metadata: { name: 'p' }, spec: { subnet: 'fd00::/64', ips: ['fd00::1-fd00::ffff:ffff:ffff:ffff'] } };
    const allocatedIPs = '{"fd00::5":{"pod":"d/p","podUid":"u"}}';
    const usage = poolUsage({ ...pool, status: { allocatedIPs } });
    assert.deepEqual(usage.free.map(formatIpRange), ['fd00::1-fd00::4', 'fd00::6-fd00::ffff:ffff:ffff:ffff']);
    assert.equal(usage.freeCount, 2n ** 64n - 2n);
  });

  it('tells what an address is that nobody can get', () => {
    const spec = { subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'], excludeIPs: ['10.0.0.2'], gateway: '10.0.0.254' };
    const pools = [{ metadata: { name: 'p' }, spec }];
    const stateOf = (last: number): string => addressInfo(ip(last), pools, [rangeOf(3, 3)]).state;
    assert.deepEqual([2, 3, 4, 254, 100, 300].map(stateOf), [
      ...['excluded', 'reserved', 'free', 'gateway', 'not pooled', 'unknown'],
    ]);
  });
});
