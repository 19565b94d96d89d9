/** The cluster through an unmodified kubectl, as a person would use it. */
import type { Cluster, ContainerRef, ExecResult, PodRef, PodView } from './cluster.ts';
import { type PodObject, podView } from './pod-view.ts';
import { mustRun, runCommand } from './run-command.ts';

const requestTimeoutMs = 120_000;

/** Undefined when there is no kubectl, or one older than 1.30 that cannot be told to use WebSockets for exec. */
export async function findKubectl(kubeconfig: string, env: NodeJS.ProcessEnv): Promise<Cluster | undefined> {
  const withConfig = { ...env, KUBECONFIG: kubeconfig, KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'true' };
  let version: string;
  try {
    version = await mustRun('kubectl', ['version', '--client', '-o', 'json'], {
      env: withConfig,
      timeoutMs: requestTimeoutMs,
    });
  } catch {
    return undefined;
  }
  const gitVersion = (JSON.parse(version) as { clientVersion?: { gitVersion?: string; minor?: string } }).clientVersion;
  if (Number.parseInt(gitVersion?.minor ?? '0', 10) < 30) return undefined;
  return kubectlCluster(`kubectl ${gitVersion?.gitVersion ?? ''}`, withConfig);
}

function kubectlCluster(description: string, env: NodeJS.ProcessEnv): Cluster {
  const kubectl = (...args: string[]): Promise<string> =>
    mustRun('kubectl', args, { env, timeoutMs: requestTimeoutMs });
  return {
    description,
    apply: (file) => kubectl('apply', '-f', file),
    remove: (file) => kubectl('delete', '-f', file, '--ignore-not-found'),
    async pods(namespace: string, selector: string): Promise<PodView[]> {
      const list = JSON.parse(await kubectl('get', 'pods', '-n', namespace, '-l', selector, '-o', 'json')) as {
        items: PodObject[];
      };
      return list.items.map(podView);
    },
    async attachmentConfig(namespace: string, name: string): Promise<string | undefined> {
      const args = [
        'get',
        'network-attachment-definitions.k8s.cni.cncf.io',
        name,
        '-n',
        namespace,
        '--ignore-not-found',
        '-o',
        'json',
      ];
      const text = await kubectl(...args);
      return text.trim() === '' ? undefined : (JSON.parse(text) as { spec?: { config?: string } }).spec?.config;
    },
    async annotate(pod: PodRef, annotations: Readonly<Record<string, string | null>>): Promise<void> {
      const changes = Object.entries(annotations).map(([key, value]) =>
        value === null ? `${key}-` : `${key}=${value}`,
      );
      await kubectl('annotate', 'pod', pod.name, '-n', pod.namespace, '--overwrite', ...changes);
    },
    exec(pod: ContainerRef, command: readonly string[], timeoutMs: number): Promise<ExecResult> {
      const where = [pod.name, ...(pod.container === undefined ? [] : ['-c', pod.container])];
      return runCommand('kubectl', ['exec', '-n', pod.namespace, ...where, '--', ...command], { env, timeoutMs });
    },
  };
}
