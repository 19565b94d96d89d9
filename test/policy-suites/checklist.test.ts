/** Every row of the checklist has tests that exist, and a paragraph in the reference. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { packageRoot } from '../../src/kernel/package-root.ts';
import { checklist } from './checklist.ts';

const read = (file: string): string => readFileSync(join(packageRoot(), file), 'utf8');

describe('the checklist', () => {
  it('has 25 rows', () => {
    assert.deepEqual(
      checklist.map(({ row }) => row),
      Array.from({ length: 25 }, (_, index) => index + 1),
    );
  });

  for (const { row, title, proofs } of checklist) {
    it(`row ${row}, ${title}: its ${proofs.length} tests are there`, () => {
      assert.ok(proofs.length > 0);
      for (const [file, test] of proofs) assert.ok(read(file).includes(test), `${file} has no test "${test}"`);
    });
  }

  it('is explained row by row in docs/reference/network-policy.md', () => {
    const headings = [...read('docs/reference/network-policy.md').matchAll(/^### (\d+)\. (.+)$/gm)];
    assert.deepEqual(
      headings.map(([, number]) => Number(number)),
      checklist.map(({ row }) => row),
    );
  });
});
