/** `sluice controller`: the cluster's one controller, in the foreground. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { defaultConfigPath } from './config-path.ts';
import { registerControllerCleanupCommand } from './controller-cleanup.ts';
import { createLogger, stopSignal } from './process.ts';

interface ControllerFlags {
  readonly kubeconfig?: string;
  readonly webhookHost: string;
  readonly webhookPort: number;
  readonly webhookUrl?: string;
  readonly webhookService?: string;
  readonly webhookSecret?: string;
  readonly healthPort: number;
  readonly namespace: string;
  readonly config?: string;
  readonly strictSubnet: boolean;
  readonly logLevel: string;
}

export function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) throw new InvalidArgumentError('give a port number, 0 to 65535');
  return port;
}

export const logLevelOption = (): Option =>
  new Option('--log-level <level>', 'what to log').choices(['debug', 'info', 'warn', 'error']).default('info');

/** Also of `sluice agent`. */
export const configOption = (): Option =>
  new Option('--config <file>', `conf.yml, docs/reference/configuration.md (default: ${defaultConfigPath} if there)`);

export function registerControllerCommand(program: Command): void {
  const controller = program
    .command('controller')
    .description('generate attachments, keep pools, serve the admission webhooks')
    .option('--kubeconfig <file>', 'default: the service account, or what $KUBECONFIG and ~/.kube/config say')
    .option('--webhook-host <address>', 'where the webhooks listen', '127.0.0.1')
    .option('--webhook-port <port>', '0 takes a free one', parsePort, 5722)
    .option('--webhook-url <host:port>', 'how the API server reaches the webhooks (default: where they listen)')
    .option('--webhook-service <namespace/name:port>', 'in a cluster: the Service in front of the webhooks')
    .option(
      '--webhook-secret <namespace/name>',
      'your certificate: tls.crt, tls.key, ca.crt (default: makes and renews one)',
    )
    .option('--health-port <port>', 'of /healthz and /readyz; 0 takes a free one', parsePort, 5720)
    .option('--namespace <name>', 'where the lease, the claims and the certificate live', 'kube-system')
    .addOption(configOption())
    .option('--strict-subnet', 'refuse pools whose subnet has host bits instead of clearing them', false)
    .addOption(logLevelOption())
    .action(runController);
  registerControllerCleanupCommand(controller);
}

async function runController(flags: ControllerFlags): Promise<void> {
  const [{ startController }, { loadKubeConfig }, { loadSettings }] = await Promise.all([
    import('../controller/start.ts'),
    import('../kube/config.ts'),
    import('./settings.ts'),
  ]);
  const log = createLogger('controller', flags.logLevel);
  const { settings, warnings } = loadSettings(flags.config);
  for (const warning of warnings) log.warn(warning);
  const controller = await startController({
    kubeConfig: loadKubeConfig({ path: flags.kubeconfig }),
    webhook: {
      host: flags.webhookHost,
      port: flags.webhookPort,
      url: flags.webhookUrl,
      service: parseService(flags.webhookService),
      secret: parseSecret(flags.webhookSecret),
    },
    healthPort: flags.healthPort,
    namespace: flags.namespace,
    strictSubnet: flags.strictSubnet,
    settings,
    log,
    signal: stopSignal(),
  });
  log.info({ health: controller.healthUrl, webhook: controller.webhookUrl }, 'controller started');
  await controller.stopped;
}

function parseService(text: string | undefined): { namespace: string; name: string; port: number } | undefined {
  if (text === undefined) return undefined;
  const match = /^([a-z0-9-]+)\/([a-z0-9-]+):(\d+)$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined)
    throw new InvalidArgumentError('--webhook-service: write namespace/name:port');
  return { namespace: match[1], name: match[2], port: Number(match[3]) };
}

function parseSecret(text: string | undefined): { namespace: string; name: string } | undefined {
  if (text === undefined) return undefined;
  const match = /^([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined)
    throw new InvalidArgumentError('--webhook-secret: write namespace/name');
  return { namespace: match[1], name: match[2] };
}
