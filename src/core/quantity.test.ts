import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from './property.ts';
import { parseQuantity } from './quantity.ts';

describe('parseQuantity', () => {
  const rows: [text: string, value: bigint | undefined][] = [
    ['0', 0n],
    ['100M', 100_000_000n],
    ['10Mi', 10_485_760n],
    ['1.5k', 1500n],
    ['1500m', 2n],
    ['1n', 1n],
    ['-1500m', -2n],
    ['+5', 5n],
    ['1e3', 1000n],
    ['1E3', 1000n],
    ['1E', 1_000_000_000_000_000_000n],
    ['12e-1', 2n],
    ['.5Gi', 536_870_912n],
    ['1.', 1n],
    ['2Ei', 2_305_843_009_213_693_952n],
    ['', undefined],
    ['.', undefined],
    ['M', undefined],
    ['100K', undefined],
    ['100 M', undefined],
    ['100Mb', undefined],
    ['1e', undefined],
    ['1e999999999', undefined],
    ['0x10', undefined],
    ['--1', undefined],
    ['1.2.3', undefined],
    ['NaN', undefined],
    ['9'.repeat(41), undefined],
  ];
  for (const [text, value] of rows) {
    it(`${JSON.stringify(text)} → ${value}`, () => assert.equal(parseQuantity(text), value));
  }

  it('rounds up and never by one or more', () => {
    check(
      fc.property(fc.nat(1_000_000), fc.constantFrom('m', 'u', 'n'), (number, suffix) => {
        const unit = { m: 1000n, u: 1_000_000n, n: 1_000_000_000n }[suffix] ?? 1n;
        const value = parseQuantity(`${number}${suffix}`) ?? -1n;
        assert.ok(value * unit >= BigInt(number) && (value - 1n) * unit < BigInt(number));
      }),
    );
  });
});
