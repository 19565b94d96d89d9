/** `make demo LINK=macvlan`, as a new user runs it: every check of the walkthrough passes and the lab is gone afterwards. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { packageRoot } from '../../kernel/package-root.ts';

describe('the walkthrough on a native macvlan lab', () => {
  it('passes every check, measured on packets, and leaves nothing behind', { timeout: 600_000 }, async () => {
    const { exitCode, output } = await runDemo();
    const id = /sluice lab: lab ([0-9a-f]{6}) /.exec(output)?.[1];
    assert.ok(id !== undefined, `no lab was started:\n${output}`);
    assert.match(output, /walkthrough: \d+ checks passed, 0 failed\n$/, output);
    assert.equal(exitCode, 0);
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(`sluice-${id}-`)),
      [],
    );
    assert.equal(existsSync(`/run/sluice-lab-${id}`), false);
  });
});

function runDemo(): Promise<{ exitCode: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(join(packageRoot(), 'bin', 'sluice'), ['lab', 'demo', '--link', 'macvlan'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    child.on('error', reject);
    child.on('close', (exitCode) => resolve({ exitCode, output: `${errors}${output}` }));
  });
}
