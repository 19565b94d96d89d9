/** A child process run to its end, output collected. */
import { spawn } from 'node:child_process';
import { SluiceError } from '../../core/error.ts';
import type { ExecResult } from './cluster.ts';

export interface CommandOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly timeoutMs: number;
  /** Ends the process (SIGTERM) when aborted. */
  readonly signal?: AbortSignal;
  /** Called with each piece of stderr as it comes. */
  readonly onStderr?: (text: string) => void;
}

/** Resolves whatever the exit status is; rejects only when the program cannot be started. A time-out counts as status 124. */
export function runCommand(command: string, args: readonly string[], options: CommandOptions): Promise<ExecResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: options.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, options.timeoutMs);
    const onAbort = (): void => void child.kill();
    options.signal?.addEventListener('abort', onAbort);
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
      options.onStderr?.(text);
    });
    child.on('error', (cause) => {
      clearTimeout(timer);
      reject(
        new SluiceError({
          code: 'process_failed',
          operation: 'run',
          object: command,
          what: 'it cannot be started',
          cause,
        }),
      );
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
      resolve({ exitCode: timedOut ? 124 : (code ?? 1), stdout, stderr });
    });
  });
}

/** {@link runCommand} for a command that must succeed; returns its stdout. */
export async function mustRun(command: string, args: readonly string[], options: CommandOptions): Promise<string> {
  const result = await runCommand(command, args, options);
  if (result.exitCode === 0) return result.stdout;
  throw new SluiceError({
    code: 'process_failed',
    operation: 'run',
    object: [command, ...args].join(' '),
    what: `it ended with status ${result.exitCode}: ${result.stderr.trim() || result.stdout.trim() || 'no output'}`,
  });
}
