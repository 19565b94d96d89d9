/** Waiting for a condition of the outside world, with a limit. */
import { SluiceError } from '../../core/error.ts';

const pollIntervalMs = 500;

/** Asks until the answer is not undefined. */
export async function eventually<T>(what: string, timeoutMs: number, ask: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) {
      throw new SluiceError({
        code: 'timeout',
        operation: 'wait for',
        object: what,
        what: `it did not happen within ${Math.round(timeoutMs / 1000)} s`,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, pollIntervalMs));
  }
}
