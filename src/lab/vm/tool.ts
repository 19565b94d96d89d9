/** One short-lived program of the host, with its complaint kept. */

import { spawnSync } from 'node:child_process';
import { basename } from 'node:path';
import { SluiceError } from '../../core/error.ts';

const maxOutputBytes = 256 * 1024 * 1024;

/** Its standard output. Throws `process_failed` with the end of its standard error. */
export function runTool(
  command: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly encoding?: 'utf8' | 'latin1' } = {},
): string {
  const { encoding = 'utf8', cwd } = options;
  const result = spawnSync(command, args, {
    cwd,
    encoding,
    maxBuffer: maxOutputBytes,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (result.status === 0) return result.stdout;
  const complaint = result.error?.message ?? result.stderr.trim().split('\n').slice(-3).join('; ');
  throw new SluiceError({
    code: 'process_failed',
    operation: 'run',
    object: [basename(command), ...args].join(' '),
    what: `${result.status === null ? `killed by ${result.signal}` : `exit status ${result.status}`}: ${complaint}`,
    cause: result.error,
  });
}
