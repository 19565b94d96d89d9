/** `sluice agent`: the node's daemon, in the foreground. */
import { hostname } from 'node:os';
import { type Command, Option } from 'commander';
import { enforcementModes, type EnforcementMode } from '../api/agent-api.ts';
import { adoptionModes, type AdoptionMode } from '../agent/limits.ts';
import { registerAgentCleanupCommand } from './agent-cleanup.ts';
import { configOption, logLevelOption } from './controller.ts';
import { createLogger, stopSignal } from './process.ts';

interface AgentFlags {
  readonly kubeconfig?: string;
  readonly nodeName: string;
  readonly bpffs: string;
  readonly stateDir: string;
  readonly cniSocket: string;
  readonly agentSocket?: string;
  readonly spiderSocket?: string;
  readonly policyEnforcement: EnforcementMode;
  readonly healthAddress: string;
  readonly attachmentNamespace: string;
  readonly clusterNetwork?: string;
  readonly adoptExistingPods: AdoptionMode;
  readonly detectIpConflicts: boolean;
  readonly detectGateways: boolean;
  readonly config?: string;
  readonly mapSize: readonly string[];
  readonly logLevel: string;
}

export function registerAgentCommand(program: Command): void {
  const agent = program.command('agent');
  agent
    .description('serve CNI calls of this node and keep policy and limits of its pods in the kernel')
    .option('--kubeconfig <file>', 'default: the service account, or what $KUBECONFIG and ~/.kube/config say')
    .option('--node-name <name>', 'the name of this node’s Node object', hostname())
    .option('--bpffs <directory>', 'where programs, maps and links are pinned', '/sys/fs/bpf/sluice')
    .option('--state-dir <directory>', 'endpoint records', '/var/lib/sluice')
    .option('--cni-socket <path>', 'unix socket of the CNI executables', '/run/sluice/cni.sock')
    .option('--agent-socket <path>', 'unix socket of the API for tools (default: agent.sock beside the CNI socket)')
    .option('--spider-socket <path>', 'unix socket for Spiderpool’s own CNI executables (default: none)')
    .addOption(policyEnforcementOption())
    .option('--health-address <host:port>', '/healthz, /readyz and /metrics', '127.0.0.1:9879')
    .option('--attachment-namespace <name>', 'namespace of attachments that are named without one', 'kube-system')
    .option('--cluster-network <namespace/name>', 'attachment of pods that name none')
    .option('--detect-ip-conflicts', 'ask the link whether somebody has an address before a pod gets it', false)
    .option('--detect-gateways', 'ask the link whether the gateway answers before a pod gets an address', false)
    .addOption(adoptionOption())
    .addOption(configOption())
    .addOption(mapSizeOption())
    .addOption(logLevelOption())
    .action(runAgent);
  registerAgentCleanupCommand(agent);
}

const adoptionOption = (): Option =>
  new Option(
    '--adopt-existing-pods <which>',
    'police running pods that Sluice did not set up: underlay is all but veth',
  )
    .choices(adoptionModes)
    .default('underlay');

const mapSizeOption = (): Option =>
  new Option('--map-size <map=entries...>', 'sizes of maps, for example policy=2097152').default(
    [],
    'those of docs/reference/limits.md',
  );

export const policyEnforcementOption = (): Option =>
  new Option(
    '--policy-enforcement <mode>',
    'isolate pods when a policy selects them, always (both directions), or never',
  )
    .choices(enforcementModes)
    .default('default');

async function runAgent(flags: AgentFlags): Promise<void> {
  const [{ startAgent }, { parseMapSizes }, { loadKubeConfig }, { loadSettings }] = await Promise.all([
    import('../agent/agent.ts'),
    import('../agent/map-sizes.ts'),
    import('../kube/config.ts'),
    import('./settings.ts'),
  ]);
  const stop = stopSignal();
  const log = createLogger('agent', flags.logLevel);
  const { settings, warnings } = loadSettings(flags.config);
  for (const warning of warnings) log.warn({}, warning);
  const agent = await startAgent({
    kubeConfig: loadKubeConfig({ path: flags.kubeconfig }),
    nodeName: flags.nodeName,
    bpffsDir: flags.bpffs,
    stateDir: flags.stateDir,
    cniSocketPath: flags.cniSocket,
    agentSocketPath: flags.agentSocket,
    spiderSocketPath: flags.spiderSocket,
    policyEnforcement: flags.policyEnforcement,
    healthAddress: flags.healthAddress,
    attachmentNamespace: flags.attachmentNamespace,
    clusterNetwork: flags.clusterNetwork,
    adoptExistingPods: flags.adoptExistingPods,
    detection: {
      conflicts: flags.detectIpConflicts || settings.enableIPConflictDetection,
      gateways: flags.detectGateways || settings.enableGatewayDetection,
    },
    mapSizes: parseMapSizes(flags.mapSize),
    settings,
    log,
  });
  if (!stop.aborted)
    await new Promise<void>((resolve) => stop.addEventListener('abort', () => resolve(), { once: true }));
  await agent.stop();
}
