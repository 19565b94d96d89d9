import { applicationAffinityKeys, spiderLabels } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { IpFamily } from '../core/ip.ts';
import { compareText } from '../core/labels.ts';
import { applicationAffinity, applicationLabels, type Application } from './application.ts';

/**
 * Pools that the controller makes for one application, one per interface and family, because its pods carry a subnet
 * annotation (auto-pool-request.ts).
 *
 * Between controller and agents: the controller makes the pool when it sees the application, sizes it, and is the only
 * writer of its spec; an agent takes the pool that `autoPoolOf` finds, and when there is none yet, or it has no free
 * address, waits for an add or update of pools until its limit. Nothing else is exchanged.
 */

export interface AutoPoolSlot {
  readonly interface: string;
  readonly family: IpFamily;
}

/** Kubernetes' limit for the name of an object. */
const maxNameLength = 253;

/** auto{4|6}-{application}-{interface}-{first five characters of the last group of its UID} */
export function autoPoolName(application: Application, slot: AutoPoolSlot): string {
  const tail = `-${slot.interface}-${(application.uid.split('-').at(-1) ?? '').slice(0, 5)}`.toLowerCase();
  const head = `auto${slot.family}-`;
  return head + application.name.toLowerCase().slice(0, maxNameLength - head.length - tail.length) + tail;
}

export function autoPoolLabels(application: Application, slot: AutoPoolSlot, reclaim: boolean): Record<string, string> {
  return {
    ...applicationLabels(application),
    [spiderLabels.interface]: slot.interface,
    [spiderLabels.ipVersion]: `IPv${slot.family}`,
    [spiderLabels.poolReclaim]: String(reclaim),
  };
}

/** Made by the controller for an application, whoever that is. */
export function isAutoPool(pool: SpiderIPPool): boolean {
  const labels = pool.metadata.labels ?? {};
  return labels[spiderLabels.ownerName] !== undefined && labels[spiderLabels.interface] !== undefined;
}

/**
 * The application's pool for that interface and family. Found by name of the application, not by its UID: a pool that
 * is kept (ippool-reclaim "false") serves the next application of the same kind and name. When there are two, the one
 * with the application's UID, then the first by name.
 */
export function autoPoolOf(
  pools: readonly SpiderIPPool[],
  application: Application,
  slot: AutoPoolSlot,
): SpiderIPPool | undefined {
  const { [spiderLabels.ownerUid]: uid, ...wanted } = autoPoolLabels(application, slot, true);
  delete wanted[spiderLabels.poolReclaim];
  const matching = pools.filter(({ metadata }) => {
    const labels = metadata.labels ?? {};
    return !metadata.deletionTimestamp && Object.entries(wanted).every(([key, value]) => labels[key] === value);
  });
  const own = (pool: SpiderIPPool): number => (pool.metadata.labels?.[spiderLabels.ownerUid] === uid ? 0 : 1);
  return matching.sort((a, b) => own(a) - own(b) || compareText(a.metadata.name ?? '', b.metadata.name ?? ''))[0];
}

/** Whether the pool's podAffinity names an application instead of labels of pods. */
export function hasApplicationAffinity(pool: SpiderIPPool): boolean {
  return pool.spec.podAffinity?.matchLabels?.[applicationAffinityKeys.kind] !== undefined;
}

/** For pools with `hasApplicationAffinity`: whether it is this application that it names. */
export function matchesApplication(pool: SpiderIPPool, application: Omit<Application, 'uid'>): boolean {
  const wanted = pool.spec.podAffinity?.matchLabels ?? {};
  return Object.entries(applicationAffinity(application)).every(([key, value]) => (wanted[key] ?? '') === value);
}
