/**
 * The virtual machine that a lab lives in: it outlives its starter, offers one port of the guest on the host's loopback,
 * and runs jobs. Everything it needs to be found and ended again is in DIR/vm:
 *   vm.json       what startLabVm returned
 *   qemu.pid      written by QEMU itself, so that a starter killed half way leaves a trace too
 *   share/        the one directory the guest may write: jobs and their output, the kubeconfig
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../core/clock.ts';
import { SluiceError } from '../../core/error.ts';
import { freePort } from '../free-port.ts';
import { identifyProcess, isAlive, signalProcess, type ProcessId } from '../process.ts';
import { serveJobsScript } from './guest-main.ts';
import { runInitramfs, type GuestMount } from './initramfs.ts';
import { prepareKernelKit, type KernelKit } from './kernel-kit.ts';
import { guestAddress, qemuArguments } from './qemu.ts';

export interface LabVm {
  readonly process: ProcessId;
  /** Port on the host's 127.0.0.1 that leads to guestPort in the guest. */
  readonly hostPort: number;
  readonly guestPort: number;
  /** Seen at the same path on both sides. */
  readonly shareDir: string;
  readonly kernelPackage: string;
  readonly release: string;
}

export interface LabVmOptions {
  /** The lab's directory, absolute; made if missing. */
  readonly dir: string;
  readonly cacheDir: string;
  readonly guestPort: number;
  /** Default: any free port. */
  readonly hostPort?: number;
  /** Read-only directories that the guest's own /tmp and /run must not hide, for example the checkout. */
  readonly visibleDirs?: readonly string[];
  /** A Debian kernel package or a series; see KernelKitOptions. */
  readonly kernel?: string | undefined;
  readonly memoryMb?: number;
  readonly clock: Clock;
  readonly onProgress?: (line: string) => void;
}

/** Six Node processes and the pods' overlay. */
const labMemoryMb = 4096;
const bootTimeoutMs = 180_000;
const pollMs = 50;

/** Boots and waits until jobs can be run. Throws `lab_conflict` when one runs already in the same directory. */
export async function startLabVm(options: LabVmOptions): Promise<LabVm> {
  const running = readLabVm(options.dir);
  if (running !== undefined) throw alreadyRunning(options.dir, running);
  stopLabVm(options.dir);
  const { cacheDir, kernel, clock, onProgress } = options;
  const kit = await prepareKernelKit({ cacheDir, kernel, clock, onProgress });
  onProgress?.(`booting ${kit.release}`);
  try {
    const vm = await bootLabVm(options, kit);
    await waitForBoot(options, vm);
    return vm;
  } catch (error) {
    stopLabVm(options.dir);
    throw error;
  }
}

/** The machine of this directory, or undefined when none runs there. */
export function readLabVm(dir: string): LabVm | undefined {
  const path = join(dir, 'vm', 'vm.json');
  if (!existsSync(path)) return undefined;
  const vm = JSON.parse(readFileSync(path, 'utf8')) as LabVm;
  return isAlive(vm.process) ? vm : undefined;
}

/** Ends the machine and removes its files. Idempotent. */
export function stopLabVm(dir: string): void {
  const qemu = qemuProcess(dir);
  if (qemu !== undefined) {
    signalProcess(qemu, 'SIGKILL');
    waitUntilDead(qemu);
  }
  rmSync(join(dir, 'vm'), { recursive: true, force: true });
}

async function bootLabVm(options: LabVmOptions, kit: KernelKit): Promise<LabVm> {
  const vmDir = join(options.dir, 'vm');
  mkdirSync(join(vmDir, 'share', 'jobs'), { recursive: true, mode: 0o700 });
  const shareDir = realpathSync(join(vmDir, 'share'));
  const hostPort = options.hostPort ?? (await freePort());
  const visible: GuestMount[] = (options.visibleDirs ?? []).map((path) => ({ path: realpathSync(path), mode: 'ro' }));
  const mounts: GuestMount[] = [...visible, { path: shareDir, mode: 'rw' }];
  const main = serveJobsScript(shareDir, {});
  const setup = { modulesPath: realpathSync(kit.modulesPath), release: kit.release, mounts, main };
  writeFileSync(join(vmDir, 'initramfs'), Buffer.concat([readFileSync(kit.initramfsPath), runInitramfs(setup)]));
  const args = qemuArguments({
    kernelPath: kit.kernelPath,
    initramfsPath: join(vmDir, 'initramfs'),
    memoryMb: options.memoryMb ?? labMemoryMb,
    mounts,
    serial: 'file,path=serial.log',
    ports: [],
    hostForward: `tcp:127.0.0.1:${hostPort}-${guestAddress}:${options.guestPort}`,
  });
  startDaemon(kit, vmDir, args);
  const vm = describe(vmDir, { hostPort, guestPort: options.guestPort, shareDir, kit });
  writeFileSync(join(vmDir, 'vm.json'), JSON.stringify(vm, undefined, 2));
  return vm;
}

/** Relative paths, because QEMU parses commas in option values; it resolves them before it turns into a daemon. */
function startDaemon(kit: KernelKit, cwd: string, args: readonly string[]): void {
  const qemu = kit.programs['qemu-system-x86_64'];
  const daemon = ['-name', 'sluice-lab', '-daemonize', '-pidfile', 'qemu.pid'];
  const result = spawnSync(qemu, [...args, ...daemon], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  if (result.status !== 0) throw failure('start', cwd, result.stderr.trim() || String(result.error));
}

function describe(
  vmDir: string,
  parts: { readonly hostPort: number; readonly guestPort: number; readonly shareDir: string; readonly kit: KernelKit },
): LabVm {
  const pid = Number(readFileSync(join(vmDir, 'qemu.pid'), 'utf8'));
  const process = identifyProcess(pid);
  if (process === undefined) throw failure('start', vmDir, `QEMU ended at once: ${serialTail(vmDir)}`);
  const { hostPort, guestPort, shareDir, kit } = parts;
  return { process, hostPort, guestPort, shareDir, kernelPackage: kit.packageName, release: kit.release };
}

async function waitForBoot(options: LabVmOptions, vm: LabVm): Promise<void> {
  const deadline = options.clock.monotonicMs() + bootTimeoutMs;
  while (!existsSync(join(vm.shareDir, 'booted'))) {
    const dead = !isAlive(vm.process);
    if (dead || options.clock.monotonicMs() > deadline) {
      const what = dead ? 'it ended' : `no sign after ${bootTimeoutMs / 1000} s`;
      throw failure('boot', options.dir, `${what}; its last messages:\n${serialTail(join(options.dir, 'vm'))}`);
    }
    await options.clock.sleep(pollMs);
  }
  rmSync(join(options.dir, 'vm', 'initramfs'), { force: true });
}

function serialTail(vmDir: string): string {
  const path = join(vmDir, 'serial.log');
  return existsSync(path) ? readFileSync(path, 'utf8').slice(-4096) : '';
}

/** From vm.json, or, when the starter was killed before it wrote that, from QEMU's own pid file. */
function qemuProcess(dir: string): ProcessId | undefined {
  const running = readLabVm(dir);
  if (running !== undefined) return running.process;
  const pidFile = join(dir, 'vm', 'qemu.pid');
  if (!existsSync(pidFile)) return undefined;
  const candidate = identifyProcess(Number(readFileSync(pidFile, 'utf8')));
  return candidate !== undefined && isOurQemu(candidate.pid, join(dir, 'vm')) ? candidate : undefined;
}

function isOurQemu(pid: number, vmDir: string): boolean {
  const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  return commandLine.includes('\0sluice-lab\0') && commandLine.includes(realpathSync(vmDir));
}

function waitUntilDead(process: ProcessId): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let waitedMs = 0; isAlive(process) && waitedMs < 5000; waitedMs += 20) Atomics.wait(pause, 0, 0, 20);
}

function alreadyRunning(dir: string, vm: LabVm): SluiceError {
  return new SluiceError({
    code: 'lab_conflict',
    operation: 'start the virtual machine of',
    object: dir,
    what: `one runs already (pid ${vm.process.pid})`,
    remedy: 'sluice lab down',
  });
}

function failure(operation: string, dir: string, what: string): SluiceError {
  return new SluiceError({ code: 'vm_failed', operation: `${operation} the virtual machine of`, object: dir, what });
}
