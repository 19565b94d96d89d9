/** A cgroup of this test's own, with processes of its own. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Cgroup } from './cgroup.ts';
import { Errno, isErrno } from './errno.ts';

describe('cgroup', () => {
  let group: Cgroup;
  let children: ChildProcess[] = [];

  beforeEach(() => {
    group = Cgroup.named(`sluice-test-${randomBytes(4).toString('hex')}`);
    children = [];
  });

  afterEach(async () => {
    group.kill();
    await Promise.all(children.map(exited));
    group.remove();
    assert.equal(existsSync(group.path), false);
  });

  function sleeper(): ChildProcess & { pid: number } {
    const child = spawn('sleep', ['300'], { stdio: 'ignore' });
    children.push(child);
    assert.ok(child.pid !== undefined);
    return child as ChildProcess & { pid: number };
  }

  async function exited(child: ChildProcess): Promise<void> {
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  it('kills what is in it and below it, and nothing else', async () => {
    const [inside, below, outside] = [sleeper(), sleeper(), sleeper()];
    group.create();
    group.create();
    group.child('pod').create();
    group.addProcess(inside.pid);
    group.child('pod').addProcess(below.pid);
    assert.deepEqual(group.processes(), [inside.pid]);
    assert.deepEqual(group.processes({ recursive: true }).sort(), [inside.pid, below.pid].sort());
    assert.throws(
      () => {
        group.remove();
      },
      (error: unknown) => isErrno(error, Errno.EBUSY),
    );

    group.kill();
    await Promise.all([inside, below].map(exited));
    assert.deepEqual([inside.signalCode, below.signalCode, outside.signalCode], ['SIGKILL', 'SIGKILL', null]);
    assert.ok(group.isEmpty());
    outside.kill('SIGKILL');
  });

  it('is empty, killable and removable when it does not exist', () => {
    assert.equal(group.exists(), false);
    assert.deepEqual(group.processes({ recursive: true }), []);
    group.kill();
    group.remove();
    assert.ok(group.isEmpty());
  });
});
