/** `sluice preflight node|cluster`: what stands in the way of an installation, and whether one is whole. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { Grant } from '../controller/account-review.ts';
import type { PreflightFinding } from '../core/preflight-finding.ts';
import { examples } from './endpoint.ts';
import { print, printJson } from './output.ts';

interface NodeFlags {
  readonly bpffs: string;
  readonly cniBinDir: string;
  readonly cniConfDir: string;
  readonly json: boolean;
}

interface ClusterFlags {
  readonly kubeconfig?: string;
  readonly json: boolean;
}

export function registerPreflightCommands(program: Command): void {
  const preflight = program
    .command('preflight')
    .description('what stands in the way of an installation, with remedies. Exit status 1: problems');
  preflight
    .command('node')
    .description('this node: kernel, bpffs, CNI executables and configuration. As root; changes nothing')
    .option('--bpffs <directory>', 'as the agent is to have it', '/sys/fs/bpf/sluice')
    .option('--cni-bin-dir <directory>', 'where the kubelet’s CNI executables are', '/opt/cni/bin')
    .option('--cni-conf-dir <directory>', 'where their configuration is', '/etc/cni/net.d')
    .option('--json', 'for programs', false)
    .addHelpText('after', examples('sluice preflight node', 'sluice preflight node --cni-bin-dir /usr/lib/cni --json'))
    .action(node);
  preflight
    .command('cluster')
    .description('the API: definitions, rights of the accounts, webhooks, other installations. Reads only')
    .option('--kubeconfig <file>', 'default: the service account, or what $KUBECONFIG and ~/.kube/config say')
    .option('--json', 'for programs', false)
    .addHelpText('after', examples('sluice preflight cluster', 'sluice preflight cluster --kubeconfig FILE --json'))
    .action(cluster);
}

async function node(flags: NodeFlags): Promise<void> {
  const { preflightNode } = await import('../agent/preflight.ts');
  const { bpffs: bpffsDir, cniBinDir, cniConfDir } = flags;
  tell(preflightNode({ bpffsDir, cniBinDir, cniConfDir, uid: process.getuid?.() }), flags.json);
}

async function cluster(flags: ClusterFlags): Promise<void> {
  const [{ preflightCluster }, { createKubeClient }, { loadKubeConfig }] = await Promise.all([
    import('../controller/preflight.ts'),
    import('../kube/client.ts'),
    import('../kube/config.ts'),
  ]);
  const client = createKubeClient(loadKubeConfig({ path: flags.kubeconfig }), { userAgent: 'sluice-cli' });
  try {
    tell(await preflightCluster(client, await readGrants()), flags.json);
  } finally {
    client.close();
  }
}

function tell(findings: readonly PreflightFinding[], json: boolean): void {
  if (findings.some(({ state }) => state === 'problem')) process.exitCode = 1;
  if (json) return printJson(findings);
  for (const { check, state, what, remedy } of findings)
    print(`${state.padEnd(7)}  ${check}: ${what}${remedy === undefined ? '' : `\n         → ${remedy}`}`);
}

interface RbacObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Grant['rule'][];
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly name: string; readonly namespace: string }[];
}

/** What deploy/rbac.yaml gives to whom. */
export async function readGrants(): Promise<Grant[]> {
  const [{ parseAllDocuments }, { packageRoot }] = await Promise.all([
    import('../core/yaml.ts'),
    import('../kernel/package-root.ts'),
  ]);
  const text = readFileSync(join(packageRoot(), 'deploy/rbac.yaml'), 'utf8');
  const objects = parseAllDocuments(text).map((document) => document.toJS() as RbacObject);
  return objects.flatMap(({ roleRef, subjects = [], metadata: { namespace } }) => {
    const role = objects.find(
      ({ kind, metadata }) =>
        kind === roleRef?.kind && metadata.name === roleRef.name && metadata.namespace === namespace,
    );
    return subjects.flatMap((subject) => (role?.rules ?? []).map((rule) => ({ account: subject, namespace, rule })));
  });
}
