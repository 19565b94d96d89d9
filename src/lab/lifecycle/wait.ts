import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError } from '../../core/error.ts';

/** Generous: the same lab runs on an emulated CPU that is ten times slower. */
const defaultTimeoutMs = 600_000;

/** Asks until `done` answers true. An error counts as "not yet" and becomes the cause when time runs out. */
export async function waitFor(
  what: string,
  done: () => Promise<boolean> | boolean,
  options: { readonly timeoutMs?: number; readonly failed?: () => string | undefined } = {},
): Promise<void> {
  const { timeoutMs = defaultTimeoutMs } = options;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs * 1.5, 500)) {
    try {
      if (await done()) return;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    const reason = options.failed?.();
    if (reason !== undefined) throw failed(what, reason, cause);
    if (performance.now() > deadline) throw failed(what, `not within ${timeoutMs / 1000} s`, cause);
    await delay(pauseMs);
  }
}

function failed(object: string, what: string, cause: unknown): SluiceError {
  return new SluiceError({ code: 'timeout', operation: 'wait for', object, what, cause });
}
