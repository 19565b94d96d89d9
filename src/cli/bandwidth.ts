/** `sluice bandwidth …`: limits of pods, how they are made, and what is used of them. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { BandwidthAnswer, BandwidthInfo } from '../api/agent-api.ts';
import { systemClock } from '../core/clock.ts';
import { askAgent, type AgentTransport } from './agent-client.ts';
import { askAll, findAgents, withTarget, type TargetFlags } from './agents.ts';
import { examples } from './endpoint.ts';
import { podPath, print, printJson, warn } from './output.ts';
import { stopSignal } from './process.ts';
import { renderBandwidths, renderTop, topLines, topOrders, type TopOrder } from './render-bandwidth.ts';
import { timestamp } from '../core/timestamp.ts';

interface PodFlags extends TargetFlags {
  readonly pod?: string;
  readonly namespace: string;
}

export function registerBandwidthCommands(program: Command): void {
  const bandwidth = program.command('bandwidth').description('bandwidth limits of pods: what is in force and used');
  withPod(bandwidth.command('list'))
    .description('every limit: who asked for it, how it is made, its rate now, drops since it was made, what waits')
    .option('--sample <seconds>', 'how long the rate is measured; 0: not at all', parseSeconds, 1)
    .addHelpText(
      'after',
      examples(
        'sluice bandwidth list',
        'sluice bandwidth list --pod demo/web --sample 5',
        'sluice bandwidth list --json',
      ),
    )
    .action(list);
  withPod(bandwidth.command('top'))
    .description('who uses how much of its limit, until interrupted; into a pipe one table after the other')
    .option('--interval <seconds>', 'how long each round measures', parseInterval, 2)
    .addOption(new Option('--sort <column>', 'largest first').choices(topOrders).default('share'))
    .option('--limit <count>', 'at most so many lines', parseCount, 30)
    .option('--rounds <count>', 'end after so many rounds', parseCount)
    .addHelpText(
      'after',
      examples(
        'sluice bandwidth top',
        'sluice bandwidth top --sort drops --interval 5',
        'sluice bandwidth top --rounds 1 --json | jq ".[0]"',
      ),
    )
    .action(top);
}

function withPod(command: Command): Command {
  return withTarget(command)
    .option('--pod <pod>', 'only this one: NAMESPACE/POD, or POD with -n')
    .option('-n, --namespace <name>', 'namespace of a POD that does not say it', 'default');
}

function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (text.trim() === '' || !(seconds >= 0 && seconds <= 60)) throw new InvalidArgumentError('Give 0 to 60 seconds.');
  return seconds;
}

function parseInterval(text: string): number {
  const seconds = parseSeconds(text);
  if (seconds < 0.1) throw new InvalidArgumentError('Give 0.1 to 60 seconds.');
  return seconds;
}

function parseCount(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('Give a positive number.');
  return Number(text);
}

async function list(flags: PodFlags & { readonly sample: number }): Promise<void> {
  const answers = await ask(await findAgents(flags, process.env), flags, flags.sample);
  if (flags.json) printJson(answers);
  else print(renderBandwidths(answers));
}

/** Rates are each agent's own, over exactly the sample: what asking takes does not count. */
function ask(agents: readonly AgentTransport[], flags: PodFlags, seconds: number): Promise<BandwidthAnswer[]> {
  const query = new URLSearchParams({ sample: String(Math.round(seconds * 1000)) });
  if (flags.pod !== undefined) {
    const { namespace, name } = podPath(flags.pod, flags.namespace);
    query.set('pod', `${namespace}/${name}`);
  }
  return askAll(agents, (agent) => askAgent(agent, { path: `/v1/bandwidth?${query.toString()}` }), warn);
}

interface TopFlags extends PodFlags {
  readonly interval: number;
  readonly sort: TopOrder;
  readonly limit: number;
  readonly rounds?: number;
}

async function top(flags: TopFlags): Promise<void> {
  const agents = await findAgents(flags, process.env);
  const stop = stopSignal();
  // Whoever reads is gone: `top | head`.
  process.stdout.on('error', () => process.exit());
  stop.addEventListener('abort', () => process.exit(0));
  let before: readonly BandwidthInfo[] = (await ask(agents, flags, 0)).flatMap(({ limits }) => limits);
  let beforeMs = systemClock.monotonicMs();
  for (let round = 1; flags.rounds === undefined || round <= flags.rounds; round++) {
    const limits = (await ask(agents, flags, flags.interval)).flatMap((answer) => answer.limits);
    const nowMs = systemClock.monotonicMs();
    const lines = topLines(limits, before, nowMs - beforeMs, flags.sort).slice(0, flags.limit);
    show(flags, lines.length === 0 ? 'no limits' : renderTop(lines), lines);
    [before, beforeMs] = [limits, nowMs];
  }
}

function show(flags: TopFlags, text: string, lines: readonly object[]): void {
  if (flags.json) return print(JSON.stringify(lines));
  const time = timestamp(Date.now());
  // Home and clear, so that the screen does not flicker; a pipe gets plain tables.
  if (process.stdout.isTTY) process.stdout.write('\u001b[H\u001b[2J');
  print(`${time}, over ${flags.interval} s, by ${flags.sort}\n${text}${process.stdout.isTTY ? '' : '\n'}`);
}
