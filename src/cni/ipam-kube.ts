import type { KubeObject, Namespace, Node, Pod } from '../api/kubernetes.ts';
import { namespaces, nodes, pods, spiderIPPools, type GroupVersionResource } from '../api/resources.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Informer } from '../kube/informer.ts';
import type { IpamDeps, KnownAttachment, LabelledObject } from './ipam-deps.ts';

/** The address plugin's surroundings, from the API client and the agent's informers. */

export interface IpamKubeOptions {
  readonly client: KubeClient;
  readonly nodeName: string;
  readonly pools: Informer<KubeObject>;
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

/** An answer from old copies may still be right, but ADD writes through the API server. */
function notReady({ pools: poolCopies, pods: podCopies }: IpamKubeOptions): string | undefined {
  if (!poolCopies.hasSynced) return 'the list of SpiderIPPools has not arrived yet';
  if (!podCopies.hasSynced) return 'the list of pods has not arrived yet';
  if (!poolCopies.connected) return 'the API server cannot be reached';
  return undefined;
}

async function find<T extends KubeObject>(
  client: KubeClient,
  gvr: GroupVersionResource,
  namespace: string | undefined,
  name: string,
  signal: AbortSignal | undefined,
): Promise<T | undefined> {
  try {
    return await client.get<T>(gvr, { namespace, name }, { signal });
  } catch (error) {
    if (hasErrorCode(error, 'kube_not_found')) return undefined;
    throw error;
  }
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
