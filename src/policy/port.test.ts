import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from '../core/property.ts';
import { portPrefixes } from './port.ts';

describe('portPrefixes', () => {
  const rows: [first: number, last: number, prefixes: string][] = [
    [80, 80, '80/16'],
    [0, 65535, '0/0'],
    [1, 65535, '1/16 2/15 4/14 8/13 16/12 32/11 64/10 128/9 256/8 512/7 1024/6 2048/5 4096/4 8192/3 16384/2 32768/1'],
    [32768, 65535, '32768/1'],
    [5, 8, '5/16 6/15 8/16'],
  ];
  for (const [first, last, prefixes] of rows) {
    it(`${first}-${last}`, () =>
      assert.equal(
        portPrefixes(first, last)
          .map((p) => `${p.port}/${p.portPrefixLen}`)
          .join(' '),
        prefixes,
      ));
  }

  it('cover exactly the range, once, aligned, with at most 30 blocks', () => {
    const range = fc.tuple(fc.integer({ min: 1, max: 65535 }), fc.integer({ min: 1, max: 65535 }));
    check(
      fc.property(range, ([a, b]) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)];
        let next = first;
        for (const { port, portPrefixLen } of portPrefixes(first, last)) {
          assert.equal(port, next);
          assert.equal(port % 2 ** (16 - portPrefixLen), 0);
          next = port + 2 ** (16 - portPrefixLen);
        }
        assert.equal(next, last + 1);
        assert.ok(portPrefixes(first, last).length <= 30);
      }),
    );
  });
});
