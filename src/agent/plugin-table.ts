/** What the agent serves to CNI executables. */
import type { FastifyInstance } from 'fastify';
import { createCoordinatorPlugin } from '../cni/coordinator.ts';
import { createIfacerPlugin } from '../cni/ifacer.ts';
import type { PluginTable } from '../cni/invoke.ts';
import { addInterface } from '../cni/ipam-add.ts';
import { createKubeIpamDeps } from '../cni/ipam-kube.ts';
import { StaleRecords } from '../cni/ipam-stale.ts';
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
import { agentLimits } from './limits.ts';
import { recordOnPod, warnPod } from './object-events.ts';
import { PeriodicTask } from './periodic-task.ts';
import { podTurns, takingTurns } from './pod-turns.ts';
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

export interface ServedPlugins {
  /** By the names that the shim is installed under. */
  readonly plugins: PluginTable;
  /** Spiderpool's socket. */
  readonly spiderApi: FastifyInstance;
  /** Returns what running pods have on record and do not use. */
  readonly staleRecords: PeriodicTask;
}

/** All of them share one state. */
export function pluginTable(options: PluginOptions, parts: PluginParts): ServedPlugins {
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
  const nowMs = (): number => clock.monotonicMs();
  const spiderpool = metrics.measured(createIpamPlugin(ipam, state), nowMs);
  const inTurn = podTurns();
  const spiderApi = buildSpiderApi({
    state,
    add: (request, signal) => metrics.measure('allocation', nowMs, () => addInterface(state, request, signal)),
    plugin: spiderpool,
    inTurn,
    coordinator: async (pod, signal) => (await coordinator.of(pod, signal)).config,
    releaseConflictIps: settings.releaseConflictIps,
  });
  const plugins = {
    ...{ sluice, 'cilium-cni': sluice, spiderpool: takingTurns(spiderpool, inTurn) },
    coordinator: createCoordinatorPlugin({
      log,
      onInterface: async ({ containerId, ifName, interfaceName }) =>
        endpoints.addInterface(containerId, ifName, interfaceName),
      coordination: (pod, signal) => coordinator.of(pod, signal),
    }),
    ifacer: createIfacerPlugin({ log }),
  };
  return { plugins, spiderApi, staleRecords: staleRecordTask(state, parts, options, settings.gcEnabled) };
}

function staleRecordTask(
  state: IpamState,
  { events, clock }: PluginParts,
  { log }: PluginOptions,
  isOn: boolean,
): PeriodicTask {
  const stale = new StaleRecords(state, ({ pool, address, pod }) => {
    const message = `${address} went back to SpiderIPPool ${pool}: the pod had it on record and does not use it`;
    recordOnPod(events, 'Normal', pod, 'StaleAddressReturned', message);
  });
  return new PeriodicTask({
    ...{ name: 'stale addresses', intervalMs: agentLimits.staleRecordCheckMs, clock, log },
    run: async (signal) => {
      if (isOn) await stale.collect(signal);
    },
  });
}
