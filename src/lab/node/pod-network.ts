/** A pod's attachment: which one, ADD before the first container, DEL with what ADD was given. */
import { randomBytes } from 'node:crypto';
import { bandwidthCapability, parseNetworkList } from './cni-config.ts';
import type { CniAttachmentRequest, CniRunner } from './cni-runner.ts';
import { missingAttachment, selectAttachment } from './attachment.ts';
import type { KubeletApi, Pod } from './pod-api.ts';
import type { NetworkRecord, SandboxRecord } from './pod-record.ts';

/** CNI_IFNAME of the first interface. */
export const podInterface = 'eth0';

/** 64 hexadecimal digits, as containerd makes them. */
export function newContainerId(): string {
  return randomBytes(32).toString('hex');
}

/** Everything ADD needs, resolved from the API. Throws when the annotation or the attachment is wrong. */
export async function planNetwork(pod: Pod, sandboxId: string, api: KubeletApi): Promise<NetworkRecord> {
  const annotations = pod.metadata.annotations ?? {};
  const wanted = selectAttachment(pod.metadata, annotations);
  const attachment = await api.getAttachment(wanted.namespace, wanted.name);
  if (attachment === undefined) {
    const existing = (await api.listAttachments()).map((each) => each.metadata);
    throw missingAttachment(pod.metadata, annotations, wanted, existing);
  }
  const source = `NetworkAttachmentDefinition ${wanted.namespace}/${wanted.name}`;
  const list = parseNetworkList(attachment.spec?.config ?? '', source, wanted.name);
  const capable = list.plugins.some((plugin) => plugin.capabilities?.['bandwidth'] === true);
  return {
    list,
    args: {
      IgnoreUnknown: '1',
      K8S_POD_NAMESPACE: pod.metadata.namespace,
      K8S_POD_NAME: pod.metadata.name,
      K8S_POD_INFRA_CONTAINER_ID: sandboxId,
      K8S_POD_UID: pod.metadata.uid,
    },
    runtime: capable ? { bandwidth: bandwidthCapability(annotations) } : {},
  };
}

export function attachmentRequest(sandbox: SandboxRecord, network: NetworkRecord): CniAttachmentRequest {
  return {
    containerId: sandbox.id,
    netns: sandbox.netns,
    ifName: podInterface,
    args: network.args,
    runtime: network.runtime,
  };
}

/** IPv4 first, as kubelet lists them when the cluster's primary family is IPv4. */
export function podIpsOf(result: unknown): string[] {
  const { ips = [] } = result as { ips?: { address?: string }[] };
  const addresses = ips.flatMap((ip) => (ip.address === undefined ? [] : [ip.address.split('/')[0] ?? '']));
  return [...addresses.filter((ip) => !ip.includes(':')), ...addresses.filter((ip) => ip.includes(':'))];
}

export async function detach(runner: CniRunner, sandbox: SandboxRecord, network: NetworkRecord): Promise<void> {
  await runner.del(network.list, attachmentRequest(sandbox, network), network.result);
}
