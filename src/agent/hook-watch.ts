/**
 * What a process in a pod does to qdiscs and filters is told by the kernel at once, and put right at once; the periodic look
 * (endpoint-inspection.ts) remains for what nobody tells.
 */
import type { Clock } from '../core/clock.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { Netns } from '../kernel/index.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { agentLimits } from './limits.ts';

/** The part of src/kernel's TcMonitor that this needs. */
export interface ChangeMonitor {
  watch(netns: Netns): number | undefined;
  wait(timeoutMs: number): Promise<void>;
  wake(): void;
  changed(): ReadonlySet<number> | undefined;
}

export interface HookWatchDeps {
  readonly monitor: ChangeMonitor;
  readonly records: () => readonly EndpointRecord[];
  /** Something may have changed in the endpoint's namespace. */
  readonly look: (record: EndpointRecord) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Watched {
  readonly netnsInode: string;
  readonly number: number | undefined;
}

export class HookWatch {
  readonly #deps: HookWatchDeps;
  /** By endpoint id. */
  readonly #watched = new Map<number, Watched>();

  constructor(deps: HookWatchDeps) {
    this.#deps = deps;
  }

  /** Watches the endpoints that are new. */
  follow(): void {
    const records = this.#deps.records();
    for (const record of records) {
      if (this.#watched.get(record.endpointId)?.netnsInode !== record.netnsInode) this.#watch(record);
    }
    if (this.#watched.size === records.length) return;
    const known = new Set(records.map(({ endpointId }) => endpointId));
    for (const id of this.#watched.keys()) if (!known.has(id)) this.#watched.delete(id);
  }

  async start(signal: AbortSignal): Promise<void> {
    const { monitor, clock } = this.#deps;
    signal.addEventListener('abort', () => monitor.wake(), { once: true });
    while (!signal.aborted) {
      this.follow();
      await monitor.wait(agentLimits.hookCheckMs);
      if (signal.aborted) return;
      this.#lookAt(monitor.changed());
      await clock.sleep(agentLimits.hookReactionPauseMs, signal).catch(() => undefined);
    }
  }

  #lookAt(changed: ReadonlySet<number> | undefined): void {
    if (changed?.size === 0) return;
    for (const record of this.#deps.records()) {
      const number = this.#watched.get(record.endpointId)?.number;
      if (changed === undefined || (number !== undefined && changed.has(number))) this.#deps.look(record);
    }
  }

  #watch(record: EndpointRecord): void {
    const { endpointId, netnsInode } = record;
    try {
      using netns = Netns.openPath(record.netns);
      if (String(netns.inode) !== netnsInode) return;
      this.#watched.set(endpointId, { netnsInode, number: this.#deps.monitor.watch(netns) });
    } catch (error) {
      // The periodic look sees it all the same.
      this.#watched.set(endpointId, { netnsInode, number: undefined });
      this.#deps.log.debug({ endpoint: endpointId, error: formatErrorChain(error) }, 'changes of hooks are not told');
    }
  }
}
