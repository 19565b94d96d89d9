import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ConfigMap, KubeObject, Pod } from '../api/kubernetes.ts';
import { calicoIPPools, ciliumPodIPPools, configMaps, pods, serviceCidrs } from '../api/resources.ts';
import type { GroupVersionResource } from '../api/resources.ts';
import type { Settings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import type { CidrSources } from './coordinator-cidrs.ts';

/** The sources of CIDRs, on the API client and on the CNI configurations of this node. */

interface CalicoPool extends KubeObject {
  readonly spec?: { readonly cidr?: string };
}

interface CiliumPool extends KubeObject {
  readonly spec?: {
    readonly ipv4?: { readonly cidrs?: readonly string[] };
    readonly ipv6?: { readonly cidrs?: readonly string[] };
  };
}

interface ServiceCidr extends KubeObject {
  readonly spec?: { readonly cidrs?: readonly string[] };
}

export function cidrSources(
  client: KubeClient,
  { cniConfigDir, ciliumConfigMap }: Pick<Settings, 'cniConfigDir' | 'ciliumConfigMap'>,
): CidrSources {
  const dataOf = async (namespace: string, name: string): Promise<ConfigMap['data'] | undefined> =>
    (await listed<ConfigMap>(client, configMaps, { namespace, fieldSelector: `metadata.name=${name}` }))[0]?.data;
  const [ciliumNamespace = '', ciliumName = ''] = ciliumConfigMap.split('/');
  return {
    cniNetworks: () => cniNetworks(cniConfigDir),
    kubeadmConfig: async () => (await dataOf('kube-system', 'kubeadm-config'))?.['ClusterConfiguration'],
    controllerManagerArgs: async () => {
      const selector = { namespace: 'kube-system', labelSelector: 'component=kube-controller-manager' };
      const [pod] = await listed<Pod>(client, pods, selector);
      return (pod?.spec?.containers ?? []).flatMap(({ command = [], args = [] }) => [...command, ...args]);
    },
    calicoCidrs: async () =>
      (await listed<CalicoPool>(client, calicoIPPools))
        .filter(({ metadata }) => !metadata?.deletionTimestamp)
        .flatMap(({ spec }) => spec?.cidr ?? []),
    ciliumConfig: () => dataOf(ciliumNamespace, ciliumName),
    ciliumPoolCidrs: async () =>
      (await listed<CiliumPool>(client, ciliumPodIPPools)).flatMap(({ spec }) => [
        ...(spec?.ipv4?.cidrs ?? []),
        ...(spec?.ipv6?.cidrs ?? []),
      ]),
    serviceCidrs: () => servedServiceCidrs(client),
  };
}

/** The newest version that is served. */
async function servedServiceCidrs(client: KubeClient): Promise<string[]> {
  for (const version of ['v1', 'v1beta1', 'v1alpha1']) {
    const found = await listed<ServiceCidr>(client, { ...serviceCidrs, version });
    if (found.length > 0) return found.flatMap(({ spec }) => spec?.cidrs ?? []);
  }
  return [];
}

/** Empty when the API server does not know the resource. */
async function listed<T extends KubeObject>(
  client: KubeClient,
  gvr: GroupVersionResource,
  options: { readonly namespace?: string; readonly labelSelector?: string; readonly fieldSelector?: string } = {},
): Promise<readonly T[]> {
  return (await unlessNotFound(client.listAll<T>(gvr, options)))?.items ?? [];
}

/** Multus' own configuration stands before the one it calls. Files that are no JSON are none. */
async function cniNetworks(dir: string): Promise<string[]> {
  const files = await readdir(dir).catch(() => []);
  const wanted = files.filter((file) => /\.(conf|conflist|json)$/.test(file) && !file.startsWith('00-multus'));
  const names: string[] = [];
  for (const file of wanted.sort()) {
    const name = networkName(await readFile(join(dir, file), 'utf8').catch(() => ''));
    if (name !== undefined) names.push(name);
  }
  return names;
}

/** flannel's network is called cbr0 by its manifest, so its plugin tells it. */
function networkName(text: string): string | undefined {
  try {
    const conf = JSON.parse(text) as { name?: string; type?: string; plugins?: readonly { type?: string }[] };
    return (conf.plugins?.[0]?.type ?? conf.type) === 'flannel' ? 'flannel' : conf.name;
  } catch {
    return undefined;
  }
}
