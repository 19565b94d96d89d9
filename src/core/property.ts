/** Property tests with a printed seed. For tests only. */

import fc, { type IProperty } from 'fast-check';

export interface CheckOptions<T = unknown> {
  readonly seed?: number | undefined;
  readonly runs?: number | undefined;
  /** Of a failure that was reported: straight to the shrunk counterexample. */
  readonly path?: string | undefined;
  /** Looked at first: what was found once. */
  readonly examples?: readonly T[] | undefined;
}

/**
 * Runs the property and prints the seed first, so that a failure can be repeated: pass the printed seed as
 * `seed`. (fast-check's own message holds the seed too, but only when the property fails and does not hang.)
 */
export function check<T>(property: IProperty<T>, options: CheckOptions<T> = {}): void {
  const seed = options.seed ?? randomSeed();
  console.log(`# fast-check seed ${seed}`);
  fc.assert(property, {
    seed,
    numRuns: options.runs ?? 300,
    includeErrorInReport: true,
    ...(options.path !== undefined && { path: options.path }),
    ...(options.examples !== undefined && { examples: [...options.examples] }),
  });
}

/**
 * Runs the property again and again, each batch under the next seed, until `done` says that enough was seen. With a
 * seed and a path only that one case runs, to repeat a failure.
 */
export function checkUntil<T>(property: IProperty<T>, done: () => boolean, options: CheckOptions = {}): void {
  let seed = options.seed ?? randomSeed();
  do {
    check(property, { ...options, seed });
    seed = (seed + 1) & 0x7fff_ffff;
  } while (options.path === undefined && !done());
}

function randomSeed(): number {
  return Math.floor(Math.random() * 0x7fff_ffff);
}
