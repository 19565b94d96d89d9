/** Looks at how full the datapath's maps are, and tells of those that have no room. */
import { setImmediate } from 'node:timers/promises';
import type { Datapath } from '../datapath/datapath.ts';

export interface MapWatchInit {
  readonly kernel: Pick<Datapath, 'countConnections' | 'mapUsage'>;
  /** Said at each look while it lasts. */
  readonly tell: (message: string) => void;
}

export class MapWatch {
  readonly #init: MapWatchInit;

  constructor(init: MapWatchInit) {
    this.#init = init;
  }

  async look(signal: AbortSignal): Promise<void> {
    const { kernel, tell } = this.#init;
    const steps = kernel.countConnections();
    while (steps.next().done !== true) {
      // Others wait for the agent too.
      await setImmediate();
      if (signal.aborted) return;
    }
    // Without their number: an event is repeated when it says the same.
    for (const { map, maxEntries, full, remedy } of kernel.mapUsage())
      if (full) tell(`map ${map} has no room, it holds ${maxEntries} entries: ${remedy}`);
  }
}
