/**
 * Runs a function soon after something was marked dirty: never twice at once, never more often than the minimum
 * interval, at least once per maximum interval, again with growing pauses after a failure.
 *
 *   markDirty ──► wait until minInterval has passed ──► run ──► idle until dirty or maxInterval
 *                                                         └─ failed ──► wait backoff (or dirty) ──► run
 */

import type { Clock } from './clock.ts';
import { formatErrorChain } from './error.ts';
import type { Logger } from './log.ts';

export interface BoundedRunnerOptions {
  readonly name: string;
  /** Level-based: computes and applies the whole desired state, whatever made it dirty. */
  readonly run: (signal: AbortSignal) => Promise<void> | void;
  readonly clock: Clock;
  readonly log: Logger;
  /** Pause between the end of a run and the start of the next. */
  readonly minIntervalMs: number;
  /** Runs although nothing was marked, to repair what changed behind our back. Absent: never. */
  readonly maxIntervalMs?: number;
  /** First pause after a failure, doubled up to `maxBackoffMs`. */
  readonly initialBackoffMs?: number;
  readonly maxBackoffMs?: number;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class BoundedRunner {
  readonly #options: BoundedRunnerOptions;
  #dirty = false;
  #failures = 0;
  #waiters: Waiter[] = [];
  #wake: (() => void) | undefined;

  constructor(options: BoundedRunnerOptions) {
    this.#options = options;
  }

  /** Asks for a run that starts after this call. Calls in between are answered by one run. */
  markDirty(): void {
    this.#dirty = true;
    this.#wake?.();
  }

  /** Marks dirty; settles as the first run does that starts after this call. */
  runOnce(): Promise<void> {
    const done = new Promise<void>((resolve, reject) => this.#waiters.push({ resolve, reject }));
    this.markDirty();
    return done;
  }

  /** The loop; ends (never rejects) when the signal is aborted and the run in progress has ended. */
  async start(signal: AbortSignal): Promise<void> {
    const { clock, minIntervalMs } = this.#options;
    while (!signal.aborted) {
      const waiting = new AbortController();
      await this.#untilDirty(this.#pauseMs(), signal, waiting.signal);
      if (!signal.aborted) await this.#runNow(signal);
      // Behind the run: somebody may wait for it.
      waiting.abort();
      await clock.sleep(minIntervalMs, signal).catch(() => undefined);
    }
    for (const waiter of this.#waiters.splice(0)) waiter.reject(new Error(`${this.#options.name} was stopped`));
  }

  async #runNow(signal: AbortSignal): Promise<void> {
    const waiters = this.#waiters.splice(0);
    this.#dirty = false;
    try {
      await this.#options.run(signal);
      this.#failures = 0;
      for (const waiter of waiters) waiter.resolve();
    } catch (error) {
      this.#failures++;
      for (const waiter of waiters) waiter.reject(error);
      if (!signal.aborted) this.#logFailure(error);
    }
  }

  #logFailure(error: unknown): void {
    const fields = { runner: this.#options.name, failures: this.#failures, retryInMs: this.#pauseMs() };
    this.#options.log.error(fields, `run failed: ${formatErrorChain(error)}`);
  }

  /** How long to stay idle when nobody marks dirty; Infinity is for ever. */
  #pauseMs(): number {
    const { initialBackoffMs = 100, maxBackoffMs = 30_000, maxIntervalMs = Infinity } = this.#options;
    if (this.#failures === 0) return maxIntervalMs;
    return Math.min(initialBackoffMs * 2 ** (this.#failures - 1), maxBackoffMs, maxIntervalMs);
  }

  /** `waiting`: when it is aborted, nothing of the wait is left. */
  async #untilDirty(timeoutMs: number, signal: AbortSignal, waiting: AbortSignal): Promise<void> {
    if (this.#dirty) return;
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
      signal.addEventListener('abort', () => resolve(), { once: true, signal: waiting });
    });
    const waits = [woken];
    if (timeoutMs !== Infinity) waits.push(this.#options.clock.sleep(timeoutMs, waiting).catch(() => undefined));
    await Promise.race(waits);
    this.#wake = undefined;
  }
}
