// Runs the kernel tests, the walkthrough and the bandwidth tests on ipvlan labs under each of Debian's kernels, in the small VM.
//   node scripts/test-kernels.mjs [SERIES…]      default: 5.10 6.1 6.12 7.2
//   SLUICE_KERNEL_TESTS=REGEXP                   only the test files whose path matches; no lab
import { join, relative } from 'node:path';
import { addCounts, details, noCounts, oneResult, summary } from './testing/counts.mjs';
import { bundleForVm, root, runCommandInVm, runTestsInVm, testFiles, vmScratch } from './testing/run.mjs';

const series = process.argv.length > 2 ? process.argv.slice(2) : ['5.10', '6.1', '6.12', '7.2'];
const only = process.env.SLUICE_KERNEL_TESTS;
const fileTimeoutMs = 2_700_000;
const timeoutS = 9000;
const labMemoryMb = 4096;
const bandwidthLab = join(root, 'test/bandwidth.e2e.test.ts');

/** One boot for the kernel tests, two for labs, which find ipvlan in the guest's kernel and need no VM of their own. */
async function runKernel(kernel, bundles, scratch) {
  console.log(`\n== kernel tests on ${kernel}`);
  const inVm = { kernel, scratch, timeoutS, fileTimeoutMs };
  const tests = await runTestsInVm(kernel, bundles.kernel, inVm);
  if (only !== undefined) return { kernel, tests, lab: noCounts() };
  console.log(`\n== lab on ${kernel}`);
  const demo = [process.execPath, join(root, 'dist/sluice.mjs'), 'lab', 'demo', '--link', 'ipvlan'];
  const lab = await runCommandInVm(`sluice lab demo on ${kernel}`, demo, {
    kernel,
    timeoutS: 1200,
    memoryMb: labMemoryMb,
  });
  console.log(`\n== bandwidth in a lab on ${kernel}`);
  addCounts(lab, await runTestsInVm(`${kernel} bandwidth`, bundles.lab, { ...inVm, memoryMb: labMemoryMb }));
  return { kernel, tests, lab };
}

function table(results) {
  const rows = results.map(({ kernel, tests, lab }) => [
    kernel,
    ...[tests.passed, tests.failed, tests.skipped].map(String),
    lab.passed + lab.failed === 0 ? '-' : lab.failed === 0 ? 'passed' : 'failed',
  ]);
  const lines = [['kernel', 'passed', 'failed', 'skipped', 'lab'], ...rows];
  return lines
    .map((cells) =>
      cells
        .map((cell) => cell.padEnd(8))
        .join('')
        .trimEnd(),
    )
    .join('\n');
}

const total = noCounts();
const results = [];
if (process.getuid?.() !== 0) addCounts(total, oneResult('the virtual machine needs root: run it with sudo', false));
else {
  const scratch = vmScratch();
  try {
    const files = testFiles().kernel.filter((file) => new RegExp(only ?? '').test(relative(root, file)));
    const lab = await bundleForVm([bandwidthLab], scratch.dir);
    const bundles = { kernel: await bundleForVm(files, scratch.dir), lab };
    for (const kernel of series) results.push(await runKernel(kernel, bundles, scratch.dir));
  } finally {
    scratch.remove();
  }
}
for (const { kernel, tests, lab } of results) {
  console.log(`\n-- ${kernel}`);
  for (const counts of [tests, lab]) {
    for (const line of details(counts, root)) console.log(line);
    addCounts(total, counts);
  }
}
console.log(`\n${table(results)}\n`);
for (const line of results.length === 0 ? details(total, root) : []) console.log(line);
console.log(summary(total));
process.exitCode = total.failed === 0 ? 0 : 1;
