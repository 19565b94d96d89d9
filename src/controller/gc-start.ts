import type { KubeObject, Node, Pod } from '../api/kubernetes.ts';
import {
  apiVersionOf,
  nodes,
  pods as podResource,
  spiderEndpoints,
  spiderIPPools,
  statefulSets,
  virtualMachineInstances,
  virtualMachines,
} from '../api/resources.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { OwnerObject } from '../ipam/pod-owner.ts';
import type { Settings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import { removeFinalized } from '../kube/removal.ts';
import type { Informer } from '../kube/informer.ts';
import { GcCollector, type GcCollectorDeps } from './gc-collector.ts';
import { EndpointCleaner } from './gc-endpoints.ts';
import { kubeAccess } from './kube-access.ts';

/** Garbage collection in the controller that leads: a scan now and then, and what happens to pods in between. */

const collectMs = 5_000;
const owners = [statefulSets, virtualMachineInstances, virtualMachines];

export interface GcOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly settings: Settings;
  readonly pools: Informer<KubeObject>;
  /** Made with `podCopy` as its transform. */
  readonly pods: Informer<Pod>;
  readonly observe?: GcCollectorDeps['observe'];
}

/** Registers with the informers; call it before they start. `run` resolves when the signal is aborted. */
export function startGarbageCollection(options: GcOptions): { run(): Promise<void> } {
  const { clock, signal, settings, pods, log } = options;
  if (!settings.gcEnabled) return { run: () => Promise.resolve() };
  const collector = createCollector(options);
  const cleaner = settings.enableCleanOutdatedEndpoint ? createEndpointCleaner(options) : undefined;
  pods.on('update', (pod) => collector.podChanged(pod)).on('delete', (pod) => collector.podChanged(pod));
  const run = async (): Promise<void> => {
    for (let sinceScanMs = Infinity; !signal.aborted; sinceScanMs += collectMs) {
      if (sinceScanMs >= settings.gcIntervalS * 1000) {
        collector.scan();
        await cleaner
          ?.clean()
          .catch((error: unknown) => log.warn({ error: formatErrorChain(error) }, 'endpoints not cleaned'));
        sinceScanMs = 0;
      }
      await clock.sleep(collectMs, signal).catch(() => undefined);
      if (!signal.aborted) await collector.collect();
    }
  };
  return { run };
}

function createEndpointCleaner({ client, log }: GcOptions): EndpointCleaner {
  return new EndpointCleaner({
    endpoints: {
      list: () => kubeAccess<SpiderEndpoint>(client, spiderEndpoints).list(),
      remove: ({ metadata: { namespace, name = '', uid } }) =>
        removeFinalized(client, spiderEndpoints, { namespace, name }, uid),
    },
    listPools: () => kubeAccess<SpiderIPPool>(client, spiderIPPools).list(),
    readPod: (namespace, name) => kubeAccess<Pod>(client, podResource).read(namespace, name),
    log,
  });
}

/** What a collector takes; of the informers only their copies. */
export interface GcCollectorOptions extends Omit<GcOptions, 'signal' | 'pools' | 'pods'> {
  readonly pools: Pick<Informer<KubeObject>, 'list'>;
  readonly pods: Pick<Informer<Pod>, 'get'>;
}

export function createCollector(options: GcCollectorOptions): GcCollector {
  const { client, clock, log, settings, pools, pods, observe } = options;
  const podAccess = kubeAccess<Pod>(client, podResource);
  const endpoints = kubeAccess<SpiderEndpoint>(client, spiderEndpoints);
  const nodeAccess = kubeAccess<Node>(client, nodes);
  return new GcCollector({
    pools: kubeAccess<SpiderIPPool>(client, spiderIPPools, pools),
    pods: { cached: (namespace, name) => pods.get(namespace, name), read: (...at) => podAccess.read(...at) },
    endpoints: {
      read: (namespace, name) => endpoints.read(namespace, name),
      remove: ({ metadata: { namespace, name = '', uid } }) =>
        removeFinalized(client, spiderEndpoints, { namespace, name }, uid),
    },
    owners: {
      read: async ({ apiVersion, kind, namespace, name }) => {
        const gvr = owners.find((each) => each.kind === kind && apiVersionOf(each) === apiVersion);
        return gvr && kubeAccess<KubeObject & OwnerObject>(client, gvr).read(namespace, name);
      },
    },
    readNode: (name) => nodeAccess.read('', name),
    settings: {
      additionalDelayMs: settings.gcAdditionalDelayS * 1000,
      terminatingOnReadyNode: settings.gcTerminatingOnReadyNode,
      terminatingOnNotReadyNode: settings.gcTerminatingOnNotReadyNode,
      runningWithoutIps: settings.gcRunningWithoutIps,
      statefulSets: settings.enableStatefulSet,
      virtualMachines: settings.enableKubevirtStaticIP,
    },
    observe,
    clock,
    log,
  });
}
