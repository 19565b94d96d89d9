/** `sluice controller cleanup`: takes what stopped controllers left in the API out of it. */
import type { Command } from 'commander';
import { systemClock } from '../core/clock.ts';
import { examples } from './endpoint.ts';
import { print, printJson } from './output.ts';

interface CleanupFlags {
  readonly resources: boolean;
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly json: boolean;
  readonly kubeconfig?: string;
  readonly namespace: string;
}

/** Below `controller`, whose flags say which cluster and namespace. */
export function registerControllerCleanupCommand(controller: Command): void {
  controller
    .command('cleanup')
    .description(
      'take what the controllers left in the API out of it, once they are stopped: webhooks, finalizers, lease, ' +
        'certificate, claims. Takes --kubeconfig and --namespace as the controller does',
    )
    .option(
      '--resources',
      'delete every pool, subnet, SpiderEndpoint and other resource too; their records are lost',
      false,
    )
    .option('--dry-run', 'only list what would go', false)
    .option('--force', 'while a controller runs, and of resources that another controller keeps', false)
    .option('--json', 'for programs', false)
    .addHelpText(
      'after',
      examples('sluice controller cleanup --dry-run', 'sluice controller cleanup --resources --json'),
    )
    .action((_: unknown, command: Command) => cleanup(command.optsWithGlobals<CleanupFlags>()));
}

async function cleanup(flags: CleanupFlags): Promise<void> {
  const [{ cleanUpCluster }, { createKubeClient }, { loadKubeConfig }] = await Promise.all([
    import('../controller/cleanup.ts'),
    import('../kube/client.ts'),
    import('../kube/config.ts'),
  ]);
  const client = createKubeClient(loadKubeConfig({ path: flags.kubeconfig }), { userAgent: 'sluice-cli' });
  try {
    const steps = await cleanUpCluster({ ...flags, client, clock: systemClock });
    if (flags.json) return printJson(steps);
    const verb = flags.dryRun ? 'would remove' : 'removed';
    for (const { what, object, kept } of steps)
      print(kept === undefined ? `${verb} ${what}: ${object}` : `kept ${what}: ${object}: ${kept}`);
    if (steps.length === 0) print('nothing to remove');
  } finally {
    client.close();
  }
}
