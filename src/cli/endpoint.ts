/** `sluice endpoint …`: pod interfaces that agents enforce. */
import type { Command } from 'commander';
import type { EndpointDetail, EndpointSummary } from '../api/agent-api.ts';
import { askAgent } from './agent-client.ts';
import { askAll, findAgents, tellProblems, withTarget, type TargetFlags } from './agents.ts';
import { podPath, print, printJson, warn } from './output.ts';
import { renderEndpoint, renderEndpoints } from './render.ts';

export function registerEndpointCommands(program: Command): void {
  const endpoint = program.command('endpoint').description('pod interfaces whose policy is enforced');
  withTarget(endpoint.command('list'))
    .description('every endpoint: its node, addresses, isolation and policies')
    .addHelpText('after', examples('sluice endpoint list', 'sluice endpoint list --lab DIR --json'))
    .action(list);
  withTarget(endpoint.command('get'))
    .description('one pod’s endpoints, with counters by reason and by rule')
    .argument('<pod>', 'NAMESPACE/POD, or POD with -n')
    .option('-n, --namespace <name>', 'namespace of a POD that does not say it', 'default')
    .addHelpText('after', examples('sluice endpoint get demo/web', 'sluice endpoint get web -n demo --json'))
    .action(get);
}

export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}\n`;
}

async function list(flags: TargetFlags): Promise<void> {
  const agents = await findAgents(flags, process.env);
  const ask = (agent: (typeof agents)[number]): Promise<EndpointSummary[]> =>
    askAgent(agent, { path: '/v1/endpoints' });
  const endpoints = (await askAll(agents, ask, warn)).flat();
  if (flags.json) printJson(endpoints);
  else print(renderEndpoints(endpoints));
  await tellProblems(agents);
}

async function get(pod: string, flags: TargetFlags & { readonly namespace: string }): Promise<void> {
  const { namespace, name } = podPath(pod, flags.namespace);
  const path = `/v1/endpoints/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const agents = await findAgents(flags, process.env);
  const found = (await askAll(agents, (agent) => askAgent<EndpointDetail[]>(agent, { path }), warn)).flat();
  if (flags.json) printJson(found);
  else print(found.map(renderEndpoint).join('\n\n'));
  await tellProblems(agents);
}
