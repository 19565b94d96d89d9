import type { KubeObject, Namespace, Node, Pod } from '../api/kubernetes.ts';
import {
  apiVersionOf,
  jobs,
  namespaces,
  nodes,
  pods,
  replicaSets,
  spiderEndpoints,
  spiderIPPools,
  spiderReservedIPs,
  statefulSets,
  virtualMachineInstances,
  virtualMachines,
  type GroupVersionResource,
} from '../api/resources.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import { removeFinalized } from '../kube/removal.ts';
import type { Informer } from '../kube/informer.ts';
import type { IpFamily } from '../core/ip.ts';
import type { OwnerObject, StaticKinds } from '../ipam/pod-owner.ts';
import { physicalFunctionOf } from './physical-function.ts';
import type { EndpointSource, IpamDeps, IpamObserver, KnownAttachment, LabelledObject } from './ipam-deps.ts';

/** The address plugin's surroundings, from the API client and the agent's informers. */

export interface IpamKubeOptions {
  readonly client: KubeClient;
  readonly nodeName: string;
  readonly pools: Informer<KubeObject>;
  readonly reservedIps?: Informer<KubeObject> | undefined;
  /** Of the whole cluster, or of this node at least. */
  readonly pods: Informer<Pod>;
  readonly namespaces: Informer<Namespace>;
  readonly nodes: Informer<Node>;
  readonly log: Logger;
  /** Namespace of attachments that are named without one. */
  readonly attachmentNamespace?: string | undefined;
  /** "namespace/name": the attachment of pods that name none. */
  readonly clusterNetwork?: string | undefined;
  readonly attachments?: (() => Iterable<KnownAttachment>) | undefined;
  readonly families?: readonly IpFamily[] | undefined;
  readonly staticKinds?: StaticKinds | undefined;
  readonly maxRecordsPerPool?: number | undefined;
  readonly autoPools?: boolean | undefined;
  readonly autoPoolWaitMs?: number | undefined;
  readonly detection?: IpamDeps['detection'];
  readonly observe?: IpamObserver | undefined;
  readonly clock?: Clock | undefined;
  readonly random?: (() => number) | undefined;
}

export function createKubeIpamDeps(options: IpamKubeOptions): IpamDeps {
  const { client, nodeName, pools: poolCopies, pods: podCopies } = options;
  const asPool = (object: KubeObject): SpiderIPPool => object as SpiderIPPool;
  return {
    pools: {
      cached: () => poolCopies.list().map(asPool),
      read: async (name, signal) => {
        const pool = await find<KubeObject>(client, spiderIPPools, undefined, name, signal);
        return pool === undefined ? undefined : asPool(pool);
      },
      readAll: async (signal) => (await client.listAll(spiderIPPools, {}, { signal })).items.map(asPool),
      writeStatus: async (pool) => asPool(await client.replaceStatus(spiderIPPools, pool as KubeObject)),
    },
    pods: {
      cached: (namespace, name) => podCopies.get(namespace, name),
      read: (namespace, name, signal) => find<Pod>(client, pods, namespace, name, signal),
      ofThisNode: () => podCopies.list().filter((pod) => pod.spec?.nodeName === nodeName),
    },
    endpoints: endpointSource(client),
    reservedIps: (signal) => reservedIps(client, options.reservedIps, signal),
    readOwner: async ({ apiVersion, kind, namespace, name }, signal) => {
      const gvr = ownerResources.find((each) => each.kind === kind && apiVersionOf(each) === apiVersion);
      return gvr && (await find<KubeObject & OwnerObject>(client, gvr, namespace, name, signal));
    },
    ...{ families: options.families, staticKinds: options.staticKinds, maxRecordsPerPool: options.maxRecordsPerPool },
    detection: options.detection,
    physicalFunctionOf: (vf) => physicalFunctionOf(vf),
    ...{ autoPools: options.autoPools, autoPoolWaitMs: options.autoPoolWaitMs, observe: options.observe },
    readNamespace: (name, signal) => labelled(options.namespaces, client, namespaces, name, signal),
    readNode: (name, signal) => labelled(options.nodes, client, nodes, name, signal),
    nodeName,
    attachmentNamespace: options.attachmentNamespace ?? 'kube-system',
    clusterNetwork: options.clusterNetwork,
    ...(options.attachments === undefined ? {} : { attachments: options.attachments }),
    notReady: () => notReady(options),
    clock: options.clock ?? systemClock,
    log: options.log,
    random: options.random ?? Math.random,
  };
}

const ownerResources: readonly GroupVersionResource[] = [
  replicaSets,
  jobs,
  statefulSets,
  virtualMachineInstances,
  virtualMachines,
];

/** A copy whose first list is on its way must not pass for "none are reserved". */
async function reservedIps(
  client: KubeClient,
  copies: Informer<KubeObject> | undefined,
  signal: AbortSignal | undefined,
): Promise<SpiderReservedIP[]> {
  const objects =
    copies?.hasSynced === true
      ? copies.list()
      : (await unlessNotFound(client.listAll<KubeObject>(spiderReservedIPs, {}, { signal })))?.items;
  return (objects ?? []) as unknown as SpiderReservedIP[];
}

function endpointSource(client: KubeClient): EndpointSource {
  const asEndpoint = (object: KubeObject): SpiderEndpoint => object as unknown as SpiderEndpoint;
  const asKube = (endpoint: SpiderEndpoint): KubeObject => endpoint as unknown as KubeObject;
  return {
    read: async (namespace, name, signal) => {
      const object = await find<KubeObject>(client, spiderEndpoints, namespace, name, signal);
      return object && asEndpoint(object);
    },
    create: async (endpoint) => {
      const object = await unlessNotFound(client.create(spiderEndpoints, asKube(endpoint)));
      return object && asEndpoint(object);
    },
    replace: async (endpoint) => asEndpoint(await client.replace(spiderEndpoints, asKube(endpoint))),
    remove: ({ metadata: { namespace, name = '', uid } }) =>
      removeFinalized(client, spiderEndpoints, { namespace, name }, uid),
  };
}

/** An answer from old copies may still be right, but ADD writes through the API server. */
function notReady({ pools: poolCopies, pods: podCopies }: IpamKubeOptions): string | undefined {
  if (!poolCopies.hasSynced) return 'the list of SpiderIPPools has not arrived yet';
  if (!podCopies.hasSynced) return 'the list of pods has not arrived yet';
  if (!poolCopies.connected) return 'the API server cannot be reached';
  return undefined;
}

function find<T extends KubeObject>(
  client: KubeClient,
  gvr: GroupVersionResource,
  namespace: string | undefined,
  name: string,
  signal: AbortSignal | undefined,
): Promise<T | undefined> {
  return unlessNotFound(client.get<T>(gvr, { namespace, name }, { signal }));
}

async function labelled<T extends KubeObject>(
  copies: Informer<T>,
  client: KubeClient,
  gvr: GroupVersionResource,
  name: string,
  signal: AbortSignal | undefined,
): Promise<LabelledObject | undefined> {
  const object = copies.get(undefined, name) ?? (await find<T>(client, gvr, undefined, name, signal));
  if (object === undefined) return undefined;
  return { labels: object.metadata?.labels ?? {}, annotations: object.metadata?.annotations ?? {} };
}
