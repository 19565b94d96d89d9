import type { KubeObject, Pod } from '../api/kubernetes.ts';
import {
  networkAttachmentDefinitions,
  pods as podResource,
  spiderIPPools,
  spiderMultusConfigs,
  type GroupVersionResource,
} from '../api/resources.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { NetworkAttachmentDefinition, SpiderMultusConfig } from '../api/spidermultusconfig.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { Settings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import { EventRecorder } from '../kube/event-recorder.ts';
import { Informer } from '../kube/informer.ts';
import { removeObject } from '../kube/removal.ts';
import { startAddressReconcilers } from './address-reconcilers.ts';
import { AttachmentReconciler } from './attachment-reconciler.ts';
import { startGarbageCollection } from './gc-start.ts';
import { eventWriter, kubeAccess } from './kube-access.ts';
import type { ControllerMetrics } from './metrics.ts';
import { byControllerIndex, controllerUid } from './pod-applications.ts';
import { podCopy } from './pod-copy.ts';
import { PoolReconciler } from './pool-reconciler.ts';
import { WorkQueue } from './work-queue.ts';

/** Everything is looked at again this often, in case an event was lost to a bug, ours or another's. */
const resyncMs = 60_000;

export interface ReconcilersOptions {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly settings: Settings;
  readonly metrics: ControllerMetrics;
}

/** Resolves when the copies are filled. */
export async function startReconcilers(options: ReconcilersOptions): Promise<{ stopped(): Promise<void> }> {
  const { client, clock, log, signal } = options;
  const recorder = new EventRecorder({ client, component: 'sluice-controller', clock, log });
  const informer = (gvr: GroupVersionResource): Informer<KubeObject> => new Informer({ client, gvr, log, clock });
  const configs = informer(spiderMultusConfigs);
  const attachments = informer(networkAttachmentDefinitions);
  const pools = informer(spiderIPPools);

  const attachmentReconciler = new AttachmentReconciler({
    configs: kubeAccess<SpiderMultusConfig>(client, spiderMultusConfigs, configs),
    attachments: {
      ...kubeAccess<NetworkAttachmentDefinition>(client, networkAttachmentDefinitions, attachments),
      remove: ({ metadata: { namespace, name = '', uid } }) =>
        removeObject(client, networkAttachmentDefinitions, { namespace, name }, uid),
    },
    writeEvent: eventWriter(recorder, spiderMultusConfigs),
    ...{ clock, log },
  });
  const poolReconciler = new PoolReconciler({
    pools: kubeAccess<SpiderIPPool>(client, spiderIPPools, pools),
    writeEvent: eventWriter(recorder, spiderIPPools),
    log,
  });
  const indexes = { [byControllerIndex]: controllerUid };
  const pods = new Informer<Pod>({ client, gvr: podResource, log, clock, transform: podCopy, indexes });
  const collection = startGarbageCollection({
    ...{ ...options, pools, pods },
    observe: (outcome, count) => options.metrics.collected(outcome, count),
  });
  const addresses = startAddressReconcilers({ ...options, pools, pods, recorder });
  options.metrics.readFrom({ pools: () => pools.list() as SpiderIPPool[], subnets: () => addresses.subnets() });
  const configQueue = queue('configs', (key) => attachmentReconciler.reconcile(key), options);
  const poolQueue = queue('pools', (key) => poolReconciler.reconcile(key), options);

  const addConfig = (object: KubeObject): void => {
    if (options.settings.multusConfigEnabled) configQueue.add(keyOf(object));
  };
  const addPool = (object: KubeObject): void => poolQueue.add(object.metadata?.name ?? '');
  const addOwners = (object: KubeObject): void => {
    if (!options.settings.multusConfigEnabled) return;
    for (const key of attachmentReconciler.configsOf(object as NetworkAttachmentDefinition)) configQueue.add(key);
  };
  configs.on('add', addConfig).on('update', addConfig);
  attachments.on('add', addOwners).on('update', addOwners).on('delete', addOwners);
  pools.on('add', addPool).on('update', addPool);

  const running = [configs, attachments, pools, pods].map((each) => each.start(signal));
  await Promise.all([configs.synced, attachments.synced, pools.synced, pods.synced]);
  const resyncing = resync(options, () => {
    configs.list().forEach(addConfig);
    pools.list().forEach(addPool);
    addresses.resync();
  });
  const collecting = collection.run();
  return {
    stopped: async () => {
      await Promise.all([...running, resyncing, collecting, addresses.stopped(), configQueue.idle(), poolQueue.idle()]);
      await recorder.flush();
    },
  };
}

function queue(name: string, reconcile: (key: string) => Promise<void>, options: ReconcilersOptions): WorkQueue {
  const { clock, log, signal } = options;
  return new WorkQueue({ name, reconcile, clock, log, signal });
}

async function resync({ clock, signal }: ReconcilersOptions, lookAgain: () => void): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(resyncMs, signal).catch(() => undefined);
    if (!signal.aborted) lookAgain();
  }
}

function keyOf(object: KubeObject): string {
  return `${object.metadata?.namespace ?? ''}/${object.metadata?.name ?? ''}`;
}
