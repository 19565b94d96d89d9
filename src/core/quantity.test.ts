import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from './property.ts';
import { parseQuantity } from './quantity.ts';

describe('parseQuantity', () => {
  /** Text and what Kubernetes reads: resource.ParseQuantity(text).Value() of k8s.io/apimachinery 0.31, written by it. */
  const rows: [text: string, value: bigint | undefined][] = [
    ['100M', 100_000_000n],
    ['1.5G', 1_500_000_000n],
    ['10Mi', 10_485_760n],
    ['1e6', 1_000_000n],
    ['0.5k', 500n],
    ['100m', 1n],
    ['+1', 1n],
    ['1E', 1_000_000_000_000_000_000n],
    [' 1k', undefined],
    ['1k ', undefined],
    ['1 k', undefined],
    ['', undefined],
    ['1k', 1_000n],
    ['999', 999n],
    ['999.0001', 1_000n],
    ['1P', 1_000_000_000_000_000n],
    ['1000T', 1_000_000_000_000_000n],
    ['1000.0000001T', 1_000_000_000_100_000n],
    ['1Pi', 1_125_899_906_842_624n],
    ['1e15', 1_000_000_000_000_000n],
    ['1E15', 1_000_000_000_000_000n],
    ['1e+3', 1_000n],
    ['1e-3', 1n],
    ['1.e3', 1_000n],
    ['.5M', 500_000n],
    ['00100M', 100_000_000n],
    ['1K', undefined],
    ['1ki', undefined],
    ['1KI', undefined],
    ['1MB', undefined],
    ['100Mbit', undefined],
    ['100Mbps', undefined],
    ['1_000k', undefined],
    ['1,5M', undefined],
    ['0x64k', undefined],
    ['1e', undefined],
    ['1e3k', undefined],
    ['--1k', undefined],
    ['-1k', -1_000n],
    ['-100m', -1n],
    ['inf', undefined],
    ['NaN', undefined],
    ['1000500m', 1_001n],
    ['2.0000000001k', 2_001n],
    ['1.2.3M', undefined],
    ['1e3.5', undefined],
    ['0.000000001P', 1_000_000n],
    ['8Ei', 9_223_372_036_854_775_807n],
    ['0', 0n],
    ['0k', 0n],
    ['1u', 1n],
    ['1000000u', 1n],
    ['2.5Ki', 2_560n],
    ['12e-1', 2n],
    ['1500m', 2n],
    ['-1500m', -2n],
    ['2Ei', 2_305_843_009_213_693_952n],
  ];
  for (const [text, value] of rows) {
    it(`${JSON.stringify(text)} → ${value}`, () => assert.equal(parseQuantity(text), value));
  }

  it('needs a digit, which Kubernetes does only where it cannot do without', () => {
    for (const text of ['M', '.', '+', 'Ei']) assert.equal(parseQuantity(text), undefined);
  });

  it('takes the largest quantity for anything larger, however long it is', () => {
    for (const text of ['9'.repeat(100_000), '1e999999999', '100E']) assert.equal(parseQuantity(text), 2n ** 63n - 1n);
    assert.equal(parseQuantity('1e-999999999'), 1n);
    assert.equal(parseQuantity(`1.${'0'.repeat(100_000)}1`), 2n);
    assert.equal(parseQuantity(`${'0'.repeat(100_000)}1`), 1n);
  });

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
