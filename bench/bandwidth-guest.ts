/** Inside the VM: node bandwidth-guest.mjs CASES.json RESULTS.json */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Case } from './bandwidth-case.ts';
import { runCases } from './bandwidth-run.ts';

const [casesFile = '', resultsFile = ''] = process.argv.slice(2);
const cases = JSON.parse(readFileSync(casesFile, 'utf8')) as Case[];
writeFileSync(resultsFile, JSON.stringify(await runCases(cases, (line) => process.stdout.write(`${line}\n`))));
