/**
 * Limits on real packets: ours beside the bare interface, Debian's `bandwidth` plugin and other ways that the kernel offers. Natively,
 * or in the small VM where this kernel has no ipvlan.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type PairLink, whyNoLink } from '../src/datapath/test-bed.ts';
import type { Case, Result } from './bandwidth-case.ts';
import { drawPings, drawRates } from './bandwidth-chart.ts';
import { planCases } from './bandwidth-plan.ts';
import { goalsText } from './bandwidth-goals.ts';
import { rowsOf, summaryOf } from './bandwidth-rows.ts';
import { type Run, runCases } from './bandwidth-run.ts';
import { runCasesInVm } from './bandwidth-vm.ts';
import type { RunOptions, Suite } from './report.ts';

/** Of a case beyond its traffic: the beds, the ping before, iperf3's begin and end. */
const besideS = 3.5;

const defaultLinks = 'macvlan,ipvlan-l2';

export const bandwidthSuite: Suite = {
  name: 'bandwidth',
  describe: 'limits on real packets: rate, ping beside it, CPU',
  options: [
    ['--links <list>', 'macvlan, veth, ipvlan-l2, ipvlan-l3 (in the VM where this kernel has none)', defaultLinks],
    ['--rates <list>', 'for example 10M,1G'],
    ['--loads <list>', 'tcpN, udpN, smallN: N flows; UDP offers twice the rate'],
    ['--directions <list>', 'egress, ingress'],
    ['--places <list>', 'outside: across nodes; beside: same node'],
    ['--mechanisms <regexp>', 'which ways to limit, of all that bench/bandwidth-mechanisms.ts knows'],
    ['--seconds <number>', 'of traffic for each case'],
    ['--charts <dir>', 'draw rate and ping over time into this directory'],
    ['--kernel <series>', 'of the VM'],
  ],
  async run({ quick, log, flags }) {
    const plans = (flags['links'] ?? defaultLinks)
      .split(',')
      .map((link) => ({ link: link as PairLink, cases: planCases(link as PairLink, flags, quick) }));
    for (const { link, cases } of plans) log(`${link}: ${cases.length} cases, about ${minutesOf(cases)} minutes`);
    const [results, failures]: [Result[], string[]] = [[], []];
    for (const { link, cases } of plans) {
      const found = await runOn(link, cases, log, flags['kernel']);
      if (flags['charts'] !== undefined) draw(found.results, join(flags['charts'], `bandwidth-${link}`), log);
      results.push(...found.results);
      failures.push(...found.failures);
    }
    return { rows: rowsOf(results), text: `${summaryOf(results)}\n\n${goalsText(results)}`, failures };
  },
};

function minutesOf(cases: readonly Case[]): number {
  return Math.ceil(cases.reduce((sum, { seconds }) => sum + seconds + besideS, 0) / 60);
}

async function runOn(
  link: PairLink,
  cases: readonly Case[],
  log: RunOptions['log'],
  kernel: string | undefined,
): Promise<Run> {
  const isHere = process.env['SLUICE_VM'] === '1' || whyNoLink(link, process.env) === undefined;
  return isHere ? runCases(cases, log) : runCasesInVm(cases, { log, kernel });
}

function draw(results: readonly Result[], prefix: string, log: RunOptions['log']): void {
  if (results.length === 0) return;
  mkdirSync(dirname(prefix), { recursive: true });
  for (const [name, drawn] of [['rate', drawRates(results)] as const, ['ping', drawPings(results)] as const]) {
    const file = `${prefix}-${name}.svg`;
    writeFileSync(file, drawn);
    log(`drew ${file}`);
  }
}
