/** `sluice drops`: packets that were dropped, and those that audit mode let through, with names. */
import { type Command, InvalidArgumentError } from 'commander';
import type { DropsAnswer, DropsLine, FlowEvent } from '../api/agent-api.ts';
import { askAgent, followAgent, type AgentTransport } from './agent-client.ts';
import { askAll, findAgents, withTarget, type TargetFlags } from './agents.ts';
import { examples } from './endpoint.ts';
import { podPath, print, printJson, warn } from './output.ts';
import { stopSignal } from './process.ts';
import { renderEvent } from './render.ts';

interface DropsFlags extends TargetFlags {
  readonly follow: boolean;
  readonly pod?: string;
  readonly namespace: string;
  readonly reason?: string;
  readonly allowed: boolean;
  readonly limit: number;
}

export function registerDropsCommand(program: Command): void {
  withTarget(program.command('drops'))
    .description('dropped packets and audit events: time, node, reason, pods by name, ports, rule')
    .option('-f, --follow', 'go on with what comes', false)
    .option('--pod <pod>', 'only of or with this pod: NAMESPACE/POD, or POD with -n')
    .option('-n, --namespace <name>', 'namespace of a POD that does not say it', 'default')
    .option('--reason <reason>', 'only this reason: docs/reference/drop-reasons.md')
    .option('--allowed', 'new connections that were allowed too; only while following', false)
    .option('--limit <count>', 'at most so many of each node', parseCount, 100)
    .addHelpText(
      'after',
      examples(
        'sluice drops --pod demo/web',
        'sluice drops --follow --reason policy',
        'sluice drops -f --json | jq .source',
      ),
    )
    .action(drops);
}

function parseCount(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('Give a number.');
  return Number(text);
}

async function drops(flags: DropsFlags): Promise<void> {
  const agents = await findAgents(flags, process.env);
  const query = queryOf(flags);
  if (flags.follow) return follow(agents, query, flags.json);
  const path = `/v1/drops?${query}&limit=${flags.limit}`;
  const answers = await askAll(agents, (agent) => askAgent<DropsAnswer>(agent, { path }), warn);
  const events = answers.flatMap((answer) => answer.events).sort((a, b) => (a.time < b.time ? -1 : 1));
  if (flags.json) return printJson(events);
  for (const event of events) print(renderEvent(event));
  if (events.length === 0) print('no drops');
  for (const { node, lost } of answers) if (lost > 0) print(`${node}: ${lost} more events were lost, too many at once`);
}

function queryOf({ pod, namespace, reason, allowed }: DropsFlags): string {
  const query = new URLSearchParams();
  if (pod !== undefined) {
    const { namespace: own, name } = podPath(pod, namespace);
    query.set('pod', `${own}/${name}`);
  }
  if (reason !== undefined) query.set('reason', reason);
  for (const kind of ['drop', 'audit', ...(allowed ? ['allow'] : [])]) query.append('kind', kind);
  return query.toString();
}

/** Until it is interrupted, or whoever reads is gone; an agent that fails is told of, and the others go on. */
async function follow(agents: readonly AgentTransport[], query: string, json: boolean): Promise<void> {
  const ending = new AbortController();
  const signal = AbortSignal.any([stopSignal(), ending.signal]);
  process.stdout.on('error', () => ending.abort());
  const show = (event: FlowEvent): void => print(json ? JSON.stringify(event) : renderEvent(event));
  const each = async (agent: AgentTransport): Promise<void> => {
    try {
      for await (const line of followAgent<DropsLine>(agent, `/v1/drops/follow?${query}`, signal)) {
        if (line.skipped !== undefined) process.stderr.write(`sluice: ${agent.name}: ${line.skipped} events skipped\n`);
        if (line.event !== undefined) show(line.event);
      }
    } catch (error) {
      if (!signal.aborted) warn(error);
    }
  };
  await Promise.all(agents.map(each));
}
