import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  formatIpRange,
  mergeRanges,
  parseIpRange,
  rangeContains,
  rangeSize,
  subtractRanges,
  type IpRange,
} from './ip-range.ts';
import type { IpAddress, IpFamily } from './ip.ts';
import { check } from './property.ts';

const range = fc
  .tuple(fc.constantFrom<IpFamily>(4, 6), fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 12 }))
  .map(([family, first, more]): IpRange => ({
    first: { family, value: BigInt(first) },
    last: { family, value: BigInt(first + more) },
  }));
const ranges = fc.array(range, { maxLength: 8 });

/** The oracle: the set of addresses, one by one. */
function addresses(list: readonly IpRange[]): Set<string> {
  const all = new Set<string>();
  for (const { first, last } of list) {
    for (let value = first.value; value <= last.value; value++) all.add(`${first.family}/${value}`);
  }
  return all;
}

describe('parseIpRange', () => {
  const rows: [text: string, printed: string | undefined, size: bigint][] = [
    ['172.51.0.100-172.51.0.108', '172.51.0.100-172.51.0.108', 9n],
    ['172.51.0.100', '172.51.0.100', 1n],
    ['10.0.0.1-10.0.0.1', '10.0.0.1', 1n],
    ['fd00::-fd00::ffff:ffff:ffff:ffff', 'fd00::-fd00::ffff:ffff:ffff:ffff', 1n << 64n],
    ['10.0.0.2-10.0.0.1', undefined, 0n],
    ['10.0.0.1-::2', undefined, 0n],
    ['10.0.0.1-10.0.0.2-10.0.0.3', undefined, 0n],
    ['10.0.0.1-', undefined, 0n],
    ['10.0.0.0/24', undefined, 0n],
  ];
  for (const [text, printed, size] of rows) {
    it(`${text} → ${printed ?? 'refused'}`, () => {
      const parsed = parseIpRange(text);
      assert.equal(parsed && formatIpRange(parsed), printed);
      if (parsed !== undefined) assert.equal(rangeSize(parsed), size);
    });
  }
});

describe('sets of ranges, against sets of addresses', () => {
  it('merging keeps the addresses and leaves no two ranges that touch', () => {
    check(
      fc.property(ranges, (list) => {
        const merged = mergeRanges(list);
        assert.deepEqual(addresses(merged), addresses(list));
        for (const [index, next] of merged.entries()) {
          const before = merged[index - 1];
          if (before?.first.family === next.first.family) assert.ok(before.last.value + 1n < next.first.value);
        }
      }),
    );
  });

  it('subtracting removes exactly those', () => {
    check(
      fc.property(ranges, ranges, (from, remove) => {
        const removed = addresses(remove);
        const expected = [...addresses(from)].filter((address) => !removed.has(address));
        assert.deepEqual([...addresses(subtractRanges(from, remove))].sort(), expected.sort());
      }),
    );
  });

  it('contains exactly its addresses', () => {
    check(
      fc.property(range, fc.constantFrom<IpFamily>(4, 6), fc.integer({ min: 0, max: 80 }), (one, family, value) => {
        const ip: IpAddress = { family, value: BigInt(value) };
        assert.equal(rangeContains(one, ip), addresses([one]).has(`${family}/${value}`));
      }),
    );
  });
});
