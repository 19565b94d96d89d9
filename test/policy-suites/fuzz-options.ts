/** How much to fuzz, or what to repeat: from the environment of the test. */

import type { CheckOptions } from '../../src/core/property.ts';

export interface FuzzOptions extends Pick<CheckOptions, 'seed' | 'path'> {
  /** At least so many packets are judged. */
  readonly verdicts: number;
}

/** SLUICE_FUZZ_VERDICTS, SLUICE_FUZZ_SEED, SLUICE_FUZZ_PATH; throws on what is not a number. */
export function fuzzOptions(env: Readonly<Record<string, string | undefined>>): FuzzOptions {
  return {
    verdicts: numberOf(env['SLUICE_FUZZ_VERDICTS'], 'SLUICE_FUZZ_VERDICTS') ?? 100_000,
    seed: numberOf(env['SLUICE_FUZZ_SEED'], 'SLUICE_FUZZ_SEED'),
    path: env['SLUICE_FUZZ_PATH'],
  };
}

function numberOf(text: string | undefined, name: string): number | undefined {
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`${name}=${text} is not a whole number`);
  return value;
}
