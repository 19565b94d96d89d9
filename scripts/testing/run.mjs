// Runs test files with node --test, here or in the small VM, and returns what they add up to (counts.mjs).
import { build } from 'esbuild';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { oneResult, readCounts } from './counts.mjs';

export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** Kinds by file name: *.test.ts pure; *.kernel.test.ts the real kernel in throw-away namespaces; *.e2e.test.ts the lab. */
export function testFiles() {
  const all = ['src', 'test', 'bench']
    .filter((dir) => existsSync(join(root, dir)))
    .flatMap(filesBelow)
    .sort();
  return {
    pure: all.filter((file) => !/\.(kernel|e2e)\.test\.ts$/.test(file)),
    kernel: all.filter((file) => file.endsWith('.kernel.test.ts')),
    e2e: all.filter((file) => file.endsWith('.e2e.test.ts')),
  };
}

function filesBelow(dir) {
  return readdirSync(join(root, dir), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.test.ts'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

/**
 * The exit status; 127 when it could not be started, 1 when a signal ended it. `output`: a file descriptor, default: ours.
 * `niceness`, where this user may set it.
 */
export function start(command, args, { env = {}, output = 'inherit', niceness = 0 } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', output, output],
    });
    if (niceness !== 0 && child.pid !== undefined) renice(child.pid, niceness);
    child.on('error', () => resolve(127));
    child.on('exit', (code, signal) => resolve(signal ? 1 : code));
  });
}

function renice(pid, niceness) {
  try {
    setPriority(pid, niceness);
  } catch {
    // In a container without CAP_SYS_NICE everything has the same.
  }
}

/** `fileTimeoutMs`: a test file that takes longer is killed and counts as failed. */
export async function runTests(kind, files, { concurrency, fileTimeoutMs, scratch }) {
  const countsFile = join(scratch, `${kind}.json`);
  const args = ['--import', 'tsx', ...testArgs(files, countsFile, concurrency, fileTimeoutMs)];
  return readCounts(countsFile, kind, await start(process.execPath, args));
}

function testArgs(files, countsFile, concurrency, fileTimeoutMs) {
  return [
    '--test',
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${fileTimeoutMs}`,
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${join(root, 'scripts/count-reporter.mjs')}`,
    `--test-reporter-destination=${countsFile}`,
    ...files.map((file) => relative(root, file)),
  ];
}

/** A directory for bundles below the checkout, so that packageRoot() holds in them. The guest may write there. */
export function vmScratch() {
  const parent = join(root, '.cache');
  mkdirSync(parent, { recursive: true });
  const dir = mkdtempSync(join(parent, 'vm-test-'));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

/** Programs that tests start, beside the tests themselves. */
const vmPrograms = ['test/agent-process.ts'].map((file) => join(root, file));

/** Bundled, because reading and compiling hundreds of source files costs minutes under emulation. Returns the bundles of `files`. */
export async function bundleForVm(files, outdir) {
  await build({
    absWorkingDir: root,
    entryPoints: [...files, ...vmPrograms],
    outdir,
    outbase: '.',
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    external: ['koffi'],
    sourcemap: 'linked',
    sourcesContent: false,
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  });
  return files.map((file) => join(outdir, relative(root, file).replace(/\.ts$/, '.mjs')));
}

/** `kernel`: a series or a package, as `sluice vm run --kernel` takes it; undefined: the default one. The rest as for `start`. */
export async function runTestsInVm(name, bundles, { scratch, fileTimeoutMs, ...options }) {
  const countsFile = join(scratch, `${name}.json`);
  const command = [process.execPath, ...testArgs(bundles, countsFile, 1, fileTimeoutMs)];
  const counts = readCounts(countsFile, name, await runInVm(command, { ...options, shared: scratch }));
  for (const each of [...counts.skips, ...counts.failures]) each.file = sourceOf(each.file, scratch);
  return counts;
}

function sourceOf(bundle, scratch) {
  return bundle.startsWith(scratch) ? join(root, relative(scratch, bundle)).replace(/\.mjs$/, '.ts') : bundle;
}

/** Passed when the command ends with status 0. */
export async function runCommandInVm(name, command, options) {
  return oneResult(name, (await runInVm(command, options)) === 0);
}

function runInVm(command, { kernel, shared, timeoutS, memoryMb, ...place }) {
  const args = [
    ...[join(root, 'dist/sluice.mjs'), 'vm', 'run', '--timeout', String(timeoutS)],
    ...(kernel === undefined ? [] : ['--kernel', kernel]),
    ...(memoryMb === undefined ? [] : ['--memory', String(memoryMb)]),
    ...(shared === undefined ? [] : ['--shared', shared, '--env', `SLUICE_TEST_BUNDLES=${shared}`]),
    ...['--', ...command],
  ];
  return start(process.execPath, args, place);
}
