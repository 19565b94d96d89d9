import { parse } from 'yaml';
import type { SpiderCoordinatorStatus } from '../api/spidercoordinator.ts';
import { formatPrefix, parsePrefix } from '../core/ip.ts';

/** The CIDRs of the default network's pods and of services: from where, and what a SpiderCoordinator says of them. */

export interface CidrSources {
  /** Names (and types of the first plugin) of the CNI configurations on this node, in the order of their files. */
  cniNetworks(): Promise<readonly string[]>;
  /** ClusterConfiguration of kube-system/kubeadm-config. */
  kubeadmConfig(): Promise<string | undefined>;
  /** Command and arguments of a kube-controller-manager. */
  controllerManagerArgs(): Promise<readonly string[]>;
  /** Of all Calico pools that are not going; disabled ones too, since pods still hold their addresses. */
  calicoCidrs(): Promise<readonly string[]>;
  /** Data of the ConfigMap cilium-config. */
  ciliumConfig(): Promise<Readonly<Record<string, string>> | undefined>;
  ciliumPoolCidrs(): Promise<readonly string[]>;
  /** Of the ServiceCIDR API; empty when it is not served. */
  serviceCidrs(): Promise<readonly string[]>;
}

/** What an operator sets by hand: comma lists in annotations of the SpiderCoordinator. */
export const cidrAnnotations = { pod: 'sluice.io/overlay-pod-cidr', service: 'sluice.io/service-cidr' } as const;

interface Found {
  readonly cidrs: readonly string[];
  /** Why there are none; absent when that is as it should be. */
  readonly missing?: string;
}

interface ClusterCidrs {
  readonly pod: readonly string[];
  readonly service: readonly string[];
}

/**
 * NotReady when the pods' CIDRs are unknown: their traffic would then leave by the wrong way. Services' CIDRs that are
 * unknown are said in `reason`, and pods start without them.
 */
export async function coordinatorStatus(
  podCidrType: string,
  annotations: Readonly<Record<string, string>>,
  sources: CidrSources,
): Promise<SpiderCoordinatorStatus> {
  const pod = overridden(annotations, cidrAnnotations.pod) ?? (await podCidrs(podCidrType, sources));
  if (pod.missing !== undefined) {
    return { phase: 'NotReady', reason: pod.missing, overlayPodCIDR: [], serviceCIDR: [] };
  }
  const service = overridden(annotations, cidrAnnotations.service) ?? (await serviceCidrs(sources));
  const found = { phase: 'Synced' as const, overlayPodCIDR: [...pod.cidrs], serviceCIDR: [...service.cidrs] };
  return service.missing === undefined ? found : { ...found, reason: service.missing };
}

async function podCidrs(type: string, sources: CidrSources): Promise<Found> {
  switch (type) {
    case 'none':
      return { cidrs: [] };
    case 'auto':
      return podCidrs(typeOfNetwork((await sources.cniNetworks())[0]), sources);
    case 'calico':
      return found(await sources.calicoCidrs(), 'there is no IPPool of Calico (crd.projectcalico.org)');
    case 'cilium':
      return ciliumCidrs(sources);
    case 'cluster':
      return found((await clusterCidrs(sources)).pod, noClusterCidrs('pods', cidrAnnotations.pod));
    default:
      return { cidrs: [], missing: `spec.podCIDRType "${type}" is unknown` };
  }
}

function typeOfNetwork(name: string | undefined): string {
  if (name === 'calico' || name === 'k8s-pod-network') return 'calico';
  if (name === 'cilium') return 'cilium';
  return name === 'flannel' ? 'cluster' : 'none';
}

async function ciliumCidrs(sources: CidrSources): Promise<Found> {
  const config = await sources.ciliumConfig();
  if (config === undefined) return { cidrs: [], missing: "Cilium's ConfigMap does not exist" };
  const mode = config['ipam'] ?? 'cluster-pool';
  if (mode === 'kubernetes') return podCidrs('cluster', sources);
  if (mode === 'multi-pool') return found(await sources.ciliumPoolCidrs(), 'there is no CiliumPodIPPool');
  if (!mode.startsWith('cluster-pool')) {
    return { cidrs: [], missing: `ipam mode ${mode} of Cilium is not known; set ${cidrAnnotations.pod}` };
  }
  const texts = [config['cluster-pool-ipv4-cidr'] ?? '', config['cluster-pool-ipv6-cidr'] ?? ''];
  return found(
    split(texts.join(' ')),
    "Cilium's ConfigMap has neither cluster-pool-ipv4-cidr nor cluster-pool-ipv6-cidr",
  );
}

async function serviceCidrs(sources: CidrSources): Promise<Found> {
  const served = await sources.serviceCidrs();
  if (served.length > 0) return found(served, '');
  return found((await clusterCidrs(sources)).service, noClusterCidrs('services', cidrAnnotations.service));
}

async function clusterCidrs(sources: CidrSources): Promise<ClusterCidrs> {
  const kubeadm = fromKubeadm(await sources.kubeadmConfig());
  if (kubeadm.pod.length > 0 && kubeadm.service.length > 0) return kubeadm;
  const args = await sources.controllerManagerArgs();
  const flag = (name: string): string[] =>
    split(args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3) ?? '');
  return {
    pod: kubeadm.pod.length > 0 ? kubeadm.pod : flag('cluster-cidr'),
    service: kubeadm.service.length > 0 ? kubeadm.service : flag('service-cluster-ip-range'),
  };
}

function fromKubeadm(text: string | undefined): ClusterCidrs {
  try {
    const { networking } = (parse(text ?? '') ?? {}) as { networking?: Record<string, unknown> };
    return { pod: split(networking?.['podSubnet']), service: split(networking?.['serviceSubnet']) };
  } catch {
    return { pod: [], service: [] };
  }
}

function overridden(annotations: Readonly<Record<string, string>>, key: string): Found | undefined {
  const text = annotations[key];
  return text === undefined ? undefined : found(split(text), `annotation ${key} names no CIDR`);
}

/** Canonical, each once; one that is no CIDR makes the whole unknown. */
function found(texts: readonly string[], missing: string): Found {
  if (texts.length === 0) return { cidrs: [], missing };
  const prefixes = texts.map((text) => parsePrefix(text));
  const bad = texts.find((_, index) => prefixes[index] === undefined);
  if (bad !== undefined) return { cidrs: [], missing: `"${bad}" is not a CIDR` };
  return { cidrs: [...new Set(prefixes.map((prefix) => (prefix === undefined ? '' : formatPrefix(prefix))))] };
}

function split(text: unknown): string[] {
  return typeof text === 'string' ? text.split(/[\s,]+/).filter((part) => part !== '') : [];
}

function noClusterCidrs(what: string, annotation: string): string {
  return (
    `the CIDRs of ${what} are neither in kube-system/kubeadm-config nor in the arguments of kube-controller-manager; ` +
    `set the annotation ${annotation}`
  );
}
