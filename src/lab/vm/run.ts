/** Runs one command in a fresh virtual machine. Nothing of a run is on the host's disk: when its starter dies, everything is gone. */

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync, realpathSync, unlinkSync, writeSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { systemClock, type Clock } from '../../core/clock.ts';
import { SluiceError } from '../../core/error.ts';
import { ports, runOnceScript } from './guest-main.ts';
import { runInitramfs, type GuestMount } from './initramfs.ts';
import { prepareKernelKit, type KernelKit } from './kernel-kit.ts';
import { qemuArguments } from './qemu.ts';

export interface VmRunOptions {
  readonly command: readonly string[];
  /** Kernels are kept here between runs, for example ~/.cache/sluice/vm. */
  readonly cacheDir: string;
  /** Mounted read-write at the same path in the guest. */
  readonly sharedDir?: string | undefined;
  /** Read-only directories the command needs although the guest's own /tmp and /run would hide them. */
  readonly visibleDirs?: readonly string[];
  /** Working directory; default: sharedDir or /. */
  readonly cwd?: string | undefined;
  /** Added to PATH, HOME, TERM, LANG and SLUICE_VM=1; nothing of the host's environment is passed on. */
  readonly env?: Readonly<Record<string, string>>;
  /** A Debian kernel package or a series; see KernelKitOptions. */
  readonly kernel?: string | undefined;
  readonly timeoutMs: number;
  readonly memoryMb?: number;
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
  readonly onStdout?: (chunk: Buffer) => void;
  readonly onStderr?: (chunk: Buffer) => void;
  readonly onProgress?: (line: string) => void;
}

export const defaultMemoryMb = 2048;
const serialTailBytes = 8192;

/**
 * Resolves with the command's exit status. Throws `timeout` when it took longer than timeoutMs, boot included,
 * `cancelled` when the signal was aborted, `vm_failed` when the machine did not boot or died.
 */
export async function runInVm(options: VmRunOptions): Promise<number> {
  const { cacheDir, kernel, clock = systemClock, onProgress } = options;
  const kit = await prepareKernelKit({ cacheDir, kernel, clock, onProgress });
  options.signal?.throwIfAborted();
  const mounts = guestMounts(options);
  const main = runOnceScript({
    command: options.command,
    cwd: options.cwd ?? options.sharedDir ?? '/',
    env: options.env ?? {},
  });
  const qemu = startQemu(kit, main, mounts, options.memoryMb ?? defaultMemoryMb);
  return superviseQemu(qemu, options);
}

function guestMounts(options: VmRunOptions): GuestMount[] {
  const { sharedDir, visibleDirs = [] } = options;
  const visible: GuestMount[] = visibleDirs.map((path) => ({ path: realpathSync(path), mode: 'ro' }));
  return sharedDir === undefined ? visible : [...visible, { path: realpathSync(sharedDir), mode: 'rw' }];
}

/** Descriptors of the child from 3 on: the initramfs, then one socket per virtio port. */
const initramfsFd = 3;
const portNames = [ports.control, ports.stdout, ports.stderr];

function startQemu(kit: KernelKit, main: string, mounts: readonly GuestMount[], memoryMb: number): ChildProcess {
  const { modulesPath, release } = kit;
  const initramfs = openUnlinked([
    readFileSync(kit.initramfsPath),
    runInitramfs({ modulesPath: realpathSync(modulesPath), release, mounts, main }),
  ]);
  try {
    const args = qemuArguments({
      kernelPath: kit.kernelPath,
      initramfsPath: `/proc/self/fd/${initramfsFd}`,
      memoryMb,
      mounts,
      serial: 'stdio,signal=off',
      ports: portNames.map((name, index) => ({ name, chardev: `socket,fd=${initramfsFd + 1 + index}` })),
    });
    const stdio = ['ignore', 'pipe', 'pipe', initramfs, ...portNames.map(() => 'pipe' as const)] as const;
    return spawn(kit.programs['qemu-system-x86_64'], args, { stdio: [...stdio] });
  } finally {
    closeSync(initramfs);
  }
}

/** A temporary file without a name: it vanishes with the last process that holds it. */
function openUnlinked(parts: readonly Uint8Array[]): number {
  const path = join(tmpdir(), `sluice-vm-${randomBytes(8).toString('hex')}`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  for (const part of parts) writeSync(fd, part);
  return fd;
}

async function superviseQemu(qemu: ChildProcess, options: VmRunOptions): Promise<number> {
  const tail = keepTail([qemu.stdout, qemu.stderr]);
  const [control, stdout, stderr] = [4, 5, 6].map((fd) => qemu.stdio[fd] as Readable);
  stdout?.on('data', options.onStdout ?? (() => undefined));
  stderr?.on('data', options.onStderr ?? (() => undefined));
  let reason: 'timeout' | 'cancelled' | undefined;
  const kill = (why: 'timeout' | 'cancelled') => (): void => {
    reason ??= why;
    qemu.kill('SIGKILL');
  };
  const timer = setTimeout(kill('timeout'), options.timeoutMs);
  const onAbort = kill('cancelled');
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const lines = readLines(control, (line) => {
      if (line.startsWith('exit ')) qemu.kill('SIGKILL');
    });
    await exited(qemu);
    if (reason !== undefined) throw stopped(reason, options);
    return exitStatus(lines, tail());
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

function exitStatus(lines: readonly string[], serialTail: string): number {
  const last = lines.find((line) => line.startsWith('exit '));
  if (last !== undefined) return Number(last.slice('exit '.length));
  throw new SluiceError({
    code: 'vm_failed',
    operation: 'run a command in',
    object: 'the virtual machine',
    what: `it ${lines.includes('booted') ? 'ended without an exit status' : 'did not boot'}; its last messages:\n${serialTail}`,
  });
}

function stopped(code: 'timeout' | 'cancelled', options: VmRunOptions): SluiceError {
  return new SluiceError({
    code,
    operation: 'run in the virtual machine',
    object: options.command.join(' '),
    what: code === 'timeout' ? `no end after ${options.timeoutMs / 1000} s` : 'stopped by its caller',
  });
}

/** Resolves when the process has ended and its pipes are read to the end. */
function exited(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve());
  });
}

function readLines(stream: Readable | undefined, onLine: (line: string) => void): readonly string[] {
  const lines: string[] = [];
  let rest = '';
  stream?.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString('utf8')).split('\n');
    rest = parts.pop() ?? '';
    for (const line of parts) {
      lines.push(line);
      onLine(line);
    }
  });
  return lines;
}

function keepTail(streams: readonly (Readable | null)[]): () => string {
  let tail = '';
  for (const stream of streams) {
    stream?.on('data', (chunk: Buffer) => {
      tail = (tail + chunk.toString('utf8')).slice(-serialTailBytes);
    });
  }
  return () => tail;
}
