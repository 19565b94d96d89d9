/** `sluice vm run`: a command on a distribution kernel, in the small virtual machine. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import { SluiceError, hasErrorCode } from '../core/error.ts';
import { packageRoot } from '../kernel/package-root.ts';
import { vmCacheDir } from '../lab/vm/cache-dir.ts';
import { defaultMemoryMb, runInVm } from '../lab/vm/run.ts';

interface RunFlags {
  readonly kernel?: string;
  readonly timeout: string;
  readonly memory: string;
  readonly shared?: string;
  readonly env: readonly string[];
}

/** The exit status of timeout(1), for scripts that know it. */
const timeoutStatus = 124;

export function registerVmCommands(program: Command): void {
  // What follows `--` belongs to the command that runs in the machine.
  program.enablePositionalOptions();
  const vm = program.command('vm').description('the small virtual machine with a distribution kernel');
  vm.enablePositionalOptions();
  vm.command('run')
    .description('boot, run one command over the host’s files (read-only), end with its exit status; 124: time ran out')
    .argument('<command...>', 'the command and its arguments, after --')
    .option(
      '--kernel <version>',
      'Debian kernel: a series (5.10, 6.1, 6.12, 7.2) or a package (linux-image-6.1.0-56-amd64) (default: newest 6.12)',
    )
    .option('--timeout <seconds>', 'kill the machine after this time, boot included', '600')
    .option('--memory <megabytes>', 'memory of the machine', String(defaultMemoryMb))
    .option('--shared <directory>', 'directory mounted read-write at the same path')
    .option('--env <name=value>', 'environment variable, may be repeated', collect, [])
    .passThroughOptions()
    .action(runCommand);
}

function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}

async function runCommand(command: readonly string[], flags: RunFlags): Promise<void> {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
  try {
    process.exitCode = await runInVm({
      command,
      cacheDir: vmCacheDir(process.env),
      sharedDir: flags.shared === undefined ? undefined : resolve(flags.shared),
      visibleDirs: [...new Set([packageRoot(), process.cwd()])],
      cwd: process.cwd(),
      env: parseEnv(flags.env),
      kernel: flags.kernel,
      timeoutMs: parseCount('--timeout', flags.timeout) * 1000,
      memoryMb: parseCount('--memory', flags.memory),
      signal: stop.signal,
      onStdout: (chunk) => process.stdout.write(chunk),
      onStderr: (chunk) => process.stderr.write(chunk),
      onProgress: (line) => process.stderr.write(`sluice vm: ${line}\n`),
    });
  } catch (error) {
    if (!hasErrorCode(error, 'timeout')) throw error;
    process.stderr.write(`sluice vm: ${(error as Error).message}\n`);
    process.exitCode = timeoutStatus;
  }
}

function parseEnv(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw badFlag('--env', pair, 'write NAME=VALUE');
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

function parseCount(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw badFlag(flag, text, 'give a whole number above 0');
  return value;
}

function badFlag(flag: string, value: string, remedy: string): SluiceError {
  return new SluiceError({
    code: 'invalid_argument',
    operation: 'read',
    object: flag,
    what: `"${value}" does not fit`,
    remedy,
  });
}
