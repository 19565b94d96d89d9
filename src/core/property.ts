/** Property tests with a printed seed. For tests only. */

import fc, { type IProperty } from 'fast-check';

/**
 * Runs the property and prints the seed first, so that a failure can be repeated: pass the printed seed as
 * `seed`. (fast-check's own message holds the seed too, but only when the property fails and does not hang.)
 */
export function check<T>(property: IProperty<T>, options: { seed?: number; runs?: number } = {}): void {
  const seed = options.seed ?? Math.floor(Math.random() * 0x7fff_ffff);
  console.log(`# fast-check seed ${seed}`);
  fc.assert(property, { seed, numRuns: options.runs ?? 300, includeErrorInReport: true });
}
