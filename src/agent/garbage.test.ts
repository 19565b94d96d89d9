import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Collects as the agent does, and prints how many collections of the young generation V8 made of it. */
const program = `
import { PerformanceObserver, constants } from 'node:perf_hooks';
import { collectYoungGarbage } from ${JSON.stringify(fileURLToPath(new URL('./garbage.ts', import.meta.url)))};
let minor = 0;
new PerformanceObserver((list) => {
  for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MINOR) minor++;
}).observe({ entryTypes: ['gc'] });
await new Promise((resolve) => setTimeout(resolve, 50));
minor = 0;
for (let i = 0; i < 5; i++) {
  collectYoungGarbage();
  await new Promise((resolve) => setTimeout(resolve, 10));
}
// The observer is told in the turn of the event loop after the collection.
await new Promise((resolve) => setTimeout(resolve, 10));
console.log(minor);
`;

function collections(flags: readonly string[]): number {
  const args = [...flags, '--import', 'tsx', '--input-type=module', '--eval', program];
  return Number(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

describe('the garbage of a run', () => {
  it('is collected when V8 may be told to, and left to it otherwise', () => {
    assert.ok(collections(['--expose-gc']) >= 5);
    assert.ok(collections([]) < 5);
  });
});
