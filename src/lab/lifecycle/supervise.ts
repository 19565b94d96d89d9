/**
 * Keeps the lab's processes running: starts them, starts them again with growing pauses when they end, and adopts those that
 * run already after it was killed itself. Everything is in the lab's cgroup, so that killing the cgroup ends it all.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../core/log.ts';
import { Cgroup } from '../../kernel/cgroup.ts';
import { labLayout, type LabLayout } from '../layout.ts';
import { identifyProcess, isAlive, type ProcessId } from '../process.ts';
import { isControlPlaneReady } from './control-plane-ready.ts';
import { cliCommand } from './entry.ts';
import { controlPlaneSpec, memberSpecs, type ProcessSpec } from './process-specs.ts';
import { mustLabState, writeFileAtomically } from './state.ts';

export interface ProcessReport {
  readonly name: string;
  readonly process?: ProcessId;
  readonly restarts: number;
  readonly startedAt?: string;
  /** "exit status 1", "SIGKILL": of the last run that ended. */
  readonly lastExit?: string;
}

export interface SupervisorReport {
  readonly supervisor: ProcessId;
  readonly processes: readonly ProcessReport[];
}

const firstPauseMs = 500;
const maxPauseMs = 30_000;
/** A process that ran this long starts again at once. */
const healthyMs = 60_000;
const pollMs = 250;

export async function runSupervisor(options: {
  readonly dir: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const state = mustLabState(options.dir);
  const lab = labLayout(state);
  const cgroup = Cgroup.named(lab.cgroup);
  cgroup.create();
  cgroup.addProcess(process.pid);
  mkdirSync(lab.logsDir, { recursive: true });
  const before = readReport(lab);
  const board = new Board(lab);
  const run = (spec: ProcessSpec): Promise<void> =>
    keepRunning(spec, {
      lab,
      board,
      log: options.log,
      signal: options.signal,
      before: before?.processes.find((each) => each.name === spec.name),
    });
  const members = [run(controlPlaneSpec(lab))];
  while (!options.signal.aborted && !isControlPlaneReady(lab)) await delay(50);
  if (!options.signal.aborted) members.push(...memberSpecs(lab, state).map(run));
  await Promise.all(members);
}

/** What the supervisor wrote last; undefined before its first start. */
export function readReport(lab: LabLayout): SupervisorReport | undefined {
  try {
    return JSON.parse(readFileSync(lab.processesFile, 'utf8')) as SupervisorReport;
  } catch {
    return undefined;
  }
}

/** The table of processes, written to disk at every change. */
class Board {
  readonly #lab: LabLayout;
  readonly #self: ProcessId;
  readonly #reports = new Map<string, ProcessReport>();

  constructor(lab: LabLayout) {
    this.#lab = lab;
    this.#self = identifyProcess(process.pid) ?? { pid: process.pid, startTicks: '' };
  }

  set(report: ProcessReport): void {
    this.#reports.set(report.name, report);
    const whole: SupervisorReport = { supervisor: this.#self, processes: [...this.#reports.values()] };
    writeFileAtomically(this.#lab.processesFile, `${JSON.stringify(whole, undefined, 2)}\n`);
  }
}

interface Supervision {
  readonly lab: LabLayout;
  readonly board: Board;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly before: ProcessReport | undefined;
}

async function keepRunning(spec: ProcessSpec, supervision: Supervision): Promise<void> {
  const { board, log, signal, before } = supervision;
  let restarts = before?.restarts ?? 0;
  let pauseMs = firstPauseMs;
  let lastExit = before?.lastExit;
  let adopted = before?.process !== undefined && isAlive(before.process) ? before : undefined;
  while (!signal.aborted) {
    const begunMs = performance.now();
    const ended =
      adopted === undefined ? startProcess(spec, supervision.lab) : watchProcess(adopted.process, adopted.startedAt);
    board.set({ name: spec.name, process: ended.process, restarts, startedAt: ended.startedAt, lastExit });
    lastExit = await ended.exit;
    adopted = undefined;
    restarts++;
    if (performance.now() - begunMs > healthyMs) pauseMs = firstPauseMs;
    log.warn({ process: spec.name, lastExit, restartInMs: pauseMs }, 'a process of the lab ended');
    board.set({ name: spec.name, restarts, lastExit });
    await delay(pauseMs, undefined, { signal }).catch(() => undefined);
    pauseMs = Math.min(pauseMs * 2, maxPauseMs);
  }
}

interface Running {
  readonly process: ProcessId | undefined;
  readonly startedAt: string | undefined;
  readonly exit: Promise<string>;
}

function startProcess(spec: ProcessSpec, lab: LabLayout): Running {
  const line = [...(spec.netns === undefined ? [] : ['nsenter', `--net=${spec.netns}`]), ...cliCommand(), ...spec.args];
  const log = openSync(join(lab.logsDir, `${spec.name}.log`), 'a', 0o640);
  try {
    const [file = '', ...args] = line;
    const child = spawn(file, args, { detached: true, cwd: '/', stdio: ['ignore', log, log] });
    const exit = new Promise<string>((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('exit', (code, signal) => resolve(signal ?? `exit status ${code}`));
    });
    const id = child.pid === undefined ? undefined : identifyProcess(child.pid);
    return { process: id, startedAt: new Date().toISOString(), exit };
  } finally {
    closeSync(log);
  }
}

/** Not our child: its end can only be polled for. */
function watchProcess(id: ProcessId | undefined, startedAt: string | undefined): Running {
  const exit = (async () => {
    while (id !== undefined && isAlive(id)) await delay(pollMs);
    return 'ended (it was started by an earlier supervisor)';
  })();
  return { process: id, startedAt, exit };
}
