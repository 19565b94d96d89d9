/**
 * The node agent. Start and stop are phases; each undoes its own in the reverse order.
 *
 *   lock → records and kernel state → adopt what runs → API informers → reconcilers → health → CNI socket
 *
 * The CNI socket opens last, so a call never meets a half-started agent. On stop nothing is detached: what is in force
 * stays in force until the next agent takes over.
 */
import { setMaxListeners } from 'node:events';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import type { EnforcementMode } from '../api/agent-api.ts';
import { apiVersionOf, networkPolicies } from '../api/resources.ts';
import type { PluginTable } from '../cni/invoke.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { AttachMechanism } from '../datapath/hooks.ts';
import type { MapLimits } from '../datapath/maps.ts';
import type { Settings } from '../ipam/settings.ts';
import { Netns } from '../kernel/netns.ts';
import { createKubeClient, type KubeClient } from '../kube/client.ts';
import type { KubeConfig } from '../kube/config.ts';
import { EventRecorder } from '../kube/event-recorder.ts';
import { PodAdoption } from './adoption.ts';
import { listenAgentApi } from './api/socket.ts';
import { createAgentTools } from './api/tools.ts';
import { BandwidthReconciler } from './bandwidth-reconciler.ts';
import { ClusterView } from './cluster-view.ts';
import { CniServer } from './cni-server.ts';
import { CoordinatorSource } from './coordinator-source.ts';
import { EndpointDatapath } from './endpoint-datapath.ts';
import { EndpointInspection } from './endpoint-inspection.ts';
import { EndpointTable } from './endpoint-lifecycle.ts';
import { EndpointStore } from './endpoint-store.ts';
import { buildHealthServer, parseListenAddress } from './health.ts';
import { collectYoungGarbage } from './garbage.ts';
import { HookWatch } from './hook-watch.ts';
import { InstanceLock } from './instance-lock.ts';
import { mountBpffs, openKernelParts, type KernelParts } from './kernel-parts.ts';
import { agentLimits, type AdoptionMode } from './limits.ts';
import { ipamSettings } from './ipam-settings.ts';
import { IpamMetrics } from './ipam-metrics.ts';
import { MapWatch } from './map-watch.ts';
import { AgentMetrics } from './metrics.ts';
import { NamespaceBandwidth } from './namespace-bandwidth.ts';
import { sysctlsOf, tuneNode } from './node-sysctls.ts';
import { recordOnPod, warnNode, warnPod } from './object-events.ts';
import { PeriodicTask } from './periodic-task.ts';
import { pluginTable } from './plugin-table.ts';
import { PodGuard } from './pod-guard.ts';
import { PolicyAudit } from './policy-audit.ts';
import { PolicyReconciler } from './policy-reconciler.ts';

export interface AgentOptions {
  readonly kubeConfig: KubeConfig;
  /** This node's name, as its Node object has it. */
  readonly nodeName: string;
  /** Directory on a bpffs for pinned programs, links and maps; made if absent. */
  readonly bpffsDir: string;
  /** Directory for endpoint records; made if absent. */
  readonly stateDir: string;
  readonly cniSocketPath: string;
  /** Socket of the API for tools; default: agent.sock beside the CNI socket. */
  readonly agentSocketPath?: string | undefined;
  /** Socket for Spiderpool's own CNI executables; absent: none. */
  readonly spiderSocketPath?: string | undefined;
  /** When pods are isolated; default: when a policy selects them. */
  readonly policyEnforcement?: EnforcementMode | undefined;
  /** "127.0.0.1:9879"; absent: no HTTP. */
  readonly healthAddress?: string | undefined;
  /** Namespace of attachments that are named without one. */
  readonly attachmentNamespace?: string | undefined;
  /** "namespace/name": the attachment of pods that name none. */
  readonly clusterNetwork?: string | undefined;
  /** Which running pods without a record become endpoints; default: `underlay`. */
  readonly adoptExistingPods?: AdoptionMode | undefined;
  /** Ask the link for conflicting addresses and silent gateways before a pod gets an address; default: neither. */
  readonly detection?: { readonly conflicts: boolean; readonly gateways: boolean } | undefined;
  /** Of addresses; default: those of an empty conf.yml. */
  readonly settings?: Settings | undefined;
  /** Entries per map; what is not named keeps its size. */
  readonly mapSizes?: MapLimits | undefined;
  /** Another build of the programs than the one that comes with this version. */
  readonly endpointObjectPath?: string | undefined;
  /** Another version of the maps' layout; tests are another version of Sluice with it. */
  readonly abiVersion?: number | undefined;
  /** Default: tcx where the kernel has it. */
  readonly attachMechanism?: AttachMechanism | undefined;
  readonly log: Logger;
  readonly clock?: Clock | undefined;
}

export interface Agent {
  /** Where /healthz, /readyz and /metrics are served; undefined without HTTP. */
  readonly healthUrl: string | undefined;
  /** Finishes running CNI operations, leaves enforcement in place, gives everything else back. */
  stop(): Promise<void>;
}

/** Resolves when CNI calls are served; the informers may still be on their way (see /readyz). */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const undo: (() => Promise<void> | void)[] = [];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const healthUrl = await start(options, undo);
    options.log.info({ node: options.nodeName, socket: options.cniSocketPath, healthUrl }, 'agent started');
    return { healthUrl, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(options: AgentOptions, undo: (() => Promise<void> | void)[]): Promise<string | undefined> {
  const { log, stateDir } = options;
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  mountBpffs(options.bpffsDir);
  const lock = await InstanceLock.acquire(options);
  undo.push(() => lock.release());
  tuneNodeOf(options);

  const kernel = openKernelParts(options);
  undo.push(() => kernel[Symbol.dispose]());
  const store = EndpointStore.open(stateDir, log);
  const client = createKubeClient(options.kubeConfig);
  undo.push(() => client.close());

  const parts = assemble(options, kernel, store, client);
  // Before the API answers: pods that ended meanwhile go, hooks that were removed come back.
  const found = parts.inspection.inspect();
  log.info(found, 'endpoints of an earlier agent inspected');

  const ending = new AbortController();
  // Every loop of the agent and every pod that is adopted waits for it: no leak, as Node takes more than ten listeners for.
  setMaxListeners(0, ending.signal);
  const loops = [
    parts.cluster.start(ending.signal),
    parts.coordinator.start(ending.signal),
    parts.policy.start(ending.signal),
    parts.hookWatch.start(ending.signal),
    ...parts.tasks.map((task) => task.start(ending.signal)),
  ];
  undo.push(async () => {
    ending.abort(new Error('the agent stops'));
    await Promise.allSettled(loops);
    await Promise.race([parts.events.flush(), new Promise((resolve) => setTimeout(resolve, 2_000).unref())]);
  });
  const health = await listenHealth(options.healthAddress, parts.health);
  if (health !== undefined) undo.push(() => health.app.close());
  const cni = await CniServer.listen({
    socketPath: options.cniSocketPath,
    plugins: parts.plugins,
    onAnswered: parts.onAnswered,
  });
  undo.push(() => cni.stop());
  await listenAgentApi(parts.api, options.agentSocketPath ?? join(dirname(options.cniSocketPath), 'agent.sock'));
  undo.push(() => parts.api.close());
  if (options.spiderSocketPath !== undefined) {
    await listenAgentApi(parts.spiderApi, options.spiderSocketPath, '--spider-socket');
    undo.push(() => parts.spiderApi.close());
  }
  return health?.url;
}

/** This process's namespace is the node's. */
function tuneNodeOf({ settings, log }: AgentOptions): void {
  if (settings?.tuneSysctlConfig !== true) return;
  using node = Netns.current();
  tuneNode(sysctlsOf(node), ipamSettings(settings).families ?? [], log);
}

interface Parts {
  readonly cluster: ClusterView;
  readonly coordinator: CoordinatorSource;
  readonly policy: PolicyReconciler;
  readonly inspection: EndpointInspection;
  readonly hookWatch: HookWatch;
  readonly events: EventRecorder;
  readonly tasks: readonly PeriodicTask[];
  readonly health: FastifyInstance;
  readonly api: FastifyInstance;
  readonly spiderApi: FastifyInstance;
  readonly plugins: PluginTable;
  readonly onAnswered: OnAnswered;
}

type OnAnswered = Parameters<typeof CniServer.listen>[0]['onAnswered'];

function assemble(options: AgentOptions, kernel: KernelParts, store: EndpointStore, client: KubeClient): Parts {
  const { log, nodeName, clock = systemClock } = options;
  const events = new EventRecorder({ client, component: 'sluice-agent', host: nodeName, clock, log });
  const cluster = new ClusterView({ client, nodeName, clock, log });
  const metrics = new AgentMetrics({
    counters: () => kernel.counters(),
    endpointCount: () => store.list().length,
    informerSynced: () => cluster.informerSynced(),
  });
  const common = { cluster, store, kernel, events, metrics, clock, log, nodeName };
  const enforcement = options.policyEnforcement ?? 'default';
  const audit = new PolicyAudit({
    namespaces: cluster.namespaces,
    record: (note) => events.record(note),
    onChange: () => policy.markDirty(),
  });
  const audited = (namespace: string): boolean => audit.audited(namespace);
  const policy = policyReconciler(common, enforcement, audited);
  const bandwidth = bandwidthReconciler(common);
  const datapath = new EndpointDatapath(kernel.hooks);
  const guard = new PodGuard({ clock, log });
  const endpoints = new EndpointTable({ store, cluster, policy, bandwidth, datapath, guard, clock, log });
  const adoption = podAdoption(options, common, endpoints);
  const inspection = endpointInspection({ ...common, endpoints, policy, bandwidth, datapath, guard, adoption });
  const hookWatch = new HookWatch({
    ...{ monitor: kernel.changes, clock, log },
    records: () => store.list(),
    look: (record) => inspection.look(record),
  });
  const maps = new MapWatch({ kernel: kernel.maps, tell: (message) => warnNode(events, nodeName, 'MapFull', message) });
  const tasks = periodicTasks({ inspection, adoption, bandwidth, maps, clock, log });
  // Its figures are asked for before the first interval is over.
  tasks.maps.markDirty();
  cluster.onChange((what) => {
    policy.markDirty();
    if (what === 'policies') return;
    tasks.limits.markDirty();
    if (!adoption.passed) tasks.adoption.markDirty();
  });
  const coordinator = new CoordinatorSource({
    ...{ client, pods: cluster.pods, clock, log },
    coordinatorName: options.settings?.coordinatorName ?? 'default',
  });
  const tools = createAgentTools({
    ...{ nodeName, enforcement, cluster, policy, audited, clock, log },
    kernel: kernel.view,
    shaping: { read: (place) => kernel.shaper.read(place), shortfalls: kernel.shapingShortfalls },
    endpoints: () => store.list(),
    isTakingOver: (record) => datapath.isTakingOver(record),
    registry: metrics.registry,
  });
  const { plugins, spiderApi, staleRecords } = pluginTable(options, {
    ...{ client, cluster, coordinator, endpoints, events, store, clock },
    metrics: new IpamMetrics(metrics.registry),
  });
  return {
    ...{ cluster, coordinator, policy, inspection, hookWatch, events, plugins, spiderApi, api: tools.api },
    tasks: [...Object.values(tasks), ...tools.tasks, staleRecords],
    health: buildHealthServer({
      liveness: () => ({ agent: [] }),
      readiness: () => ({
        api: cluster.unavailable(),
        addresses: cluster.addressesUnavailable(),
        policy: policy.problems(),
      }),
      metrics: metrics.registry,
    }),
    onAnswered: answeredObserver(log, metrics, hookWatch),
  };
}

interface Common {
  readonly cluster: ClusterView;
  readonly store: EndpointStore;
  readonly kernel: KernelParts;
  readonly events: EventRecorder;
  readonly metrics: AgentMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly nodeName: string;
}

interface InspectionParts extends Common {
  readonly endpoints: EndpointTable;
  readonly policy: PolicyReconciler;
  readonly bandwidth: BandwidthReconciler;
  readonly datapath: EndpointDatapath;
  readonly guard: PodGuard;
  readonly adoption: PodAdoption;
}

function endpointInspection(parts: InspectionParts): EndpointInspection {
  const { store, datapath, bandwidth, guard, metrics, events, log } = parts;
  return new EndpointInspection({
    ...{ store, datapath, bandwidth, guard, log },
    rewritePolicy: (endpointId) => parts.policy.rewrite(endpointId),
    discard: (record) => parts.endpoints.discard(record),
    onRepaired: (record, { problems, findings }) => {
      for (const problem of problems) metrics.endpointRepairs.inc({ problem });
      warnPod(events, record.pod, 'NetworkRepaired', `put back what had been removed: ${findings.join('; ')}`);
    },
    mayCollect: () => parts.adoption.passed,
    onOrphanRemoved: () => metrics.orphans.inc(),
  });
}

function podAdoption(options: AgentOptions, parts: Common, endpoints: EndpointTable): PodAdoption {
  const { cluster, store, events, metrics, clock, log, nodeName } = parts;
  return new PodAdoption({
    ...{ clock, log, nodeName },
    mode: options.adoptExistingPods ?? 'underlay',
    pods: () => cluster.pods.list(),
    synced: () => cluster.synced,
    records: () => store.list(),
    adopt: (pod, ips, found, signal) => endpoints.adopt(pod, ips, found, signal),
    onAdopted: (pod, found) => {
      metrics.adoptions.inc({ outcome: 'success' });
      const message = `policy is enforced on ${found.interfaceName}, without a restart of the pod`;
      recordOnPod(events, 'Normal', pod, 'NetworkAdopted', message);
    },
    onFailed: (pod, message) => {
      metrics.adoptions.inc({ outcome: 'failure' });
      log.warn({ pod: `${pod.namespace}/${pod.name}` }, message);
      warnPod(events, pod, 'AdoptionFailed', message);
    },
  });
}

/** What runs every now and then, by name. */
function periodicTasks(parts: {
  readonly inspection: EndpointInspection;
  readonly adoption: PodAdoption;
  readonly bandwidth: BandwidthReconciler;
  readonly maps: MapWatch;
  readonly clock: Clock;
  readonly log: Logger;
}): Readonly<Record<'hooks' | 'inspection' | 'adoption' | 'limits' | 'maps', PeriodicTask>> {
  const { inspection, adoption, bandwidth, maps, clock, log } = parts;
  const task = (name: string, intervalMs: number, run: (signal: AbortSignal) => Promise<void> | void): PeriodicTask =>
    new PeriodicTask({ name, intervalMs, run, clock, log });
  const { endpointCheckMs, hookCheckMs, adoptionCheckMs, mapCheckMs } = agentLimits;
  return {
    hooks: task('hooks', hookCheckMs, (signal) => inspection.sweep(signal)),
    inspection: task('endpoint inspection', endpointCheckMs, (signal) => inspection.inspectInTurns(signal)),
    adoption: task('pod adoption', adoptionCheckMs, (signal) => adoption.run(signal)),
    limits: task('bandwidth', endpointCheckMs, () => bandwidth.run()),
    maps: task('maps', mapCheckMs, (signal) => maps.look(signal)),
  };
}

function policyReconciler(
  { cluster, store, kernel, events, metrics, clock, log, nodeName }: Common,
  enforcement: EnforcementMode,
  audited: (namespace: string) => boolean,
): PolicyReconciler {
  return new PolicyReconciler({
    ...{ cluster, clock, log, enforcement, audited },
    maps: kernel.policyMaps,
    endpoints: () => store.list(),
    onDiagnostic: ({ namespace, policy: name, code, field, message, remedy }) => {
      const about = { apiVersion: apiVersionOf(networkPolicies), kind: networkPolicies.kind, namespace, name };
      // What is wrong with a policy is wrong on every node.
      const reason = eventReason(code);
      events.record({ about, type: 'Warning', reason, message: `${field}: ${message}; ${remedy}`, shared: true });
    },
    onFull: (error, endpointId) => tellFull({ store, events, nodeName }, error, endpointId),
    onRun: (outcome, durationMs) => {
      metrics.policyRuns.inc({ outcome });
      metrics.policyDuration.observe(durationMs / 1000);
      collectYoungGarbage();
    },
  });
}

function bandwidthReconciler({ cluster, store, kernel, events, log, nodeName }: Common): BandwidthReconciler {
  const defaults = new NamespaceBandwidth({
    namespaces: cluster.namespaces,
    record: (note) => events.record(note),
  });
  return new BandwidthReconciler({
    log,
    shaper: kernel.shaper,
    endpoints: () => store.list(),
    save: ({ containerId, ifName }, limits) => {
      const record = store.get(containerId, ifName);
      if (record !== undefined) store.put({ ...record, limits });
    },
    defaultsOf: (namespace) => defaults.of(namespace),
    onLimited: once(() => {
      const reason = 'BandwidthShortfall';
      for (const message of kernel.shapingShortfalls) warnNode(events, nodeName, reason, message);
    }),
    podOf: (record) => {
      const pod = cluster.synced ? cluster.podOf(record.pod) : undefined;
      return pod && { ...record.pod, annotations: pod.metadata?.annotations ?? {} };
    },
    warnPod: (pod, reason, message) => warnPod(events, pod, reason, message),
  });
}

/** On the Node, and on the pod that is closed for it. */
function tellFull(
  { store, events, nodeName }: Pick<Common, 'store' | 'events' | 'nodeName'>,
  error: unknown,
  endpointId: number | undefined,
): void {
  const message = formatErrorChain(error);
  warnNode(events, nodeName, 'MapFull', message);
  const record = store.list().find((candidate) => candidate.endpointId === endpointId);
  if (record === undefined) return;
  warnPod(events, record.pod, 'MapFull', `what policy isolates of this pod is closed: ${message}`);
}

function once(act: () => void): () => void {
  let done = false;
  return () => {
    if (!done) act();
    done = true;
  };
}

function answeredObserver(log: Logger, metrics: AgentMetrics, hookWatch: HookWatch): OnAnswered {
  return (wire, { request, error }, durationMs) => {
    hookWatch.follow();
    const command = wire.environment['CNI_COMMAND'] ?? '';
    const labels = { plugin: wire.plugin, command: request?.command ?? 'other' };
    metrics.cniOperations.inc({ ...labels, code: error?.code ?? 0 });
    metrics.cniDuration.observe(labels, durationMs / 1000);
    const fields = {
      plugin: wire.plugin,
      command,
      container: request?.containerId,
      interface: request?.ifName,
      pod: request && `${request.args['K8S_POD_NAMESPACE'] ?? ''}/${request.args['K8S_POD_NAME'] ?? ''}`,
      durationMs: Math.round(durationMs * 10) / 10,
    };
    if (error === undefined) log.info(fields, 'CNI call answered');
    else log.warn({ ...fields, code: error.code, details: error.details }, `CNI call failed: ${error.message}`);
  };
}

async function listenHealth(
  address: string | undefined,
  app: FastifyInstance,
): Promise<{ readonly app: FastifyInstance; readonly url: string } | undefined> {
  if (address === undefined) return undefined;
  const listen = parseListenAddress(address);
  if (listen === undefined) {
    const remedy = 'write HOST:PORT, for example 127.0.0.1:9879';
    throw new SluiceError({
      code: 'invalid_argument',
      operation: 'listen on',
      object: address,
      what: 'no address',
      remedy,
    });
  }
  return { app, url: await app.listen(listen) };
}

/** "invalid_cidr" → "InvalidCidr". */
function eventReason(code: string): string {
  return code.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
