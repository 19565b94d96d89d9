/** Which agents a command asks: the one of this node, or all of a lab's. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { NodeInfo } from '../api/agent-api.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import type { LabState } from '../lab/lifecycle/state.ts';
import { askAgent, unixAgent, type AgentTransport } from './agent-client.ts';
import { defaultLabDir } from './lab-dir.ts';

export interface TargetFlags {
  readonly agent?: string;
  readonly lab?: string;
  readonly json: boolean;
}

export const defaultAgentSocket = '/run/sluice/agent.sock';

/** The options that every command over the agent's API has. */
export function withTarget(command: Command): Command {
  return command
    .addOption(new Option('--agent <socket>', `socket of one node’s agent (default: ${defaultAgentSocket})`))
    .addOption(
      new Option('--lab <directory>', 'ask every node of this lab (default: the default lab, if it is up)').conflicts(
        'agent',
      ),
    )
    .option('--json', 'for programs', false);
}

/** --agent, else --lab, else the node's own agent, else the default lab. Throws not_found when there is none of these. */
export async function findAgents(flags: TargetFlags, env: NodeJS.ProcessEnv): Promise<AgentTransport[]> {
  if (flags.agent !== undefined) return [unixAgent(flags.agent, resolve(flags.agent))];
  const { mustLabState, readLabState } = await import('../lab/lifecycle/state.ts');
  if (flags.lab !== undefined) return labAgents(mustLabState(resolve(flags.lab)));
  if (existsSync(defaultAgentSocket)) return [unixAgent(defaultAgentSocket, defaultAgentSocket)];
  const state = readLabState(defaultLabDir(env));
  if (state !== undefined) return labAgents(state);
  throw new SluiceError({
    code: 'not_found',
    operation: 'find',
    object: 'an agent to ask',
    what: `there is no ${defaultAgentSocket} and no lab in ${defaultLabDir(env)}`,
    remedy: 'run this on a node of the cluster, or name --agent SOCKET or --lab DIR',
  });
}

export async function labAgents(state: LabState): Promise<AgentTransport[]> {
  if (state.vm !== undefined) return (await import('./vm-agent.ts')).vmAgents(state);
  const { labLayout, nodeNames, nodePaths } = await import('../lab/layout.ts');
  const lab = labLayout(state);
  return nodeNames(state.nodes).map((name) => unixAgent(name, nodePaths(lab, name).agentSocket));
}

/**
 * Every agent's answer. What all refuse is thrown; what some refuse is left out, and those that do not answer at all are
 * told through `onFailure`, since the others' answers are worth having.
 */
export async function askAll<T>(
  agents: readonly AgentTransport[],
  ask: (agent: AgentTransport) => Promise<T>,
  onFailure: (error: unknown) => void,
): Promise<T[]> {
  const settled = await Promise.allSettled(agents.map(ask));
  const answers = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const errors = settled.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
  if (answers.length === 0) throw errors.find((error) => hasErrorCode(error, 'not_found')) ?? errors[0];
  for (const error of errors) if (!hasErrorCode(error, 'not_found')) onFailure(error);
  return answers;
}

export function nodeInfoOf(agent: AgentTransport): Promise<NodeInfo> {
  return askAgent(agent, { path: '/v1/node' });
}

/** On standard error, beside an answer that is about the kernel: why it may not be as the API objects say. */
export async function tellProblems(agents: readonly AgentTransport[]): Promise<void> {
  // Who does not answer was told of with the answer itself.
  for (const asked of await Promise.allSettled(agents.map(nodeInfoOf))) {
    if (asked.status === 'rejected') continue;
    const { node, problems } = asked.value;
    for (const problem of problems) process.stderr.write(`sluice: ${node} may lag behind: ${problem}\n`);
  }
}
