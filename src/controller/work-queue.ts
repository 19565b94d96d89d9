import type { Clock } from '../core/clock.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';

/**
 * Keys to be reconciled, each at most once at a time and once in waiting, however often it is marked. A reconcile
 * that fails is tried again, later each time; an event in between tries at once.
 */

const firstRetryMs = 100;
const maxRetryMs = 30_000;

export interface WorkQueueOptions {
  readonly name: string;
  /** Brings the world in line for this key; throws when it could not. */
  readonly reconcile: (key: string) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export class WorkQueue {
  readonly #options: WorkQueueOptions;
  readonly #waiting = new Set<string>();
  readonly #failures = new Map<string, number>();
  #working: Promise<void> | undefined;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
  }

  add(key: string): void {
    if (this.#options.signal.aborted) return;
    this.#waiting.add(key);
    this.#start();
  }

  /** Resolves when nothing waits and nothing runs; retries that are due later do not count. */
  async idle(): Promise<void> {
    while (this.#working !== undefined) await this.#working;
  }

  #start(): void {
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
      // Marked between the last look at the set and now.
      if (this.#waiting.size > 0 && !this.#options.signal.aborted) this.#start();
    });
  }

  async #work(): Promise<void> {
    // A turn of the loop first, so that a burst of events about one key is one reconcile.
    await new Promise((resolve) => setImmediate(resolve));
    for (const key of this.#waiting) {
      this.#waiting.delete(key);
      if (this.#options.signal.aborted) return;
      await this.#reconcile(key);
    }
  }

  async #reconcile(key: string): Promise<void> {
    const { name, reconcile, log } = this.#options;
    try {
      await reconcile(key);
      this.#failures.delete(key);
    } catch (error) {
      const failures = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, failures);
      const retryMs = Math.min(maxRetryMs, firstRetryMs * 2 ** Math.min(failures - 1, 20));
      log.warn(
        { queue: name, key, failures, retryMs, error: formatErrorChain(error) },
        'reconcile failed, trying again',
      );
      void this.#retry(key, retryMs);
    }
  }

  async #retry(key: string, retryMs: number): Promise<void> {
    try {
      await this.#options.clock.sleep(retryMs, this.#options.signal);
      this.add(key);
    } catch {
      // Stopped while waiting: the next start reconciles everything anyway.
    }
  }
}
