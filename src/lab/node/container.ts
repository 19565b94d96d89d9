/**
 * Container processes. Three per container: a shell that waits and writes the exit code to a file (so that a kubelet that was
 * killed learns it later), `nsenter`, and the command itself, the last two in a cgroup of their own.
 */
import { spawn } from 'node:child_process';
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { Cgroup } from '../../kernel/cgroup.ts';
import { SluiceError } from '../../core/error.ts';
import { childrenOf, identifyProcess, type ProcessId } from '../process.ts';
import type { SandboxRecord } from './pod-record.ts';

export interface BindMount {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

export interface ContainerFiles {
  /** FIFOs the container writes to, and the file its exit code appears in. */
  readonly stdout: string;
  readonly stderr: string;
  readonly exitFile: string;
}

export interface ContainerStart {
  readonly sandbox: SandboxRecord;
  readonly cgroup: Cgroup;
  readonly files: ContainerFiles;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir?: string;
  readonly mounts: readonly BindMount[];
}

/** $0 = file for the exit code, $1 = cgroup, the rest = the command line. The subshell moves, the waiter stays outside. */
const waiterScript = `
exit_file=$0; cgroup=$1; shift
(echo 0 > "$cgroup/cgroup.procs" && exec "$@")
echo $? > "$exit_file.new"; mv "$exit_file.new" "$exit_file"
`;

/** In the container's own mount namespace: SOURCE TARGET ro|rw triples, then "--" and the command line. */
const mountScript = `
while [ "$1" != -- ]; do
  mount --bind "$1" "$2" || exit 128
  [ "$3" = rw ] || mount -o remount,bind,ro "$2" || exit 128
  shift 3
done
shift
[ -z "$SLUICE_WORKDIR" ] || cd "$SLUICE_WORKDIR" || exit 128
unset SLUICE_WORKDIR
exec "$@"
`;

export async function makeContainerFiles(files: ContainerFiles): Promise<void> {
  mkdirSync(dirname(files.stdout), { recursive: true, mode: 0o700 });
  mkdirSync(dirname(files.exitFile), { recursive: true, mode: 0o700 });
  rmSync(files.exitFile, { force: true });
  const missing = [files.stdout, files.stderr].filter((path) => !existsSync(path));
  // Node cannot make a FIFO; coreutils can.
  if (missing.length > 0) await promisify(execFile)('mkfifo', ['-m', '600', ...missing]);
}

/** Starts the container; resolves with the waiter as soon as it runs. `onExit` is called when the waiter ends. */
export function startContainer(start: ContainerStart, onExit: () => void): ProcessId {
  start.cgroup.create();
  const inner =
    start.mounts.length === 0 && start.workingDir === undefined
      ? start.command
      : [
          'unshare',
          '--mount',
          'sh',
          '-c',
          mountScript,
          'sh',
          ...start.mounts.flatMap((mount) => [mount.source, mount.target, mount.readOnly ? 'ro' : 'rw']),
          '--',
          ...start.command,
        ];
  const line = [...enterSandbox(start.sandbox), '--', ...inner];
  // Read-write: the waiter holds a reader of both FIFOs, so the container never gets SIGPIPE while no kubelet reads.
  const stdout = openSync(start.files.stdout, constants.O_RDWR | constants.O_NONBLOCK);
  const stderr = openSync(start.files.stderr, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    const child = spawn('sh', ['-c', waiterScript, start.files.exitFile, start.cgroup.path, ...line], {
      detached: true,
      cwd: '/',
      stdio: ['ignore', stdout, stderr],
      env: { ...start.env, ...(start.workingDir === undefined ? {} : { SLUICE_WORKDIR: start.workingDir }) },
    });
    child.on('exit', onExit);
    child.on('error', onExit);
    child.unref();
    const id = child.pid === undefined ? undefined : identifyProcess(child.pid);
    if (id === undefined) throw containerFailed('its first process did not start');
    return id;
  } finally {
    closeSync(stdout);
    closeSync(stderr);
  }
}

/** nsenter's arguments for the pod's namespaces. With `target`, the mount namespace of that process (the container's own). */
export function enterSandbox(sandbox: SandboxRecord, target?: number): string[] {
  const pause = sandbox.pause?.pid;
  if (pause === undefined) throw containerFailed('the pod has no sandbox');
  return [
    'nsenter',
    `--target=${pause}`,
    '--uts',
    '--ipc',
    ...(target === undefined ? ['--mount'] : [`--mount=/proc/${target}/ns/mnt`]),
    ...(sandbox.hostNetwork ? [] : [`--net=${sandbox.netns}`]),
    ...(sandbox.hostPid ? [] : ['--pid']),
  ];
}

/** The command's own process: the child of nsenter, which with hostPID has none because it becomes the command itself. */
export function mainProcess(cgroup: Cgroup, hostPid: boolean): ProcessId | undefined {
  const first = cgroup.processes()[0];
  if (first === undefined) return undefined;
  const pid = hostPid ? first : childrenOf(first)[0];
  return pid === undefined ? undefined : identifyProcess(pid);
}

export interface ContainerExit {
  readonly exitCode: number;
  readonly finishedAtMs: number;
}

/** What the waiter wrote; undefined while the container runs. */
export function readExit(exitFile: string): ContainerExit | undefined {
  try {
    return { exitCode: Number(readFileSync(exitFile, 'utf8').trim()), finishedAtMs: statSync(exitFile).mtimeMs };
  } catch {
    return undefined;
  }
}

/** As runc says it before it starts anything: undefined when the command can be found. */
export function explainMissingCommand(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
): string | undefined {
  const name = command[0] ?? '';
  if (name.includes('/')) return undefined; // it may lie in a volume: starting it will tell
  const found = (env['PATH'] ?? '').split(':').some((dir) => dir !== '' && existsSync(join(dir, name)));
  return found ? undefined : `exec: "${name}": executable file not found in $PATH`;
}

function containerFailed(what: string): SluiceError {
  return new SluiceError({ code: 'process_failed', operation: 'start', object: 'container', what });
}
