/** What a cluster must have, and must not have, before Sluice is installed, and whether the installation is whole afterwards. */
import type { KubeObject } from '../api/kubernetes.ts';
import {
  customResourceDefinitions,
  daemonSets,
  leases,
  networkAttachmentDefinitions,
  resourceName,
  spiderCoordinators,
  spiderEndpoints,
  spiderIPPools,
  spiderMultusConfigs,
  spiderReservedIPs,
  spiderSubnets,
  validatingWebhookConfigurations,
  type GroupVersionResource,
} from '../api/resources.ts';
import { formatErrorChain } from '../core/error.ts';
import type { PreflightFinding } from '../core/preflight-finding.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import { accountFindings, type Grant } from './account-review.ts';
import { leaseName, type Lease } from './leader.ts';
import { otherControllers } from './other-controllers.ts';
import { registrationName } from './webhook-registration.ts';

/** `grants`: what deploy/rbac.yaml gives the accounts. */
export async function preflightCluster(client: KubeClient, grants: readonly Grant[]): Promise<PreflightFinding[]> {
  const version = (await client.raw('/version')) as { readonly gitVersion?: string };
  const server: PreflightFinding = { check: 'api server', state: 'ok', what: `answers, ${version.gitVersion ?? ''}` };
  const parts = [definitions, otherInstallations, webhooks, multus, cilium];
  const findings = await Promise.all([
    ...parts.map((part) => part(client).catch((error: unknown) => [notAsked(part.name, error)])),
    accountFindings(client, grants).catch((error: unknown) => [notAsked('rbac', error)]),
  ]);
  return [server, ...findings.flat()];
}

function notAsked(check: string, error: unknown): PreflightFinding {
  return { check, state: 'warning', what: formatErrorChain(error), remedy: 'ask as an administrator of the cluster' };
}

interface Definition extends KubeObject {
  readonly spec?: { readonly versions?: readonly { readonly name: string; readonly served: boolean }[] };
}

const needed: readonly GroupVersionResource[] = [
  ...[spiderIPPools, spiderSubnets, spiderReservedIPs, spiderEndpoints, spiderMultusConfigs, spiderCoordinators],
  networkAttachmentDefinitions,
];

async function definitions(client: KubeClient): Promise<PreflightFinding[]> {
  const check = 'definitions';
  const found = await Promise.all(
    needed.map(async (gvr) => ({
      gvr,
      definition: await unlessNotFound(client.get<Definition>(customResourceDefinitions, { name: resourceName(gvr) })),
    })),
  );
  const findings = found.flatMap(({ gvr, definition }): PreflightFinding[] => {
    const name = resourceName(gvr);
    if (definition === undefined)
      return [{ check, state: 'problem', what: `${name} is missing`, remedy: 'kubectl apply -f deploy/crds' }];
    if (definition.spec?.versions?.some((each) => each.name === gvr.version && each.served) !== true) {
      const what = `${name} does not serve ${gvr.version}`;
      return [{ check, state: 'problem', what, remedy: 'kubectl apply -f deploy/crds' }];
    }
    const release = definition.metadata?.annotations?.['meta.helm.sh/release-name'];
    if (release === undefined) return [];
    const what = `${name} belongs to the Helm release ${release}`;
    const remedy = 'uninstalling it may delete the definition, and every object with it';
    return [{ check, state: 'warning', what, remedy }];
  });
  return findings.length > 0 ? findings : [{ check, state: 'ok', what: `all ${needed.length} are served` }];
}

async function otherInstallations(client: KubeClient): Promise<PreflightFinding[]> {
  const check = 'other controllers';
  const others = await otherControllers(client);
  if (others.length === 0) return [{ check, state: 'ok', what: 'none reviews the same resources' }];
  const remedy = 'two controllers write the same objects: stop the other one, and delete its webhooks';
  return others.map((name) => ({ check, state: 'problem', what: `${name} reviews the same resources`, remedy }));
}

async function webhooks(client: KubeClient): Promise<PreflightFinding[]> {
  const check = 'webhooks';
  const ours = await unlessNotFound(client.get(validatingWebhookConfigurations, { name: registrationName }));
  if (ours === undefined) return [{ check, state: 'ok', what: 'not registered yet; a controller does it' }];
  const { items } = await client.listAll<Lease>(leases, { fieldSelector: `metadata.name=${leaseName}` });
  const holder = items.find(({ spec }) => spec?.holderIdentity)?.spec?.holderIdentity;
  if (holder) return [{ check, state: 'ok', what: `registered, ${holder} leads` }];
  const remedy = 'start a controller, or remove what is left: sluice controller cleanup';
  return [{ check, state: 'problem', what: 'registered, and no controller leads: writes are refused', remedy }];
}

async function multus(client: KubeClient): Promise<PreflightFinding[]> {
  const check = 'multus';
  const { items } = await client.listAll(daemonSets);
  const found = items.find(({ metadata }) => metadata?.name?.includes('multus'));
  if (found !== undefined) return [{ check, state: 'ok', what: `DaemonSet ${pathOf(found)}` }];
  const remedy = 'install Multus: it calls the attachments that Sluice makes';
  return [{ check, state: 'warning', what: 'no DaemonSet of that name', remedy }];
}

/** Its plugin has the name under which ours is known to users of its chaining mode. */
async function cilium(client: KubeClient): Promise<PreflightFinding[]> {
  const check = 'cilium';
  const { items } = await client.listAll(daemonSets, { labelSelector: 'k8s-app=cilium' });
  const [found] = items;
  if (found === undefined) return [{ check, state: 'ok', what: 'no other cilium-cni' }];
  const remedy = 'write {"type":"sluice"} in chainCNIJsonData, and do not install ours as cilium-cni';
  return [{ check, state: 'warning', what: `DaemonSet ${pathOf(found)} installs its own cilium-cni`, remedy }];
}

function pathOf({ metadata }: KubeObject): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
}
