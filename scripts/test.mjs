// Runs the tests and prints one closing line "N passed, N failed, N skipped".
//   node scripts/test.mjs [pure] [kernel] [e2e] [vm] [lint]      default: all of them
// `vm` runs the kernel tests again inside the small VM, whose kernel has ipvlan and fq_codel; where there are two processors,
// beside the kinds before it, which need no quiet machine.
// SLUICE_FULL=1 is passed on to the tests: those with a long form run it, and get more time.
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { addCounts, details, noCounts, oneResult, summary } from './testing/counts.mjs';
import { bundleForVm, root, runTests, runTestsInVm, start, testFiles, vmScratch } from './testing/run.mjs';

const kinds = ['lint', 'pure', 'kernel', 'vm', 'e2e'];
const wanted = process.argv.slice(2).filter((arg) => kinds.includes(arg));
const run = wanted.length > 0 ? wanted : kinds;
const fileTimeoutMs = process.env.SLUICE_FULL === '1' ? 3_600_000 : 900_000;
const concurrencyOf = { pure: 2, kernel: 1, e2e: 1 };
const total = noCounts();
const durations = [];
/** Of kinds that ended without a test to blame: what was printed last. */
const lastWords = [];
const lastWordsLines = 20;

async function runLint() {
  const counts = noCounts();
  for (const [name, args] of [
    ['typecheck', ['tsc', '--noEmit', '-p', 'tsconfig.json']],
    ['eslint', ['eslint', '.']],
    ['prettier', ['prettier', '--check', '--log-level', 'warn', '.']],
  ]) {
    addCounts(counts, oneResult(name, (await start('npx', ['--no-install', ...args])) === 0));
  }
  return counts;
}

/** Its output, which would be mixed with that of others, comes when it has ended. */
async function runBeside(kind, scratch) {
  const path = join(scratch, `${kind}.log`);
  const output = openSync(path, 'w');
  const result = await measured(kind, { scratch, output, niceness: besideNiceness });
  closeSync(output);
  return { ...result, text: readFileSync(path, 'utf8') };
}

async function measured(kind, options) {
  const begunMs = performance.now();
  const counts =
    needRoot.includes(kind) && !isRoot
      ? oneResult(`${kind} tests need root: run them with sudo`, false)
      : await runKind(kind, options);
  return { counts, seconds: Math.round((performance.now() - begunMs) / 1000) };
}

/** What depends on the kernel and is not the same with this machine's own: interfaces of kind ipvlan, their hooks, qdiscs, system calls, SCTP. */
const vmTests = /^src\/(kernel|datapath|cni)\/|\/sctp\./;

async function runVm(place) {
  const scratch = vmScratch();
  try {
    const files = testFiles().kernel.filter((file) => vmTests.test(relative(root, file)));
    const bundles = await bundleForVm(files, scratch.dir);
    const limits = { timeoutS: 1200, fileTimeoutMs };
    return await runTestsInVm('vm', bundles, { kernel: '6.12', scratch: scratch.dir, ...limits, ...place });
  } finally {
    scratch.remove();
  }
}

async function runKind(kind, { scratch, ...place }) {
  if (kind === 'lint') return runLint();
  if (kind === 'vm') return runVm(place);
  const files = testFiles()[kind];
  return files.length === 0
    ? noCounts()
    : runTests(kind, files, { concurrency: concurrencyOf[kind], fileTimeoutMs, scratch });
}

const needRoot = ['kernel', 'e2e', 'vm'];
const isRoot = process.getuid?.() === 0;
/** The VM's processor is one thread of this machine, and rates are measured in it: it goes first. */
const besideNiceness = -10;
const othersFirst = run.some((kind) => kinds.indexOf(kind) < kinds.indexOf('vm'));
const scratch = mkdtempSync(join(tmpdir(), 'sluice-test-'));
try {
  const vm = run.includes('vm') && othersFirst && availableParallelism() > 1 ? runBeside('vm', scratch) : undefined;
  for (const kind of kinds.filter((each) => run.includes(each))) {
    console.log(`\n== ${kind} tests`);
    const { counts, seconds, text = '' } = await ((kind === 'vm' && vm) || measured(kind, { scratch }));
    process.stdout.write(text);
    addCounts(total, counts);
    if (text !== '' && counts.failures.some(({ file }) => file === '')) {
      lastWords.push(`-- the end of the ${kind} tests' output`, ...text.trimEnd().split('\n').slice(-lastWordsLines));
    }
    durations.push(`${kind} ${seconds} s`);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

console.log(`\n${durations.join(', ')}`);
for (const line of [...lastWords, ...details(total, root)]) console.log(line);
console.log(summary(total));
process.exitCode = total.failed === 0 ? 0 : 1;
