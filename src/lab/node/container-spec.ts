/** What a container runs, from its spec: command line, environment, mounts. Pure. */
import { SluiceError } from '../../core/error.ts';
import type { Container, EnvVar, KeyRef, Pod } from './pod-api.ts';

export interface EnvSources {
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
  /** Text of one key; undefined when the object or the key does not exist. */
  readonly configMap: (name: string) => Readonly<Record<string, string>> | undefined;
  readonly secret: (name: string) => Readonly<Record<string, string>> | undefined;
}

/** The lab has no images: what an image would set comes from here. */
const baseEnvironment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
} as const;

/** Throws SluiceError 'invalid_resource' (kubelet: CreateContainerConfigError) when a reference cannot be resolved. */
export function containerEnvironment(pod: Pod, container: Container, sources: EnvSources): Record<string, string> {
  const env: Record<string, string> = { ...baseEnvironment, HOSTNAME: podHostname(pod) };
  for (const source of container.envFrom ?? []) {
    for (const [kind, ref] of [
      ['configmap', source.configMapRef],
      ['secret', source.secretRef],
    ] as const) {
      if (ref === undefined) continue;
      const data = kind === 'secret' ? sources.secret(ref.name) : sources.configMap(ref.name);
      if (data === undefined && ref.optional !== true) throw configError(`${kind} "${ref.name}" not found`);
      for (const [key, value] of Object.entries(data ?? {})) env[`${source.prefix ?? ''}${key}`] = value;
    }
  }
  for (const variable of container.env ?? []) {
    const value = variableValue(pod, container, variable, env, sources);
    if (value !== undefined) env[variable.name] = value;
  }
  return env;
}

function variableValue(
  pod: Pod,
  container: Container,
  variable: EnvVar,
  env: Readonly<Record<string, string>>,
  sources: EnvSources,
): string | undefined {
  const from = variable.valueFrom;
  if (from === undefined) return expandReferences(variable.value ?? '', env);
  if (from.fieldRef !== undefined) return fieldValue(pod, from.fieldRef.fieldPath, sources);
  if (from.resourceFieldRef !== undefined) {
    const [list = '', name = ''] = from.resourceFieldRef.resource.split('.', 2);
    return container.resources?.[list as 'limits' | 'requests']?.[name] ?? '0';
  }
  if (from.configMapKeyRef !== undefined) return keyValue('configmap', from.configMapKeyRef, sources.configMap);
  if (from.secretKeyRef !== undefined) return keyValue('secret', from.secretKeyRef, sources.secret);
  return '';
}

function keyValue(kind: string, ref: KeyRef, read: EnvSources['configMap']): string | undefined {
  const data = read(ref.name);
  const value = data?.[ref.key];
  if (value !== undefined || ref.optional === true) return value;
  throw configError(
    data === undefined ? `${kind} "${ref.name}" not found` : `couldn't find key ${ref.key} in ${kind} ${ref.name}`,
  );
}

/** The downward API's fields (Kubernetes docs, "Available fields"). */
export function fieldValue(pod: Pod, path: string, sources: Pick<EnvSources, 'podIps' | 'hostIps'>): string {
  const keyed = /^metadata\.(labels|annotations)\['([^']*)'\]$/.exec(path);
  if (keyed !== null) return pod.metadata[keyed[1] as 'labels' | 'annotations']?.[keyed[2] ?? ''] ?? '';
  switch (path) {
    case 'metadata.name':
      return pod.metadata.name;
    case 'metadata.namespace':
      return pod.metadata.namespace;
    case 'metadata.uid':
      return pod.metadata.uid;
    case 'spec.nodeName':
      return pod.spec.nodeName ?? '';
    case 'spec.serviceAccountName':
      return pod.spec.serviceAccountName ?? 'default';
    case 'status.podIP':
      return sources.podIps[0] ?? '';
    case 'status.podIPs':
      return sources.podIps.join(',');
    case 'status.hostIP':
      return sources.hostIps[0] ?? '';
    case 'status.hostIPs':
      return sources.hostIps.join(',');
    default:
      throw configError(`field path "${path}" is not supported`);
  }
}

/** `$(NAME)` → its value; `$$(NAME)` → the text `$(NAME)`; unknown names stay (k8s.io/kubernetes third_party/forked/golang/expansion). */
export function expandReferences(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(/\$(\$|\(([^()]*)\))/g, (whole, escape: string, name: string | undefined) => {
    if (escape === '$') return '$';
    return env[name ?? ''] ?? whole;
  });
}

/** The command line; undefined for a container that has neither command nor args: the lab serves its ports. */
export function commandLine(container: Container, env: Readonly<Record<string, string>>): string[] | undefined {
  // Without an image there is no entry point that args could be given to: they are the command line themselves.
  const words = [...(container.command ?? []), ...(container.args ?? [])];
  if (words.length === 0) return undefined;
  return words.map((word) => expandReferences(word, env));
}

export function podHostname(pod: Pod): string {
  return (pod.spec.hostname ?? pod.metadata.name).slice(0, 63).replace(/[-.]+$/, '');
}

/** kubelet's managed /etc/hosts. */
export function hostsFile(pod: Pod, podIps: readonly string[]): string {
  const name = podHostname(pod);
  const lines = [
    '# Kubernetes-managed hosts file.',
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
  ];
  return [...lines, ...podIps.map((ip) => `${ip}\t${name}`), ''].join('\n');
}

function configError(what: string): SluiceError {
  return new SluiceError({ code: 'invalid_resource', operation: 'create', object: 'container', what });
}
