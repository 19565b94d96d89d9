import type { KubeObject, Pod } from '../api/kubernetes.ts';
import {
  spiderCoordinators,
  spiderIPPools,
  spiderReservedIPs,
  spiderSubnets,
  type GroupVersionResource,
} from '../api/resources.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { disabledFamilies } from '../ipam/settings.ts';
import type { EventRecorder } from '../kube/event-recorder.ts';
import { Informer } from '../kube/informer.ts';
import { Applications } from './applications.ts';
import { AutoPoolReconciler, applicationKeyOfPool, type ApplicationState } from './auto-pool-reconciler.ts';
import { cidrSources } from './cidr-sources.ts';
import { CoordinatorReconciler } from './coordinator-reconciler.ts';
import { eventWriter, kubeAccess } from './kube-access.ts';
import type { ReconcilersOptions } from './reconcilers.ts';
import { SubnetReconciler } from './subnet-reconciler.ts';
import { unwatchedOwnerLives } from './unwatched-owner.ts';
import { WorkQueue } from './work-queue.ts';

/** Subnets, pools of applications and the SpiderCoordinator: informers, queues and what marks which. */

/** Pods wait for a SpiderCoordinator, and none of its sources is watched. */
const coordinatorMs = 5_000;

interface Parts extends ReconcilersOptions {
  readonly pools: Informer<KubeObject>;
  /** Copies made by `podCopy`, with `byControllerIndex`. */
  readonly pods: Informer<Pod>;
  readonly recorder: EventRecorder;
}

export interface AddressReconcilers {
  resync(): void;
  stopped(): Promise<void>;
  /** As they are known now. */
  subnets(): readonly SpiderSubnet[];
}

/** Registers with the informers; call it before they start. */
export function startAddressReconcilers(parts: Parts): AddressReconcilers {
  const { client, clock, log, signal, pools, pods } = parts;
  const informer = (gvr: GroupVersionResource): Informer<KubeObject> => new Informer({ client, gvr, log, clock });
  const [subnets, reserved, coordinators] = [spiderSubnets, spiderReservedIPs, spiderCoordinators].map(informer);
  if (subnets === undefined || reserved === undefined || coordinators === undefined) throw new TypeError('unreachable');
  const queue = (name: string, reconcile: (key: string) => Promise<void>): WorkQueue =>
    new WorkQueue({ name, reconcile, clock, log, signal });
  const subnetReconciler = new SubnetReconciler({
    subnets: kubeAccess<SpiderSubnet>(client, spiderSubnets, subnets),
    pools: kubeAccess<SpiderIPPool>(client, spiderIPPools),
    log,
  });
  const coordinatorReconciler = createCoordinatorReconciler(parts);
  const applications = new Applications({ client, clock, log, pods });
  const autoPools = createAutoPoolReconciler(parts, applications);
  const subnetQueue = queue('subnets', (name) => subnetReconciler.reconcile(name));
  const coordinatorQueue = queue('coordinators', (name) => coordinatorReconciler.reconcile(name));
  const applicationQueue = queue('applications', async (key) => {
    // One that is not known yet is not gone, and its pools stay.
    await applications.synced();
    await autoPools?.reconcile(key);
  });
  const nameOf = (object: KubeObject): string => object.metadata?.name ?? '';
  const addApplications = (): void => applications.keys().forEach((key) => applicationQueue.add(key));
  const poolChanged = (object: KubeObject): void => {
    const pool = object as SpiderIPPool;
    for (const name of subnetReconciler.subnetsOf(pool)) subnetQueue.add(name);
    const key = applicationKeyOfPool(pool);
    if (key !== undefined && autoPools !== undefined) applicationQueue.add(key);
  };
  const subnetChanged = (object: KubeObject): void => {
    subnetQueue.add(nameOf(object));
    addApplications();
  };
  const coordinatorChanged = (object: KubeObject): void => coordinatorQueue.add(nameOf(object));
  pools.on('add', poolChanged).on('update', poolChanged).on('delete', poolChanged);
  subnets.on('add', subnetChanged).on('update', subnetChanged);
  reserved.on('delete', addApplications);
  coordinators.on('add', coordinatorChanged).on('update', coordinatorChanged);
  const running = [subnets, reserved, coordinators].map((each) => each.start(signal));
  if (autoPools !== undefined) running.push(...applications.start(signal, (key) => applicationQueue.add(key)));
  const looking = every(parts, coordinatorMs, () => coordinators.list().forEach(coordinatorChanged));
  return {
    subnets: () => subnets.list() as SpiderSubnet[],
    resync: () => {
      subnets.list().forEach(subnetChanged);
      pools.list().forEach(poolChanged);
    },
    stopped: async () => {
      await Promise.all([...running, looking, subnetQueue.idle(), coordinatorQueue.idle(), applicationQueue.idle()]);
    },
  };
}

function createCoordinatorReconciler({ client, settings, recorder }: Parts): CoordinatorReconciler {
  return new CoordinatorReconciler({
    coordinators: kubeAccess<SpiderCoordinator>(client, spiderCoordinators),
    sources: cidrSources(client, settings),
    name: settings.coordinatorName,
    writeEvent: eventWriter(recorder, spiderCoordinators),
  });
}

/** Undefined when the feature is off. */
function createAutoPoolReconciler(
  { client, settings, recorder, log }: Parts,
  applications: Applications,
): AutoPoolReconciler | undefined {
  if (!settings.enableSpiderSubnet || !settings.enableAutoPoolForApplication) return undefined;
  const access = kubeAccess<SpiderIPPool>(client, spiderIPPools);
  return new AutoPoolReconciler({
    find: (key) => applications.find(key),
    ownerLives: (pool) => unwatchedOwnerLives(client, pool, log),
    pools: {
      list: () => access.list(),
      create: (pool) => access.create(pool),
      replace: (pool) => access.replace(pool),
      remove: async ({ metadata: { name = '', uid } }) => {
        await client.delete(spiderIPPools, { name }, uid === undefined ? {} : { preconditions: { uid } });
      },
    },
    subnets: kubeAccess<SpiderSubnet>(client, spiderSubnets),
    reserved: kubeAccess<SpiderReservedIP>(client, spiderReservedIPs),
    defaultExtra: settings.clusterSubnetDefaultFlexibleIPNumber,
    disabledFamilies: disabledFamilies(settings),
    writeEvent: (application, ...rest) => eventWriter(recorder, kindOf(application))(application.object, ...rest),
  });
}

function kindOf({ apiVersion, kind }: ApplicationState): Parameters<typeof eventWriter>[1] {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return { group, version, kind };
}

async function every({ clock, signal }: ReconcilersOptions, ms: number, run: () => void): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(ms, signal).catch(() => undefined);
    if (!signal.aborted) run();
  }
}
