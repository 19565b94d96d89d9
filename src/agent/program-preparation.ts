/**
 * Keeps programs of endpoints to come ready, so that CNI ADD does not wait for the kernel's verifier (8 ms for each of the
 * two). They are loaded one at a time, while no ADD has asked for an id for a moment.
 */
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { agentLimits } from './limits.ts';

export interface ProgramPreparationInit {
  /** Loads one program; false when `count` endpoints are prepared. */
  readonly prepare: (count: number) => boolean;
  readonly log: Logger;
}

export class ProgramPreparation implements Disposable {
  readonly #init: ProgramPreparationInit;
  #timer: NodeJS.Timeout | undefined;

  constructor(init: ProgramPreparationInit) {
    this.#init = init;
  }

  /** An id was taken, or the agent has started: goes on after a pause. */
  start(pauseMs: number = agentLimits.preparePauseMs): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#next(), pauseMs);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #next(): void {
    try {
      if (this.#init.prepare(agentLimits.preparedEndpoints)) this.start(1);
    } catch (error) {
      // ADD loads its programs itself then, and says why when it cannot.
      this.#init.log.warn({ error: formatErrorChain(error) }, 'programs could not be prepared');
    }
  }
}
