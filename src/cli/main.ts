/** The `sluice` command: wiring only. Each command loads its part of the program when it runs. */
import { Command } from 'commander';
import { formatErrorChain } from '../core/error.ts';
import { registerAgentCommand } from './agent.ts';
import { registerBandwidthCommands } from './bandwidth.ts';
import { registerControllerCommand } from './controller.ts';
import { registerDemoCommand } from './demo.ts';
import { registerDropsCommand } from './drops.ts';
import { registerEndpointCommands } from './endpoint.ts';
import { registerIpamCommands } from './ipam.ts';
import { registerLabCommands } from './lab.ts';
import { registerPolicyCommands } from './policy.ts';
import { registerPreflightCommands } from './preflight.ts';
import { registerStatusCommand } from './status.ts';
import { version } from './version.ts';
import { registerVmCommands } from './vm.ts';

const program = new Command('sluice')
  .description('network policy, bandwidth limits and addresses for Kubernetes pods on underlay networks')
  .version(version())
  .showHelpAfterError('(add --help for the options)');

registerAgentCommand(program);
registerControllerCommand(program);
registerPreflightCommands(program);
registerStatusCommand(program);
registerEndpointCommands(program);
registerPolicyCommands(program);
registerDropsCommand(program);
registerBandwidthCommands(program);
registerIpamCommands(program);
registerLabCommands(program);
registerDemoCommand(program);
registerVmCommands(program);

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`sluice: ${formatErrorChain(error)}\n`);
  if (process.env['SLUICE_DEBUG'] !== undefined && error instanceof Error)
    process.stderr.write(`${error.stack ?? ''}\n`);
  process.exitCode = 1;
}
