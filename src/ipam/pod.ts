/** What address allocation asks of a pod: whether it lives, and which attachment an interface of it has. */

import type { OwnerReference } from '../api/kubernetes.ts';
import { additionalNetworks, defaultInterface, defaultNetwork } from '../api/network-selection.ts';

export interface IpamPod {
  readonly metadata?: {
    readonly name?: string | undefined;
    readonly namespace?: string | undefined;
    readonly uid?: string | undefined;
    readonly labels?: Readonly<Record<string, string>> | undefined;
    readonly annotations?: Readonly<Record<string, string>> | undefined;
    readonly deletionTimestamp?: string | Date | null | undefined;
    readonly ownerReferences?: readonly OwnerReference[] | undefined;
  };
  readonly spec?: { readonly nodeName?: string | undefined; readonly restartPolicy?: string | undefined };
  readonly status?: {
    readonly phase?: string | undefined;
    readonly reason?: string | undefined;
    readonly podIPs?: readonly { readonly ip?: string | undefined }[] | undefined;
  };
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

/** namespace/name of the interface's attachment; undefined when nothing names one. Throws for a malformed annotation. */
export function attachmentOf(pod: IpamPod, interfaceName: string, defaults: AttachmentDefaults): string | undefined {
  const { namespace = 'default', name = '', annotations } = pod.metadata ?? {};
  const annotated = { namespace, name, annotations };
  if (interfaceName === defaultInterface) {
    const selection = defaultNetwork(annotated, defaults.namespace);
    if (selection !== undefined) return `${selection.namespace}/${selection.name}`;
    const { clusterNetwork } = defaults;
    return clusterNetwork?.includes('/') === false ? `${defaults.namespace}/${clusterNetwork}` : clusterNetwork;
  }
  const own = additionalNetworks(annotated).find((network) => network.interface === interfaceName);
  return own && `${own.namespace}/${own.name}`;
}

/** Place of the interface among the pod's: eth0 is 0; undefined when the pod's annotations do not name it. */
export function interfaceIndex(pod: IpamPod, interfaceName: string): number | undefined {
  if (interfaceName === defaultInterface) return 0;
  const { namespace = 'default', name = '', annotations } = pod.metadata ?? {};
  const place = additionalNetworks({ namespace, name, annotations }).findIndex(
    (network) => network.interface === interfaceName,
  );
  return place < 0 ? undefined : place + 1;
}
