/** `sluice lab …`: a whole cluster on one machine. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { resolve } from 'node:path';
import type { EnforcementMode } from '../api/agent-api.ts';
import { policyEnforcementOption } from './agent.ts';
import { logLevelOption, parsePort } from './controller.ts';
import { defaultLabDir } from './lab-dir.ts';
import { createLogger, stopSignal } from './process.ts';

interface DirFlags {
  readonly dir: string;
}
interface UpFlags extends DirFlags {
  readonly nodes: number;
  readonly link: 'ipvlan' | 'macvlan';
  readonly policyEnforcement: EnforcementMode;
  readonly apiHost: string;
  readonly apiPort: number;
}
interface DaemonFlags extends DirFlags {
  readonly logLevel: string;
}

export function registerLabCommands(program: Command): void {
  const lab = program.command('lab').description('a whole cluster on this machine: API, nodes, pods');
  lab
    .command('up')
    .description('bring the lab up and print the kubeconfig’s path; the lab stays')
    .addOption(dirOption())
    .option('--nodes <count>', 'number of nodes', parseCount, 2)
    .addOption(
      new Option('--link <kind>', 'kind of the pods’ interfaces').choices(['ipvlan', 'macvlan']).default('ipvlan'),
    )
    .addOption(policyEnforcementOption())
    .option('--api-host <address>', 'where the API listens', '127.0.0.1')
    .option('--api-port <port>', '0 takes a free one', parsePort, 0)
    .action(up);
  lab.command('down').description('take the lab down; nothing stays').addOption(dirOption()).action(down);
  lab
    .command('status')
    .description('nodes, processes, API address')
    .addOption(dirOption())
    .option('--json', 'for programs', false)
    .action(status);
  const daemons = { supervise: supervise, 'control-plane': controlPlane } as const;
  for (const [name, action] of Object.entries(daemons)) {
    lab.command(name, { hidden: true }).addOption(dirOption()).addOption(logLevelOption()).action(action);
  }
  lab
    .command('kubelet', { hidden: true })
    .addOption(dirOption())
    .requiredOption('--node <name>')
    .addOption(logLevelOption())
    .action(kubelet);
}

function dirOption(): Option {
  return new Option('--dir <directory>', 'where the lab lives').default(
    defaultLabDir(process.env),
    '$XDG_STATE_HOME/sluice/lab or ~/.local/state/sluice/lab',
  );
}

function parseCount(text: string): number {
  if (!/^[1-9][0-9]*$/.test(text)) throw new InvalidArgumentError('give a positive number');
  return Number(text);
}

const say = (line: string): void => void process.stderr.write(`sluice lab: ${line}\n`);

async function up(flags: UpFlags): Promise<void> {
  const [{ labUp }, { vmCacheDir }] = await Promise.all([
    import('../lab/lifecycle/up.ts'),
    import('../lab/vm/cache-dir.ts'),
  ]);
  const kubeconfig = await labUp({
    ...flags,
    dir: resolve(flags.dir),
    path: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    vmCacheDir: vmCacheDir(process.env),
    uid: process.getuid?.(),
    onProgress: say,
  });
  process.stdout.write(`${kubeconfig}\n`);
}

async function down(flags: DirFlags): Promise<void> {
  const { labDown } = await import('../lab/lifecycle/down.ts');
  const found = await labDown({ dir: resolve(flags.dir), uid: process.getuid?.(), onProgress: say });
  if (!found) say(`no lab in ${resolve(flags.dir)}`);
}

async function status(flags: DirFlags & { readonly json: boolean }): Promise<void> {
  const { labStatus, formatLabStatus } = await import('../lab/lifecycle/status.ts');
  const report = await labStatus({ dir: resolve(flags.dir) });
  process.stdout.write(`${flags.json ? JSON.stringify(report, undefined, 2) : formatLabStatus(report)}\n`);
}

async function supervise(flags: DaemonFlags): Promise<void> {
  const { runSupervisor } = await import('../lab/lifecycle/supervise.ts');
  const log = createLogger('supervisor', flags.logLevel);
  await runSupervisor({ dir: resolve(flags.dir), log, signal: stopSignal() });
}

async function controlPlane(flags: DaemonFlags): Promise<void> {
  const { runControlPlane } = await import('../lab/lifecycle/control-plane.ts');
  const log = createLogger('control-plane', flags.logLevel);
  await runControlPlane({ dir: resolve(flags.dir), log, signal: stopSignal() });
}

async function kubelet(flags: DaemonFlags & { readonly node: string }): Promise<void> {
  const { runLabKubelet } = await import('../lab/lifecycle/kubelet.ts');
  const log = createLogger('kubelet', flags.logLevel);
  await runLabKubelet({ dir: resolve(flags.dir), node: flags.node, log, signal: stopSignal() });
}
