// Runs the tests and prints one closing line "N passed, N failed, N skipped".
//   node scripts/test.mjs [pure] [kernel] [e2e] [vm] [lint]      default: all of them
// Kinds by file name: *.test.ts pure; *.kernel.test.ts the real kernel in throw-away namespaces; *.e2e.test.ts the lab.
// `vm` runs the kernel tests again inside the small VM, whose kernel has ipvlan and fq_codel.
import { build } from 'esbuild';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const kinds = ['lint', 'pure', 'kernel', 'e2e', 'vm'];
const wanted = process.argv.slice(2).filter((arg) => kinds.includes(arg));
const run = wanted.length > 0 ? wanted : kinds;
const total = { passed: 0, failed: 0, skipped: 0, skips: [], failures: [] };

function filesBelow(dir) {
  return readdirSync(join(root, dir), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.test.ts'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

const all = ['src', 'test', 'bench']
  .filter((dir) => existsSync(join(root, dir)))
  .flatMap(filesBelow)
  .sort();
const ofKind = {
  pure: all.filter((f) => !/\.(kernel|e2e)\.test\.ts$/.test(f)),
  kernel: all.filter((f) => f.endsWith('.kernel.test.ts')),
  e2e: all.filter((f) => f.endsWith('.e2e.test.ts')),
};

function start(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', () => resolve(127));
    child.on('exit', (code, signal) => resolve(signal ? 1 : code));
  });
}

function add(counts) {
  for (const key of ['passed', 'failed', 'skipped']) total[key] += counts[key];
  total.skips.push(...counts.skips);
  total.failures.push(...counts.failures);
}

/** Adds what the counting reporter wrote; a run that died before writing counts as one failure. */
function addCounts(file, kind, exitCode) {
  if (existsSync(file)) {
    const counts = JSON.parse(readFileSync(file, 'utf8'));
    if (exitCode !== 0 && counts.failed === 0) counts.failed = 1;
    add(counts);
  } else {
    add({
      passed: 0,
      failed: 1,
      skipped: 0,
      skips: [],
      failures: [{ name: `the ${kind} tests ended with status ${exitCode}`, file: '' }],
    });
  }
}

function testArgs(files, countsFile, concurrency) {
  return [
    '--import',
    'tsx',
    '--test',
    `--test-concurrency=${concurrency}`,
    '--test-timeout=600000',
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${join(root, 'scripts/count-reporter.mjs')}`,
    `--test-reporter-destination=${countsFile}`,
    ...files.map((f) => relative(root, f)),
  ];
}

async function runTests(kind, files, concurrency, scratch) {
  if (files.length === 0) return;
  console.log(`\n== ${kind} tests (${files.length} files)`);
  const countsFile = join(scratch, `${kind}.json`);
  addCounts(countsFile, kind, await start(process.execPath, testArgs(files, countsFile, concurrency)));
}

async function runLint() {
  console.log('\n== types, lint, formatting');
  for (const [name, args] of [
    ['typecheck', ['tsc', '--noEmit', '-p', 'tsconfig.json']],
    ['eslint', ['eslint', '.']],
    ['prettier', ['prettier', '--check', '--log-level', 'warn', '.']],
  ]) {
    const code = await start('npx', ['--no-install', ...args]);
    add({
      passed: code === 0 ? 1 : 0,
      failed: code === 0 ? 0 : 1,
      skipped: 0,
      skips: [],
      failures: code === 0 ? [] : [{ name, file: '' }],
    });
  }
}

/** Bundled, because reading and compiling hundreds of source files costs minutes under emulation. */
async function bundleForVm(files, outdir) {
  await build({
    absWorkingDir: root,
    entryPoints: files,
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

/** System calls and verdicts. Hooks and shaping under load are not among them: the emulated CPU is too slow for their clocks. */
const vmTests = /^src\/kernel\/|^src\/datapath\/verdict/;

/** The layers that touch the kernel, once more, on a distribution kernel with ipvlan, fq_codel and cake. Below the checkout, so that packageRoot() holds. */
async function runVm() {
  const scratch = join(root, '.cache', 'vm-test');
  rmSync(scratch, { recursive: true, force: true });
  mkdirSync(scratch, { recursive: true });
  const files = ofKind.kernel.filter((file) => vmTests.test(relative(root, file)));
  console.log(`\n== kernel tests in the VM (${files.length} files)`);
  const countsFile = join(scratch, 'vm.json');
  const bundles = await bundleForVm(files, scratch);
  const args = testArgs(bundles, countsFile, 1).filter(
    (arg, index, list) => arg !== 'tsx' && !(arg === '--import' && list[index + 1] === 'tsx'),
  );
  const code = await start(process.execPath, [
    join(root, 'dist/sluice.mjs'),
    'vm',
    'run',
    '--shared',
    scratch,
    '--timeout',
    '1200',
    '--',
    process.execPath,
    ...args,
  ]);
  addCounts(countsFile, 'vm', code);
  rmSync(scratch, { recursive: true, force: true });
}

const isRoot = process.getuid?.() === 0;
const scratch = mkdtempSync(join(tmpdir(), 'sluice-test-'));
try {
  if (run.includes('lint')) await runLint();
  if (run.includes('pure')) await runTests('pure', ofKind.pure, 2, scratch);
  if (!isRoot && run.some((kind) => ['kernel', 'e2e', 'vm'].includes(kind))) {
    total.failed++;
    total.failures.push({ name: 'kernel and lab tests need root: run them with sudo', file: '' });
  } else {
    if (run.includes('kernel')) await runTests('kernel', ofKind.kernel, 1, scratch);
    if (run.includes('e2e')) await runTests('e2e', ofKind.e2e, 1, scratch);
    if (run.includes('vm')) await runVm();
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

for (const skip of total.skips)
  console.log(`skipped: ${skip.name}${skip.reason ? `: ${skip.reason}` : ' (no reason given)'}`);
for (const failure of total.failures)
  console.log(`failed: ${failure.name}${failure.file ? ` (${relative(root, failure.file)})` : ''}`);
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 ? 0 : 1;
