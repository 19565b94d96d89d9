/** `sluice status`: the agents themselves, and what keeps the kernel from being as the API objects say. */
import type { Command } from 'commander';
import { askAll, findAgents, nodeInfoOf, withTarget, type TargetFlags } from './agents.ts';
import { examples } from './endpoint.ts';
import { print, printJson, warn } from './output.ts';
import { renderStatus } from './render.ts';

export function registerStatusCommand(program: Command): void {
  withTarget(program.command('status'))
    .description('every node’s agent: enforcement mode, state, problems with their remedies. Exit status 1: problems')
    .addHelpText('after', examples('sluice status', 'sluice status --lab DIR --json'))
    .action(status);
}

async function status(flags: TargetFlags): Promise<void> {
  const nodes = await askAll(await findAgents(flags, process.env), nodeInfoOf, warn);
  if (flags.json) printJson(nodes);
  else print(renderStatus(nodes));
  if (nodes.some(({ synced, problems }) => !synced || problems.length > 0)) process.exitCode = 1;
}
