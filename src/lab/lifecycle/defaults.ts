/** What a lab has from the start: the definitions of deploy/crds, two pools and the attachment for pods that name none. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import type { KubeObject } from '../../api/kubernetes.ts';
import {
  customResourceDefinitions,
  networkAttachmentDefinitions,
  spiderIPPools,
  spiderMultusConfigs,
} from '../../api/resources.ts';
import type { GroupVersionResource } from '../../api/resources.ts';
import { packageRoot } from '../../kernel/package-root.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists } from '../../kube/error.ts';
import { labDefaultNetwork } from '../node/attachment.ts';
import { parentInterface, underlayV4, underlayV6 } from '../underlay/underlay.ts';
import type { LinkKind } from './state.ts';
import { waitFor } from './wait.ts';

export async function applyDefinitions(client: KubeClient): Promise<void> {
  const dir = join(packageRoot(), 'deploy', 'crds');
  const definitions = readdirSync(dir)
    .filter((name) => name.endsWith('.yaml'))
    .flatMap((name) => parseAllDocuments(readFileSync(join(dir, name), 'utf8')))
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null);
  for (const definition of definitions) await createIfMissing(client, customResourceDefinitions, definition);
  for (const definition of definitions) {
    const name = definition.metadata?.name ?? '';
    await waitFor(`CustomResourceDefinition ${name} to be established`, async () => {
      const found = await client.get<EstablishedObject>(customResourceDefinitions, { name });
      return found.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True') === true;
    });
  }
}

interface EstablishedObject extends KubeObject {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

const admissionTimeoutMs = 120_000;

const pools = [
  { name: 'lab-default-v4', ipVersion: 4, ...underlayV4, ips: ['172.51.128.10-172.51.128.254'] },
  { name: 'lab-default-v6', ipVersion: 6, ...underlayV6, ips: ['fd00:51::8000-fd00:51::80ff'] },
] as const;

/** Pools and attachment; resolves when the controller has generated the NetworkAttachmentDefinition. */
export async function createDefaults(client: KubeClient, link: LinkKind): Promise<void> {
  for (const { name, ipVersion, subnet, gateway, ips } of pools) {
    const spec = { ipVersion, subnet, gateway, ips };
    await createWhenAdmitted(client, spiderIPPools, { metadata: { name }, spec } as KubeObject);
  }
  const { namespace, name } = labDefaultNetwork;
  const ippools = { ipv4: [pools[0].name], ipv6: [pools[1].name] };
  const spec = {
    cniType: link,
    [link]: { master: [parentInterface], ippools },
    chainCNIJsonData: ['{"type":"sluice"}'],
  };
  await createWhenAdmitted(client, spiderMultusConfigs, { metadata: { namespace, name }, spec } as KubeObject);
  await waitFor(`NetworkAttachmentDefinition ${namespace}/${name}`, async () => {
    return (await client.find(networkAttachmentDefinitions, { namespace, name })) !== undefined;
  });
}

/** The API server gives the controller's webhooks five seconds, which on an emulated CPU may be too short just after the start. */
async function createWhenAdmitted(client: KubeClient, gvr: GroupVersionResource, object: KubeObject): Promise<void> {
  const create = async (): Promise<boolean> => {
    await createIfMissing(client, gvr, object);
    return true;
  };
  await waitFor(`${gvr.kind} ${object.metadata?.name} to be admitted`, create, { timeoutMs: admissionTimeoutMs });
}

async function createIfMissing(client: KubeClient, gvr: GroupVersionResource, object: KubeObject): Promise<void> {
  try {
    await client.create(gvr, object);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
}
