/**
 * kubectl exec over a WebSocket: each binary message starts with its channel (0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize;
 * v5 adds 255 = "this channel is closed"). KEP-4006; k8s.io/apimachinery/pkg/util/remotecommand.
 */
import { execFile, spawn, type ChildProcessByStdio } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Logger } from '../../core/log.ts';
import { childrenOf } from '../process.ts';

export interface ExecTarget {
  readonly command: readonly string[];
  /** nsenter and its arguments; empty: here. */
  readonly enter: readonly string[];
  readonly cgroup: string;
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir?: string | undefined;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const;
/** Stop reading the process while this much waits for the client. */
const maxBufferedBytes = 1 << 20;

export function runExec(webSocket: WebSocket, target: ExecTarget, log: Logger): void {
  const child = start(target);
  pump(child.stdout, webSocket, channel.stdout, target.stdout);
  pump(child.stderr, webSocket, channel.stderr, target.stderr && !target.tty);
  child.stdin?.on('error', () => undefined);
  if (!target.stdin) child.stdin?.end();
  webSocket.on('message', (data) => onMessage(toBuffer(data), child, target));
  webSocket.on('close', () => killExec(child));
  webSocket.on('error', () => webSocket.terminate());
  child.on('error', (error) => finish(webSocket, failure(error.message)));
  child.on('close', (code, signal) => {
    log.debug({ command: target.command[0], code, signal }, 'exec ended');
    finish(webSocket, exitStatus(code ?? 137, target));
  });
}

type ExecProcess = ChildProcessByStdio<Writable | null, Readable, Readable>;

/**
 * In the container's cgroup, so that it ends with the container. Without `stdin` it reads from /dev/null, as with containerd: Node's
 * pipe is a socket, and bash (Debian's, SSH_SOURCE_BASHRC) takes a socket for rsh and would run the machine's ~/.bashrc first.
 */
function start(target: ExecTarget): ExecProcess {
  const inside =
    target.workingDir === undefined
      ? target.command
      : ['sh', '-c', 'cd "$0" && exec "$@"', target.workingDir, ...target.command];
  const line = target.enter.length === 0 ? inside : [...target.enter, '--', ...inside];
  const moved = ['-c', 'echo 0 > "$0/cgroup.procs" 2>/dev/null; exec "$@"', target.cgroup, ...line];
  const env = { TERM: 'xterm', ...target.env };
  if (!target.tty) {
    const options = { env, cwd: '/', detached: true };
    return target.stdin
      ? spawn('sh', moved, { ...options, stdio: 'pipe' })
      : spawn('sh', moved, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  }
  // util-linux script gives the command a terminal and hands on its exit status.
  const quoted = ['exec', 'sh', ...moved].map(shellQuote).join(' ');
  return spawn('script', ['-qfec', quoted, '--echo', 'always', '/dev/null'], {
    env: { ...env, SHELL: '/bin/sh' },
    cwd: '/',
    detached: true,
  });
}

function pump(stream: NodeJS.ReadableStream, webSocket: WebSocket, number: number, wanted: boolean): void {
  stream.on('data', (chunk: Buffer) => {
    if (!wanted || webSocket.readyState !== webSocket.OPEN) return;
    webSocket.send(Buffer.concat([Buffer.from([number]), chunk]), () => {
      if (stream.isPaused() && webSocket.bufferedAmount < maxBufferedBytes) stream.resume();
    });
    if (webSocket.bufferedAmount >= maxBufferedBytes) stream.pause();
  });
}

function onMessage(message: Buffer, child: ExecProcess, target: ExecTarget): void {
  const payload = message.subarray(1);
  switch (message[0]) {
    case channel.stdin:
      if (child.stdin?.writableEnded === false) child.stdin.write(payload);
      return;
    case channel.close:
      if (payload[0] === channel.stdin) child.stdin?.end();
      return;
    case channel.resize:
      if (target.tty) resize(child, payload.toString('utf8'));
      return;
    default:
      return;
  }
}

/** {"Width":80,"Height":24}: set on the terminal that script's child has as its standard input. */
function resize(child: ExecProcess, text: string, triesLeft = 50): void {
  const { Width, Height } = JSON.parse(text) as { Width?: number; Height?: number };
  const inner = childrenOf(child.pid ?? 0)[0];
  const tty = inner === undefined ? undefined : linkOf(`/proc/${inner}/fd/0`);
  if (tty?.startsWith('/dev/pts/') !== true) {
    if (triesLeft > 0 && child.exitCode === null) setTimeout(() => resize(child, text, triesLeft - 1), 20);
    return;
  }
  execFile('stty', ['-F', tty, 'rows', String(Number(Height)), 'cols', String(Number(Width))], () => undefined);
}

/** The whole process group: nsenter's child is in another pid namespace but in the same group. */
function killExec(child: ExecProcess): void {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // it ended in the meantime
  }
}

function finish(webSocket: WebSocket, status: object): void {
  if (webSocket.readyState !== webSocket.OPEN) return;
  webSocket.send(Buffer.concat([Buffer.from([channel.error]), Buffer.from(JSON.stringify(status))]));
  webSocket.close(1000);
}

function exitStatus(code: number, target: ExecTarget): object {
  if (code === 0) return { metadata: {}, status: 'Success' };
  // nsenter says 127 for a command it cannot find.
  const message = `command terminated with non-zero exit code: exit status ${code}${code === 127 ? ` (${target.command[0] ?? ''}: not found?)` : ''}`;
  return {
    metadata: {},
    status: 'Failure',
    message,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

function failure(message: string): object {
  return { metadata: {}, status: 'Failure', reason: 'InternalError', code: 500, message };
}

function toBuffer(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function shellQuote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
