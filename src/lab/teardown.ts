import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError } from '../core/error.ts';
import type { Cgroup } from '../kernel/cgroup.ts';

/** SIGKILL takes effect when a process next leaves the kernel; on an emulated CPU that may take a while. */
const killTimeoutMs = 30_000;

/** Kills everything in the cgroup and removes it; resolves when it is gone. */
export async function killCgroup(cgroup: Cgroup): Promise<void> {
  const deadline = performance.now() + killTimeoutMs;
  for (let pauseMs = 2; cgroup.exists(); pauseMs = Math.min(pauseMs * 2, 100)) {
    cgroup.kill();
    if (tryRemove(cgroup)) return;
    if (performance.now() > deadline) throw stillThere(cgroup);
    await delay(pauseMs);
  }
}

/** False while killed processes have not left yet (EBUSY). */
function tryRemove(cgroup: Cgroup): boolean {
  if (!cgroup.isEmpty()) return false;
  try {
    cgroup.remove();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false;
    throw error;
  }
}

function stillThere(cgroup: Cgroup): SluiceError {
  return new SluiceError({
    code: 'timeout',
    operation: 'remove cgroup',
    object: cgroup.path,
    what: `processes ${cgroup.processes({ recursive: true }).join(', ')} did not end within ${killTimeoutMs} ms`,
  });
}
