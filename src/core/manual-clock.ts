/** A clock for tests that stands still until `advance` is called. */

import { abortReason, type Clock } from './clock.ts';

interface Sleeper {
  readonly dueMs: number;
  readonly wake: () => void;
}

export class ManualClock implements Clock {
  #nowMs: number;
  #sleepers: Sleeper[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  /** How many sleeps have not ended yet. */
  get sleeping(): number {
    return this.#sleepers.length;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(abortReason(signal));
        return;
      }
      const onAbort = (): void => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(abortReason(signal));
      };
      const wake = (): void => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      const sleeper: Sleeper = { dueMs: this.#nowMs + ms, wake };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Ends every sleep due by then, in order, and lets the code behind each run before the next. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await settle();
    for (;;) {
      const next = this.#nextDueBy(untilMs);
      if (next === undefined) break;
      this.#sleepers = this.#sleepers.filter((other) => other !== next);
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.wake();
      await settle();
    }
    this.#nowMs = untilMs;
  }

  #nextDueBy(untilMs: number): Sleeper | undefined {
    const due = this.#sleepers.filter((sleeper) => sleeper.dueMs <= untilMs);
    return due.reduce<Sleeper | undefined>((a, b) => (a === undefined || b.dueMs < a.dueMs ? b : a), undefined);
  }
}

/** A turn of the event loop runs every promise reaction that is ready. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
