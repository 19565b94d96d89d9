/** `sluice agent cleanup`: takes a stopped agent's work off the node. */
import type { Command } from 'commander';
import { examples } from './endpoint.ts';
import { print, printJson } from './output.ts';
import { createLogger } from './process.ts';

interface CleanupFlags {
  readonly dryRun: boolean;
  readonly json: boolean;
  readonly bpffs: string;
  readonly stateDir: string;
  readonly cniSocket: string;
  readonly agentSocket?: string;
  readonly logLevel: string;
}

/** Below `agent`, whose flags say what it put where. */
export function registerAgentCleanupCommand(agent: Command): void {
  agent
    .command('cleanup')
    .description(
      'take everything of a stopped agent off this node: limits, programs, bpffs, records, sockets; pods run on ' +
        'without policy and limits. Takes --bpffs, --state-dir, --cni-socket and --agent-socket as the agent does',
    )
    .option('--dry-run', 'only list what would go', false)
    .option('--json', 'for programs', false)
    .addHelpText(
      'after',
      examples('sluice agent cleanup --dry-run', 'sluice agent cleanup --state-dir /data/sluice --json'),
    )
    .action((_: unknown, command: Command) => cleanup(command.optsWithGlobals<CleanupFlags>()));
}

async function cleanup(flags: CleanupFlags): Promise<void> {
  const { cleanUp } = await import('../agent/cleanup.ts');
  const steps = await cleanUp({
    bpffsDir: flags.bpffs,
    stateDir: flags.stateDir,
    cniSocketPath: flags.cniSocket,
    agentSocketPath: flags.agentSocket,
    dryRun: flags.dryRun,
    log: createLogger('agent', flags.logLevel),
  });
  if (flags.json) return printJson(steps);
  const verb = flags.dryRun ? 'would remove' : 'removed';
  for (const { what, object } of steps) print(`${verb} ${what}: ${object}`);
  if (steps.length === 0) print('nothing to remove');
}
