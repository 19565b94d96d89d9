/** `make demo`, as a new user runs it: every check of the walkthrough passes and the lab is gone afterwards. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { packageRoot } from '../../kernel/package-root.ts';

describe('the walkthrough', () => {
  it('on a native macvlan lab passes every check and leaves nothing behind', { timeout: 600_000 }, async () => {
    const id = await passes('macvlan');
    assertGone(id);
  });

  it('leaves nothing behind when it is stopped halfway', { timeout: 300_000 }, async () => {
    const { exitCode, output } = await runDemo('macvlan', (child, text) => {
      if (text.includes('deployment.apps/test created')) child.kill('SIGTERM');
    });
    assert.equal(exitCode, 1, output);
    assert.match(output, /sluice lab demo: received SIGTERM\n/);
    assertGone(labId(output));
  });

  // On a kernel without ipvlan this is the lab in the small virtual machine.
  it('on an ipvlan lab, the README’s first command, passes every check too', { timeout: 900_000 }, async () => {
    const before = virtualMachines();
    await passes('ipvlan');
    assert.deepEqual(
      virtualMachines().filter((pid) => !before.includes(pid)),
      [],
    );
  });
});

function assertGone(id: string): void {
  assert.deepEqual(
    readdirSync('/run/netns').filter((name) => name.startsWith(`sluice-${id}-`)),
    [],
  );
  assert.equal(existsSync(`/run/sluice-lab-${id}`), false);
}

function labId(output: string): string {
  const id = /sluice lab: lab ([0-9a-f]{6}) /.exec(output)?.[1];
  assert.ok(id !== undefined, `no lab was started:\n${output}`);
  return id;
}

/** The id of the lab that it ran on. */
async function passes(link: 'macvlan' | 'ipvlan'): Promise<string> {
  const { exitCode, output } = await runDemo(link);
  const id = labId(output);
  assert.match(output, /walkthrough: \d+ checks passed, 0 failed\n$/, output);
  assert.equal(exitCode, 0);
  return id;
}

/** Process ids of QEMUs that hold a demo's lab. */
function virtualMachines(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return commandLine.includes('sluice-lab') && commandLine.includes('/sluice-demo-');
    } catch {
      return false;
    }
  });
}

function runDemo(
  link: string,
  onOutput: (child: ChildProcess, text: string) => void = () => undefined,
): Promise<{ exitCode: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(join(packageRoot(), 'bin', 'sluice'), ['lab', 'demo', '--link', link], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let errors = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      onOutput(child, text);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
    child.on('error', reject);
    child.on('close', (exitCode) => resolve({ exitCode, output: `${errors}${output}` }));
  });
}
