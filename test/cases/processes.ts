/** The processes of the bed's lab, and what it is like when they are killed. */
import assert from 'node:assert/strict';
import { labStatus } from '../../src/lab/lifecycle/status.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import type { Bed } from './bed.ts';

const patience = { timeoutMs: 180_000 };

export async function processes(bed: Bed, name: RegExp): Promise<{ readonly name: string; readonly pid: number }[]> {
  const { processes: all } = await labStatus({ dir: bed.dir });
  return all.flatMap(({ name: own, pid }) => (name.test(own) && pid !== undefined ? [{ name: own, pid }] : []));
}

/** kill -9. Resolves when their successors run. */
export async function killAll(bed: Bed, name: RegExp): Promise<void> {
  const before = await processes(bed, name);
  assert.ok(before.length > 0, String(name));
  for (const { pid } of before) process.kill(pid, 'SIGKILL');
  const isBack = async (): Promise<boolean> => {
    const { processes: now } = await labStatus({ dir: bed.dir });
    return before.every((old) => now.some((own) => own.name === old.name && own.alive && own.pid !== old.pid));
  };
  await waitFor(`${String(name)} to run again`, isBack, patience);
}
