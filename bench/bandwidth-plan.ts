/** Which cases a run of the bandwidth suite goes through. */
import type { PairLink, PeerPlace } from '../src/datapath/test-bed.ts';
import { type Case, product } from './bandwidth-case.ts';
import { type Direction, mechanisms } from './bandwidth-mechanisms.ts';

export interface PlanFlags {
  readonly rates?: string;
  readonly loads?: string;
  readonly directions?: string;
  readonly places?: string;
  readonly mechanisms?: string;
  readonly seconds?: string;
}

/** What is asked of a link, unless the flags say otherwise. `beside`: of what is put beside ours. */
interface Scope {
  readonly rates: string;
  readonly besideRates: string;
  readonly beside: RegExp;
}

const native: Scope = {
  rates: '1M,10M,100M,1G,5G',
  besideRates: '1M,100M,1G',
  beside: /^(no limit|bandwidth plugin.*|police 1 s|edt)$/,
};
/** On an emulated kernel: it has all mechanisms, and speed for 100M. */
const emulated: Scope = {
  rates: '1M,10M,100M',
  besideRates: '100M',
  beside: /^(sluice htb|no limit|bandwidth plugin.*|police 1 s|edt|edt \+ fq|tbf \+ fq_codel|cake)$/,
};
const quickNative: Scope = { ...native, rates: '1M,100M,1G', besideRates: '100M' };
const quickEmulated: Scope = { ...emulated, rates: '1M,100M' };

/**
 * Ours with every traffic; the others across nodes only, and when quick with the first load only. Without a limit the rate says
 * nothing: once is enough.
 */
export function planCases(link: PairLink, flags: PlanFlags, quick: boolean): Case[] {
  const usual = link.startsWith('ipvlan') ? (quick ? quickEmulated : emulated) : quick ? quickNative : native;
  const rates = list(flags.rates, usual.rates);
  const loads = list(flags.loads, 'tcp1,tcp8,udp');
  const directions = list(flags.directions, 'egress,ingress') as Direction[];
  const places = list(flags.places, quick ? 'outside' : 'outside,beside') as PeerPlace[];
  const seconds = Number(flags.seconds ?? (quick ? 3 : 10));
  const wanted = flags.mechanisms === undefined ? usual.beside : new RegExp(flags.mechanisms);
  const isWanted = (name: string): boolean => wanted.test(name) || (flags.mechanisms === undefined && name === product);
  const names = mechanisms.map(({ name }) => name).filter(isWanted);
  const besideRates = flags.rates === undefined ? list(undefined, usual.besideRates) : rates;
  const all = everyTraffic(rates, loads, directions, places).flatMap((traffic) =>
    names.map((mechanism) => ({ link, mechanism, ...traffic, seconds })),
  );
  return all.filter(({ mechanism, rate, load, place }) => {
    if (mechanism === product) return true;
    if (place !== places[0] || (quick && load !== loads[0])) return false;
    return mechanism === 'no limit' ? rate === besideRates.at(-1) : besideRates.includes(rate);
  });
}

type Traffic = Pick<Case, 'rate' | 'load' | 'direction' | 'place'>;

function everyTraffic(
  rates: readonly string[],
  loads: readonly string[],
  directions: readonly Direction[],
  places: readonly PeerPlace[],
): Traffic[] {
  return rates.flatMap((rate) =>
    loads.flatMap((load) =>
      directions.flatMap((direction) => places.map((place) => ({ rate, load, direction, place }))),
    ),
  );
}

function list(text: string | undefined, usualText: string): string[] {
  return (text ?? usualText).split(',');
}
