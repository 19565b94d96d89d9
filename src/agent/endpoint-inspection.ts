/**
 * Compares records, namespaces and kernel, and puts back what is not as it should be. Four depths:
 *
 *   look, when told          of one endpoint, whose namespace the kernel told of (hook-watch.ts): hooks, pins, limits
 *   sweep, every second      are hooks and pins as they were? about 0.1 ms for each endpoint; and limits, in turns
 *   inspect, every 10 s      everything: hooks, policy, limits, what nobody knows
 *   inspect, at start        the same before the API answers: adoption of what an earlier agent left
 *
 * Repairs never open: a hook that comes back without a policy in the kernel drops until it has one.
 */
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { netnsInode } from '../kernel/netns.ts';
import type { BandwidthReconciler } from './bandwidth-reconciler.ts';
import type { EndpointDatapath } from './endpoint-datapath.ts';
import type { EndpointRecord, EndpointStore } from './endpoint-store.ts';
import { findPodInterfaces, listNetns } from './pod-netns.ts';

export interface EndpointRepair {
  /** Kinds, for the metric: "hook_missing", "not_first", "pin_missing", "bandwidth" … */
  readonly problems: readonly string[];
  /** Sentences. */
  readonly findings: readonly string[];
}

export interface EndpointInspectionDeps {
  readonly store: EndpointStore;
  readonly datapath: EndpointDatapath;
  readonly bandwidth: BandwidthReconciler;
  readonly guard: { ensure(record: EndpointRecord): void };
  /** Writes the endpoint's policy again, which the kernel lost. */
  readonly rewritePolicy: (endpointId: number) => void;
  readonly discard: (record: EndpointRecord) => void;
  /** Something had been removed or changed behind our back and was put back. */
  readonly onRepaired: (record: EndpointRecord, repair: EndpointRepair) => void;
  /** Whether pods without a record had their chance to be adopted: what is left of an earlier agent may then go. */
  readonly mayCollect: () => boolean;
  readonly onOrphanRemoved: () => void;
  readonly log: Logger;
}

export type Inspection = 'removed' | 'repaired' | 'sound' | 'failed';

export class EndpointInspection {
  readonly #deps: EndpointInspectionDeps;
  /** Endpoints that could not be repaired; only `inspect` tries them again. */
  readonly #failed = new Set<number>();
  readonly #toldOrphans = new Set<number>();

  constructor(deps: EndpointInspectionDeps) {
    this.#deps = deps;
  }

  inspect(): Readonly<Record<Inspection, number>> {
    const outcome = { removed: 0, repaired: 0, sound: 0, failed: 0 };
    for (const record of this.#deps.store.list()) outcome[this.#inspectSafely(record)]++;
    return outcome;
  }

  /** The same, letting other work run between two endpoints; then what no record knows. */
  async inspectInTurns(signal: AbortSignal): Promise<void> {
    await this.#eachInTurn(this.#deps.store.list(), signal, (record) => void this.#inspectSafely(record));
    if (!signal.aborted && this.#deps.mayCollect()) this.#collectOrphans();
  }

  async sweep(signal: AbortSignal): Promise<void> {
    const maps = this.#deps.datapath.restorePins([]);
    if (maps.length > 0) this.#deps.log.warn({ paths: maps }, 'maps had lost their names on bpffs and are back');
    await this.#eachInTurn(this.#deps.store.list(), signal, (record) => {
      if (!this.#failed.has(record.endpointId) && !this.#looksSound(record)) this.#inspectSafely(record);
    });
    await this.#eachInTurn(this.#deps.bandwidth.turn(), signal, (record) => {
      if (!this.#failed.has(record.endpointId) && !this.#limitsLookSound(record)) this.#inspectSafely(record);
    });
  }

  /** The kernel told of a change in the endpoint's network namespace. */
  look({ containerId, ifName }: EndpointRecord): void {
    const record = this.#deps.store.get(containerId, ifName);
    if (record === undefined || this.#failed.has(record.endpointId)) return;
    if (!this.#looksSound(record) || !this.#limitsLookSound(record)) this.#inspectSafely(record);
  }

  async #eachInTurn(
    records: readonly EndpointRecord[],
    signal: AbortSignal,
    visit: (record: EndpointRecord) => void,
  ): Promise<void> {
    for (const { containerId, ifName } of records) {
      await new Promise((resolve) => setImmediate(resolve));
      if (signal.aborted) return;
      const record = this.#deps.store.get(containerId, ifName);
      if (record !== undefined) visit(record);
    }
  }

  #looksSound(record: EndpointRecord): boolean {
    try {
      return inodeOf(record.netns) === record.netnsInode && this.#deps.datapath.unchanged(record);
    } catch {
      return false; // the inspection finds out why
    }
  }

  #limitsLookSound(record: EndpointRecord): boolean {
    try {
      return this.#deps.bandwidth.check(record).length === 0;
    } catch {
      return false;
    }
  }

  #inspectSafely(record: EndpointRecord): Inspection {
    try {
      const outcome = this.#inspectOne(record);
      this.#failed.delete(record.endpointId);
      return outcome;
    } catch (error) {
      this.#failed.add(record.endpointId);
      this.#deps.log.error({ ...fieldsOf(record), error: formatErrorChain(error) }, 'endpoint cannot be repaired');
      return 'failed';
    }
  }

  #inspectOne(found: EndpointRecord): 'removed' | 'repaired' | 'sound' {
    const { store, datapath, bandwidth, log } = this.#deps;
    const record = inodeOf(found.netns) === found.netnsInode ? found : movedNetns(found);
    if (record === undefined) {
      this.#deps.discard(found);
      log.info(fieldsOf(found), 'endpoint removed: its network namespace is gone');
      return 'removed';
    }
    if (record !== found) store.put(record);
    this.#deps.guard.ensure(record);
    const pins = datapath.restorePins([record]);
    const hooks = datapath.repair(record);
    if (hooks.unprogrammed) this.#deps.rewritePolicy(record.endpointId);
    if (hooks.upgraded) log.info(fieldsOf(record), 'endpoint has this version of the programs');
    const limits = bandwidth.repair(record);
    const repair = {
      problems: [
        ...(pins.length > 0 ? ['pin_missing'] : []),
        ...hooks.problems,
        ...(limits.length > 0 ? ['bandwidth'] : []),
      ],
      findings: [
        ...(pins.length > 0 ? [`${pins.length} names on bpffs had been removed`] : []),
        ...hooks.findings,
        ...limits,
      ],
    };
    if (repair.findings.length === 0) return 'sound';
    log.warn({ ...fieldsOf(record), ...repair }, 'endpoint repaired');
    this.#deps.onRepaired(record, repair);
    return 'repaired';
  }

  /** What an agent left whose records are lost. A program on a device that lives stays: taking it off would open a pod. */
  #collectOrphans(): void {
    for (const { endpointId, liveLinks } of this.#deps.datapath.orphans(this.#deps.store.list())) {
      if (liveLinks.length === 0) {
        this.#deps.datapath.removeOrphan(endpointId);
        this.#deps.onOrphanRemoved();
        this.#deps.log.info({ endpoint: endpointId }, 'removed what the kernel held of an endpoint that nobody knows');
      } else if (!this.#toldOrphans.has(endpointId)) {
        this.#toldOrphans.add(endpointId);
        const what = 'an endpoint without a record is enforced as an earlier agent left it; it goes with its interface';
        this.#deps.log.warn({ endpoint: endpointId }, what);
      }
    }
  }
}

export function fieldsOf(record: EndpointRecord): object {
  const { namespace, name } = record.pod;
  return { endpoint: record.endpointId, pod: `${namespace}/${name}`, container: record.containerId, ips: record.ips };
}

/**
 * A namespace without a name of its own is known by a process in it, which may end while others stay. Its inode alone
 * would not do: the kernel gives the numbers out again.
 */
function movedNetns(record: EndpointRecord): EndpointRecord | undefined {
  if (!record.netns.startsWith('/proc/')) return undefined;
  const path = listNetns().get(record.netnsInode);
  if (path === undefined) return undefined;
  const [found] = findPodInterfaces(record.ips, new Map([[record.netnsInode, path]]));
  return found?.interfaceName === record.ifName ? { ...record, netns: path } : undefined;
}

function inodeOf(path: string): string | undefined {
  try {
    return String(netnsInode(path));
  } catch {
    return undefined; // ESRCH: the process behind /proc/PID is just ending
  }
}
