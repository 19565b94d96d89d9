/**
 * CPU time of a measured traffic: of the programs that send and receive, and of the kernel. What other processes used meanwhile is
 * taken off, so that a busy machine does little harm; what remains of them is softirq work that interrupted them.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
/** include/linux/sched.h */
const PF_KTHREAD = 0x0020_0000;

/** Seconds since some moment, of the kernel and of the processes `own`. */
export function trafficCpuSeconds(own: readonly (number | undefined)[]): number {
  const elsewhere = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && !own.includes(Number(name)))
    .reduce((sum, pid) => sum + processTicks(pid), 0);
  return busyCpuSeconds() - elsewhere / ticksPerSecond;
}

/** Since some moment, of all CPUs: all but idle, iowait and steal (proc(5), /proc/stat): the kernel measures these, while it only samples the others. */
export function busyCpuSeconds(): number {
  const lines = readFileSync('/proc/stat', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('cpu'));
  const fields = lines[0]?.split(/\s+/).slice(1).map(Number) ?? [];
  const idleTicks = [3, 4, 7].reduce((sum, index) => sum + (fields[index] ?? 0), 0);
  return (performance.now() / 1000) * (lines.length - 1) - idleTicks / ticksPerSecond;
}

/** With what its children used that have ended. A kernel thread works for everybody. */
function processTicks(pid: string): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = text
      .slice(text.lastIndexOf(')') + 2)
      .split(' ')
      .map(Number);
    if (((fields[6] ?? 0) & PF_KTHREAD) !== 0) return 0;
    return fields.slice(11, 15).reduce((sum, ticks) => sum + ticks, 0);
  } catch {
    return 0; // It has ended: its parent has its ticks.
  }
}
