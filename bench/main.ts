/** npm run --silent bench -- SUITE [--quick] [--json FILE] */
import { writeFileSync } from 'node:fs';
import { Argument, Command } from 'commander';
import { formatErrorChain } from '../src/core/error.ts';
import { cniSuite } from './cni.ts';
import { datapathSuite } from './datapath.ts';
import { ipamSuite } from './ipam.ts';
import { policySuite } from './policy.ts';
import { scaleSuite } from './scale.ts';
import { formatTable, type Suite } from './report.ts';

const suites: readonly Suite[] = [cniSuite, datapathSuite, ipamSuite, policySuite, scaleSuite];

const program = new Command('bench')
  .description(
    `measures beside what it is compared with, in one run\n\n${suites.map((s) => `  ${s.name.padEnd(10)} ${s.describe}`).join('\n')}`,
  )
  .addArgument(new Argument('<suite>', 'which suite').choices(suites.map((suite) => suite.name)))
  .option('--quick', 'a first answer within a minute', false)
  .option('--json <file>', 'write the figures as JSON')
  .action(async (name: string, flags: { readonly quick: boolean; readonly json?: string }) => {
    const suite = suites.find((candidate) => candidate.name === name);
    const rows = (await suite?.run({ quick: flags.quick, log: (line) => process.stderr.write(`${line}\n`) })) ?? [];
    process.stdout.write(`${formatTable(rows)}\n`);
    if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(rows, undefined, 2)}\n`);
  });

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`bench: ${formatErrorChain(error)}\n`);
  process.exitCode = 1;
}
