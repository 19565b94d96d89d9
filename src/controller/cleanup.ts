/**
 * Takes away what the controllers have put into the API, so that nothing there waits for a controller that does not come back:
 * webhooks, which would refuse every write, finalizers, which would keep every deleted object, and the controllers' own state.
 */
import type { KubeObject } from '../api/kubernetes.ts';
import {
  configMaps,
  leases,
  secrets,
  spiderCoordinators,
  spiderEndpoints,
  spiderIPPools,
  spiderMultusConfigs,
  spiderReservedIPs,
  spiderSubnets,
  type GroupVersionResource,
} from '../api/resources.ts';
import { spiderFinalizer } from '../api/spider.ts';
import type { Clock } from '../core/clock.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import { describeRef, type KubeClient, type ObjectRef } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import { removeObject } from '../kube/removal.ts';
import { ownSecretName } from './certificate-store.ts';
import { claimsName } from './claim-store.ts';
import { withoutSpiderFinalizer } from './finalizer.ts';
import { leaseName, livingLeader, type Lease } from './leader.ts';
import { otherControllers, webhookConfigurations } from './other-controllers.ts';
import { registrationName } from './webhook-registration.ts';

export interface ClusterCleanupOptions {
  readonly client: KubeClient;
  /** Where the controllers' state is looked for, besides where a lease of theirs is. */
  readonly namespace: string;
  /** Delete pools, subnets and all other resources, instead of only setting them free. */
  readonly resources: boolean;
  /** Even while a controller runs, or another one keeps the same resources. */
  readonly force: boolean;
  /** Only say what would be done. */
  readonly dryRun: boolean;
  readonly clock: Clock;
}

export interface ClusterCleanupStep {
  readonly what: 'webhooks' | 'finalizer' | 'resource' | 'state';
  /** "SpiderIPPool ens192-v4". */
  readonly object: string;
  /** Why it stays; absent when it is taken away. */
  readonly kept?: string;
}

/** Who records an address comes first, pools come before their subnets. */
const spiderResources: readonly GroupVersionResource[] = [
  spiderEndpoints,
  spiderIPPools,
  spiderSubnets,
  spiderReservedIPs,
  spiderMultusConfigs,
  spiderCoordinators,
];

const controllerState = [
  [secrets, ownSecretName],
  [configMaps, claimsName],
  [leases, leaseName],
] as const;

/** What was taken away, or would be. Throws already_exists while a controller runs, before anything is touched. */
export async function cleanUpCluster(options: ClusterCleanupOptions): Promise<ClusterCleanupStep[]> {
  const { client, dryRun, force, clock } = options;
  const found = await client.listAll<Lease>(leases, { fieldSelector: `metadata.name=${leaseName}` });
  if (!dryRun && !force) for (const lease of found.items) await refuseWhileLed(client, lease, clock);
  const namespaces = new Set([options.namespace, ...found.items.map(({ metadata }) => metadata?.namespace ?? '')]);
  const keepers = force ? [] : await otherControllers(client);
  const steps: ClusterCleanupStep[] = [];
  // First: what follows is not to be reviewed by a webhook that nobody answers.
  for (const gvr of webhookConfigurations)
    steps.push(...(await remove(options, 'webhooks', gvr, { name: registrationName })));
  for (const gvr of spiderResources) steps.push(...(await cleanResource(options, gvr, keepers)));
  // The lease last: while it is there, a second run knows where to look.
  for (const namespace of namespaces)
    for (const [gvr, name] of controllerState)
      steps.push(...(await remove(options, 'state', gvr, { namespace, name })));
  return steps;
}

async function remove(
  { client, dryRun }: ClusterCleanupOptions,
  what: ClusterCleanupStep['what'],
  gvr: GroupVersionResource,
  ref: ObjectRef,
): Promise<ClusterCleanupStep[]> {
  const object = await unlessNotFound(client.get(gvr, ref));
  if (object === undefined) return [];
  if (!dryRun) await removeObject(client, gvr, ref, object.metadata?.uid);
  return [{ what, object: describeRef(gvr, ref) }];
}

async function refuseWhileLed(client: KubeClient, lease: Lease, clock: Clock): Promise<void> {
  const leader = await livingLeader(client, lease, clock);
  if (leader === undefined) return;
  throw new SluiceError({
    ...{ code: 'already_exists', operation: 'clean up', object: 'the API' },
    what: `the controller ${leader} runs, and would put back what is removed`,
    remedy: 'delete the controller’s Deployment and the agents’ DaemonSet first, or use --force',
  });
}

async function cleanResource(
  options: ClusterCleanupOptions,
  gvr: GroupVersionResource,
  keepers: readonly string[],
): Promise<ClusterCleanupStep[]> {
  // A cluster may do without a resource: its definition is not installed, or removed already.
  const items = (await unlessNotFound(options.client.listAll(gvr)))?.items ?? [];
  const steps: ClusterCleanupStep[] = [];
  for (const item of items) {
    const { namespace, name = '', finalizers = [] } = item.metadata ?? {};
    if (!options.resources && !finalizers.includes(spiderFinalizer)) continue;
    const what = options.resources ? 'resource' : 'finalizer';
    const object = describeRef(gvr, { namespace, name });
    if (keepers.length > 0) steps.push({ what, object, kept: `another controller keeps it: ${keepers.join(', ')}` });
    else steps.push({ what, object, ...(await setFree(options, gvr, item)) });
  }
  return steps;
}

/** Deleted first: whoever comes between the two finds an object that is going, and finishes it. */
async function setFree(
  { client, resources, dryRun }: ClusterCleanupOptions,
  gvr: GroupVersionResource,
  item: KubeObject,
): Promise<Pick<ClusterCleanupStep, 'kept'>> {
  const { namespace, name = '', uid } = item.metadata ?? {};
  const others = (item.metadata?.finalizers ?? []).filter((finalizer) => finalizer !== spiderFinalizer);
  if (!dryRun) {
    if (resources) await removeObject(client, gvr, { namespace, name }, uid);
    await removeFinalizer(client, gvr, { namespace, name });
  }
  return resources && others.length > 0 ? { kept: `it goes when others remove ${others.join(', ')}` } : {};
}

async function removeFinalizer(client: KubeClient, gvr: GroupVersionResource, ref: ObjectRef): Promise<void> {
  const attempts = 5;
  for (let attempt = 1; ; attempt++) {
    try {
      const object = await unlessNotFound(client.get(gvr, ref));
      const freed = withoutSpiderFinalizer({ metadata: object?.metadata ?? {} });
      if (freed === undefined) return;
      const { resourceVersion, finalizers } = freed.metadata;
      await unlessNotFound(
        client.patch(gvr, ref, { type: 'merge', body: { metadata: { resourceVersion, finalizers } } }),
      );
      return;
    } catch (error) {
      if (attempt >= attempts || !hasErrorCode(error, 'kube_conflict')) throw error;
    }
  }
}
