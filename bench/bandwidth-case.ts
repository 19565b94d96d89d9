/** One case of the bandwidth suite, and what was found. */
import { parseQuantity } from '../src/core/quantity.ts';
import type { PairLink, PeerPlace } from '../src/datapath/test-bed.ts';
import type { Measurement } from './bandwidth-load.ts';
import type { Direction } from './bandwidth-mechanisms.ts';

/** Plain data: it goes to the guest as JSON. */
export interface Case {
  readonly link: PairLink;
  readonly place: PeerPlace;
  readonly mechanism: string;
  readonly direction: Direction;
  /** As given, for example 100M. */
  readonly rate: string;
  /** tcp1, tcp8, udp (twice the rate), small (64 bytes of payload); the number: of flows. */
  readonly load: string;
  readonly seconds: number;
}

export interface Result extends Case {
  readonly kernel: string;
  readonly found: Measurement;
}

/** The mechanism of which the goals are asked: what the product takes on this kernel. */
export const product = 'sluice';
/** Whose CPU ours is put beside: the plugin with a bucket as small as ours, so that it limits from the start. */
export const cpuBaseline = 'bandwidth plugin, 20 ms';
export const placeNames = { outside: 'across nodes', beside: 'same node' } as const;

/** The same traffic, limited in another way. */
export function isSameTraffic(a: Case, b: Case): boolean {
  return (['link', 'place', 'direction', 'rate', 'load'] as const).every((key) => a[key] === b[key]);
}

export function rateBpsOf({ rate }: Case): number {
  return Number(parseQuantity(rate));
}
