/** Runs something soon after it was asked for, and every now and then unasked. Failures are logged and tried again. */
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { BoundedRunner } from '../core/runner.ts';

const minIntervalMs = 20;

export class PeriodicTask {
  readonly #runner: BoundedRunner;

  constructor(options: {
    readonly name: string;
    readonly run: (signal: AbortSignal) => Promise<void> | void;
    readonly intervalMs: number;
    readonly clock: Clock;
    readonly log: Logger;
  }) {
    const { name, run, intervalMs, clock, log } = options;
    this.#runner = new BoundedRunner({ name, run, clock, log, minIntervalMs, maxIntervalMs: intervalMs });
  }

  markDirty(): void {
    this.#runner.markDirty();
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#runner.start(signal);
  }
}
