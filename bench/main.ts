/** npm run --silent bench -- SUITE [--quick] [--json FILE] */
import { writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { formatErrorChain } from '../src/core/error.ts';
import { aggregateSuite } from './aggregate.ts';
import { bandwidthSuite } from './bandwidth.ts';
import { cniSuite } from './cni.ts';
import { datapathSuite } from './datapath.ts';
import { ipamSuite } from './ipam.ts';
import { policySuite } from './policy.ts';
import { scaleSuite } from './scale.ts';
import { formatTable, type Report, type Suite } from './report.ts';

const suites: readonly Suite[] = [
  aggregateSuite,
  bandwidthSuite,
  cniSuite,
  datapathSuite,
  ipamSuite,
  policySuite,
  scaleSuite,
];

interface CommonFlags {
  readonly quick: boolean;
  readonly json?: string;
}

const program = new Command('bench').description('measures beside what it is compared with, in one run');
for (const suite of suites) {
  const command = program
    .command(suite.name)
    .description(suite.describe)
    .option('--quick', 'a first answer, in at most a few minutes', false)
    .option('--json <file>', 'write the figures as JSON');
  for (const [flags, description, fallback] of suite.options ?? []) command.option(flags, description, fallback);
  command.action(async ({ quick, json, ...flags }: CommonFlags) => {
    const found = await suite.run({ quick, flags, log: (line) => process.stderr.write(`${line}\n`) });
    const report: Report = Array.isArray(found) ? { rows: found, text: formatTable(found) } : found;
    const { rows, text, failures = [] } = report;
    process.stdout.write(`${text}\n`);
    if (json !== undefined) writeFileSync(json, `${JSON.stringify(rows, undefined, 2)}\n`);
    for (const failure of failures) process.stderr.write(`bench: ${failure}\n`);
    if (failures.length > 0) process.exitCode = 1;
  });
}

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`bench: ${formatErrorChain(error)}\n`);
  process.exitCode = 1;
}
