// Everything: all tests in their long form (SLUICE_FULL=1), then the kernel matrix. Fails when either does.
import { join } from 'node:path';
import { root, start } from './testing/run.mjs';

const tests = await start(process.execPath, [join(root, 'scripts/test.mjs')], { env: { SLUICE_FULL: '1' } });
const kernels = await start(process.execPath, [join(root, 'scripts/test-kernels.mjs')]);
const outcome = (status) => (status === 0 ? 'passed' : 'failed');
console.log(`\ntests ${outcome(tests)}, kernel matrix ${outcome(kernels)} (the figures are above)`);
process.exitCode = tests === 0 && kernels === 0 ? 0 : 1;
