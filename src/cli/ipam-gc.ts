/** `sluice ipam gc`: what the controller's garbage collection would return, and returning it now. */
import type { Pod } from '../api/kubernetes.ts';
import { pods, spiderIPPools } from '../api/resources.ts';
import { createCollector } from '../controller/gc-start.ts';
import { systemClock } from '../core/clock.ts';
import { silentLogger } from '../core/log.ts';
import type { Settings } from '../ipam/settings.ts';
import type { IpamCluster } from './ipam-cluster.ts';

export interface GcReport {
  readonly dryRun: boolean;
  readonly records: readonly GcRecord[];
}

export interface GcRecord {
  readonly pool: string;
  readonly address: string;
  readonly pod: string;
  readonly reason: string;
  /** `due`: to be returned; `returned`: it was; `waiting`: until the time beside it; `kept`: looked like one, and is none. */
  readonly state: 'due' | 'returned' | 'waiting' | 'kept';
  /** ISO 8601. */
  readonly until?: string;
}

/** The same decisions as the controller's, each from what the API server says now; without the pause before them. */
export async function collectGarbage(cluster: IpamCluster, settings: Settings, dryRun: boolean): Promise<GcReport> {
  const { client } = cluster;
  const [poolList, podList] = await Promise.all([client.listAll(spiderIPPools), client.listAll<Pod>(pods)]);
  const known = new Map(podList.items.map((pod) => [`${pod.metadata?.namespace}/${pod.metadata?.name}`, pod]));
  const collector = createCollector({
    ...{ client, settings, clock: systemClock, log: silentLogger },
    pools: { list: () => [...poolList.items] },
    pods: { get: (namespace, name) => known.get(`${namespace}/${name}`) },
  });
  collector.scan();
  const examined = await collector.examine();
  const returned = new Set<string>();
  if (!dryRun) {
    const due = examined.filter(({ decision }) => decision.action === 'release').map(({ pod }) => pod);
    for (const pod of new Set(due)) for (const address of await collector.collectPod(pod)) returned.add(address);
  }
  const records = examined.map(({ decision, ...record }): GcRecord => {
    const { action, reason } = decision;
    if (action === 'wait')
      return { ...record, reason, state: 'waiting', until: new Date(decision.untilMs).toISOString() };
    if (action === 'keep') return { ...record, reason, state: 'kept' };
    return { ...record, reason, state: returned.has(record.address) ? 'returned' : 'due' };
  });
  return { dryRun, records };
}
