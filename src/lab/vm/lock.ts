/**
 * A lock file for work that must happen once per machine. It names its holder (pid and start time), so a lock
 * whose holder was killed is taken over.
 */

import { closeSync, mkdirSync, openSync, readFileSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../../core/clock.ts';
import { SluiceError } from '../../core/error.ts';
import { identifyProcess, isAlive, type ProcessId } from '../process.ts';

const pollMs = 250;

/** Runs `work` while holding the lock at `path`; waits up to `timeoutMs` for another holder. */
export async function withLock<T>(
  path: string,
  options: { readonly clock: Clock; readonly timeoutMs: number },
  work: () => Promise<T>,
): Promise<T> {
  mkdirSync(dirname(path), { recursive: true });
  const deadline = options.clock.monotonicMs() + options.timeoutMs;
  while (!tryLock(path)) {
    dropDeadLock(path);
    if (options.clock.monotonicMs() > deadline) throw lockTimeout(path, options.timeoutMs);
    await options.clock.sleep(pollMs);
  }
  try {
    return await work();
  } finally {
    unlinkSync(path);
  }
}

function tryLock(path: string): boolean {
  let fd: number;
  try {
    fd = openSync(path, 'wx', 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
  writeSync(fd, JSON.stringify(identifyProcess(process.pid)));
  closeSync(fd);
  return true;
}

/** Two waiters may both see the dead holder: the rename lets only one of them take the file away. */
function dropDeadLock(path: string): void {
  try {
    const holder = readFileSync(path, 'utf8');
    if (holder === '' || isAlive(JSON.parse(holder) as ProcessId)) return;
    const mine = `${path}.${process.pid}`;
    renameSync(path, mine);
    if (readFileSync(mine, 'utf8') === holder) unlinkSync(mine);
    else renameSync(mine, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function lockTimeout(path: string, timeoutMs: number): SluiceError {
  return new SluiceError({
    code: 'timeout',
    operation: 'take the lock',
    object: path,
    what: `another process still holds it after ${timeoutMs / 1000} s`,
    remedy: 'wait for the other process, or remove the file if no such process exists',
  });
}
