/**
 * A pod's attachments: which ones, and what each ADD and DEL is given. What Multus does between a runtime and the plugins
 * (https://github.com/k8snetworkplumbingwg/multus-cni) is done here by the kubelet itself.
 */
import { randomBytes } from 'node:crypto';
import { defaultInterface, type AnnotatedPod, type NamedSelection } from '../../api/network-selection.ts';
import { missingAttachment, selectAttachments } from './attachment.ts';
import { bandwidthCapability, parseNetworkList, withCniArgs, type RuntimeCapabilities } from './cni-config.ts';
import type { CniAttachmentRequest, CniRunner } from './cni-runner.ts';
import type { KubeletApi, Pod } from './pod-api.ts';
import type { NetworkRecord, SandboxRecord } from './pod-record.ts';

/** 64 hexadecimal digits, as containerd makes them. */
export function newContainerId(): string {
  return randomBytes(32).toString('hex');
}

/**
 * Everything the ADDs need, in their order, resolved from the API before the first of them. Throws when an annotation or an
 * attachment is wrong.
 */
export async function planNetworks(pod: Pod, sandboxId: string, api: KubeletApi): Promise<NetworkRecord[]> {
  const { namespace, name, annotations } = pod.metadata;
  const annotated = { namespace, name, annotations };
  const records: NetworkRecord[] = [];
  for (const selection of selectAttachments(annotated))
    records.push(await planNetwork(pod, annotated, selection, sandboxId, api));
  return records;
}

async function planNetwork(
  pod: Pod,
  annotated: AnnotatedPod,
  selection: NamedSelection,
  sandboxId: string,
  api: KubeletApi,
): Promise<NetworkRecord> {
  const { namespace, name } = selection;
  const attachment = await api.getAttachment(namespace, name);
  if (attachment === undefined) {
    const existing = (await api.listAttachments()).map((each) => each.metadata);
    throw missingAttachment(annotated, selection, existing);
  }
  const source = `NetworkAttachmentDefinition ${namespace}/${name}`;
  const list = parseNetworkList(attachment.spec?.config ?? '', source, name);
  return {
    attachment: `${namespace}/${name}`,
    interface: selection.interface,
    list: selection.cniArgs === undefined ? list : withCniArgs(list, selection.cniArgs),
    args: {
      IgnoreUnknown: '1',
      K8S_POD_NAMESPACE: pod.metadata.namespace,
      K8S_POD_NAME: pod.metadata.name,
      K8S_POD_INFRA_CONTAINER_ID: sandboxId,
      K8S_POD_UID: pod.metadata.uid,
    },
    runtime: capabilities(annotated, selection),
    ...(selection.defaultRoute === undefined ? {} : { defaultRoute: selection.defaultRoute }),
  };
}

/** Plugins get those they declare. The pod's own annotations are about the default network only, as with a real kubelet. */
function capabilities(pod: AnnotatedPod, selection: NamedSelection): RuntimeCapabilities {
  const ofPod = selection.interface === defaultInterface ? bandwidthCapability(pod.annotations ?? {}) : undefined;
  const { ips, mac, portMappings, infinibandGuid } = selection;
  const offered = { ips, mac, portMappings, infinibandGUID: infinibandGuid, bandwidth: selection.bandwidth ?? ofPod };
  return Object.fromEntries(Object.entries(offered).filter(([, value]) => value !== undefined));
}

export function attachmentRequest(sandbox: SandboxRecord, network: NetworkRecord): CniAttachmentRequest {
  return {
    containerId: sandbox.id,
    netns: sandbox.netns,
    ifName: network.interface,
    args: network.args,
    runtime: network.runtime,
  };
}

/** Of the default network's result. IPv4 first, as kubelet lists them when the cluster's primary family is IPv4. */
export function podIpsOf(result: unknown): string[] {
  const { ips = [] } = result as { ips?: { address?: string }[] };
  const addresses = ips.flatMap((ip) => (ip.address === undefined ? [] : [ip.address.split('/')[0] ?? '']));
  return [...addresses.filter((ip) => !ip.includes(':')), ...addresses.filter((ip) => ip.includes(':'))];
}

/** DEL of the last one first. `onDetached` is told what is left after each; all are tried, and the first failure is thrown. */
export async function detachAll(
  runner: Pick<CniRunner, 'del'>,
  sandbox: SandboxRecord,
  networks: readonly NetworkRecord[],
  onDetached: (left: readonly NetworkRecord[]) => void,
): Promise<void> {
  let left = networks;
  const failures: unknown[] = [];
  for (const network of networks.toReversed()) {
    try {
      await runner.del(network.list, attachmentRequest(sandbox, network), network.result);
      left = left.filter((other) => other !== network);
      onDetached(left);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
