/** What the agent serves to CNI executables. */
import type { FastifyInstance } from 'fastify';
import { createCoordinatorPlugin } from '../cni/coordinator.ts';
import { createIfacerPlugin } from '../cni/ifacer.ts';
import type { PluginTable } from '../cni/invoke.ts';
import { createKubeIpamDeps } from '../cni/ipam-kube.ts';
import { IpamState } from '../cni/ipam-state.ts';
import { createIpamPlugin } from '../cni/ipam.ts';
import { createSluicePlugin } from '../cni/sluice.ts';
import type { Clock } from '../core/clock.ts';
import { readSettings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import type { EventRecorder } from '../kube/event-recorder.ts';
import type { AgentOptions } from './agent.ts';
import type { ClusterView } from './cluster-view.ts';
import type { CoordinatorSource } from './coordinator-source.ts';
import type { EndpointTable } from './endpoint-lifecycle.ts';
import type { EndpointStore } from './endpoint-store.ts';
import type { IpamMetrics } from './ipam-metrics.ts';
import { ipamSettings } from './ipam-settings.ts';
import { warnPod } from './object-events.ts';
import { buildSpiderApi } from './spider-api.ts';

export type PluginOptions = Pick<
  AgentOptions,
  'log' | 'nodeName' | 'attachmentNamespace' | 'clusterNetwork' | 'detection' | 'settings'
>;

export interface PluginParts {
  readonly client: KubeClient;
  readonly cluster: ClusterView;
  readonly coordinator: CoordinatorSource;
  readonly endpoints: EndpointTable;
  readonly store: EndpointStore;
  readonly events: EventRecorder;
  readonly metrics: IpamMetrics;
  readonly clock: Clock;
}

/** The plugins by the names that the shim is installed under, and Spiderpool's socket, which shares their state. */
export function pluginTable(
  options: PluginOptions,
  parts: PluginParts,
): { readonly plugins: PluginTable; readonly spiderApi: FastifyInstance } {
  const { log, nodeName, attachmentNamespace, clusterNetwork } = options;
  const settings = options.settings ?? readSettings(undefined).settings;
  const { client, cluster, coordinator, endpoints, events, metrics, store, clock } = parts;
  const sluice = createSluicePlugin({ endpoints, log });
  const ipam = createKubeIpamDeps({
    client,
    nodeName,
    pools: cluster.pools,
    reservedIps: cluster.reservedIps,
    pods: cluster.pods,
    namespaces: cluster.namespaces,
    nodes: cluster.nodes,
    ...ipamSettings(settings),
    attachmentNamespace,
    clusterNetwork,
    detection: options.detection && {
      ...options.detection,
      onConflict: (pod, uid, message) => {
        const [namespace = '', name = ''] = pod.split('/');
        warnPod(events, { namespace, name, uid }, 'IPConflict', message);
      },
    },
    attachments: () =>
      // An adopted endpoint knows neither its container nor its network.
      store
        .list()
        .flatMap(({ adopted, containerId, ifName, pod, networkName }) =>
          adopted === true ? [] : [{ containerId, interface: ifName, podUid: pod.uid, network: networkName }],
        ),
    observe: metrics,
    clock,
    log,
  });
  const state = new IpamState(ipam);
  const spiderpool = metrics.measured(createIpamPlugin(ipam, state), () => clock.monotonicMs());
  const spiderApi = buildSpiderApi({
    state,
    plugin: spiderpool,
    coordinator: async (pod, signal) => (await coordinator.of(pod, signal)).config,
    releaseConflictIps: settings.releaseConflictIps,
  });
  const plugins = {
    ...{ sluice, 'cilium-cni': sluice, spiderpool },
    coordinator: createCoordinatorPlugin({
      log,
      onInterface: async ({ containerId, ifName, interfaceName }) =>
        endpoints.addInterface(containerId, ifName, interfaceName),
      coordination: (pod, signal) => coordinator.of(pod, signal),
    }),
    ifacer: createIfacerPlugin({ log }),
  };
  return { plugins, spiderApi };
}
