/** Processes named so that a recycled pid is never taken for the old process. */
import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessId {
  readonly pid: number;
  /** Clock ticks between boot and the start of the process: with the pid, unique until the next boot. */
  readonly startTicks: string;
}

interface ProcessStat {
  readonly state: string;
  readonly parentPid: number;
  readonly startTicks: string;
}

/** proc_pid_stat(5); undefined when there is no such process. */
function readStat(pid: number): ProcessStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The command (field 2) may contain blanks and parentheses: count from its last parenthesis.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', parentPid: Number(fields[1]), startTicks: fields[19] ?? '' };
}

export function identifyProcess(pid: number): ProcessId | undefined {
  const stat = readStat(pid);
  return stat === undefined ? undefined : { pid, startTicks: stat.startTicks };
}

/** A zombie counts as dead: it only waits to be reaped. */
export function isAlive(id: ProcessId): boolean {
  const stat = readStat(id.pid);
  return stat !== undefined && stat.startTicks === id.startTicks && stat.state !== 'Z' && stat.state !== 'X';
}

/** Sends a signal to exactly this process. False when it is gone. */
export function signalProcess(id: ProcessId, signal: NodeJS.Signals): boolean {
  if (!isAlive(id)) return false;
  try {
    process.kill(id.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Direct children, oldest first. */
export function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number);
  } catch {
    return scanForChildren(pid);
  }
}

/** For kernels without CONFIG_PROC_CHILDREN. */
function scanForChildren(pid: number): number[] {
  const pids = readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number);
  return pids.filter((candidate) => readStat(candidate)?.parentPid === pid).sort((a, b) => a - b);
}
