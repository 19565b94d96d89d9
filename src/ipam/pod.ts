/** What address allocation asks of a pod: whether it lives, and which attachment an interface of it has. */

import { multusAnnotations } from '../api/spider.ts';

export interface IpamPod {
  readonly metadata?: {
    readonly name?: string | undefined;
    readonly namespace?: string | undefined;
    readonly uid?: string | undefined;
    readonly labels?: Readonly<Record<string, string>> | undefined;
    readonly annotations?: Readonly<Record<string, string>> | undefined;
    readonly deletionTimestamp?: string | Date | null | undefined;
  };
  readonly spec?: { readonly nodeName?: string | undefined; readonly restartPolicy?: string | undefined };
  readonly status?: { readonly phase?: string | undefined; readonly reason?: string | undefined };
}

/** A pod that is going or has ended for good gets no address, and its addresses may be returned. */
export function isPodAlive(pod: IpamPod): boolean {
  if (pod.metadata?.deletionTimestamp) return false;
  const restartPolicy = pod.spec?.restartPolicy ?? 'Always';
  const { phase, reason } = pod.status ?? {};
  if (phase === 'Succeeded') return restartPolicy === 'Always';
  if (phase === 'Failed') return restartPolicy !== 'Never' && reason !== 'Evicted';
  return true;
}

export interface AttachmentDefaults {
  /** Namespace of a default network named without one: Multus' own, not the pod's. */
  readonly namespace: string;
  /** The default network of pods that name none. */
  readonly clusterNetwork?: string | undefined;
}

/** namespace/name of the interface's attachment; undefined when nothing names one. */
export function attachmentOf(pod: IpamPod, interfaceName: string, defaults: AttachmentDefaults): string | undefined {
  const annotations = pod.metadata?.annotations ?? {};
  if (interfaceName === 'eth0') {
    const name = annotations[multusAnnotations.defaultNetwork] ?? defaults.clusterNetwork;
    return name === undefined ? undefined : qualify(name.trim().split('@')[0] ?? '', defaults.namespace);
  }
  const networks = parseNetworks(annotations[multusAnnotations.networks] ?? '');
  const own = networks.find((network, index) => (network.interface ?? `net${index + 1}`) === interfaceName);
  return own && qualify(own.name, own.namespace ?? pod.metadata?.namespace ?? 'default');
}

interface NetworkElement {
  readonly name: string;
  readonly namespace?: string;
  readonly interface?: string;
}

function qualify(name: string, namespace: string): string {
  return name.includes('/') ? name : `${namespace}/${name}`;
}

/** Either a JSON array of {name, namespace, interface} or a comma list of [namespace/]name[@interface]. */
function parseNetworks(text: string): NetworkElement[] {
  if (/[[{"]/.test(text)) {
    try {
      const value: unknown = JSON.parse(text);
      return Array.isArray(value) ? (value as NetworkElement[]) : [];
    } catch {
      return [];
    }
  }
  return text.split(',').flatMap((element) => {
    const [name = '', interfaceName] = element.trim().split('@');
    if (name === '') return [];
    return [interfaceName === undefined ? { name } : { name, interface: interfaceName }];
  });
}
