/** What the bandwidth suite found: rows for a file, and a table for a person. */
import { type Case, cpuBaseline, isSameTraffic, placeNames, rateBpsOf, type Result } from './bandwidth-case.ts';
import { pingPercentile } from './bandwidth-load.ts';
import { alignColumns, type BenchRow, spread } from './report.ts';

export function rowsOf(results: readonly Result[]): BenchRow[] {
  return results.flatMap((result) => {
    const { found } = result;
    const limitMbps = rateBpsOf(result) / 1e6;
    const beside = results.find((other) => isSameTraffic(result, other) && other.mechanism === cpuBaseline);
    const row = (metric: string, unit: string, value: number, baseline?: readonly [string, number]): BenchRow => ({
      ...{ suite: 'bandwidth', case: caseName(result), metric, unit, value, min: value, max: value },
      ...{ baseline: baseline?.[0] ?? null, ratio: baseline === undefined ? null : value / baseline[1] },
    });
    return [
      row('wire rate', 'Mbit/s', found.wireBps / 1e6, ['the limit', limitMbps]),
      row('wire rate, first second', 'Mbit/s', found.firstSecondBps / 1e6, ['the limit', limitMbps]),
      row('retransmits', '', found.retransmits),
      row('ping before, p50', 'ms', pingPercentile(found.pingIdle, 50)),
      row('ping before, p99', 'ms', pingPercentile(found.pingIdle, 99)),
      row('ping under load, p50', 'ms', pingPercentile(found.pingLoaded, 50)),
      row('ping under load, p99', 'ms', pingPercentile(found.pingLoaded, 99)),
      row(
        ...(['CPU', 's/Gbit', found.cpuSecondsPerGbit] as const),
        beside === undefined ? undefined : [cpuBaseline, beside.found.cpuSecondsPerGbit],
      ),
    ];
  });
}

export function caseName({ mechanism, link, place, direction, rate, load }: Case): string {
  return [mechanism, link, placeNames[place], rate, direction, load].join(', ');
}

/** One line while it runs. */
export function resultLine(result: Result): string {
  const { found, mechanism, place, direction, rate, load } = result;
  const error = (bps: number): string => percent(bps / rateBpsOf(result) - 1);
  const [idle, half, most] = [
    pingPercentile(found.pingIdle, 50),
    pingPercentile(found.pingLoaded, 50),
    pingPercentile(found.pingLoaded, 99),
  ].map(ms);
  return [
    mechanism.padEnd(24),
    `${rate} ${direction} ${load}, ${placeNames[place]}`.padEnd(34),
    `${error(found.wireBps)}, 1st s ${error(found.firstSecondBps)}`.padEnd(28),
    `retr ${found.retransmits}`.padEnd(12),
    `ping ${idle} → ${half} / ${most} ms`.padEnd(32),
    `cpu ${found.cpuSecondsPerGbit.toFixed(2)} s/Gbit`,
  ].join(' ');
}

/** One line for each mechanism and rate: the extremes over directions, loads and places. */
export function summaryOf(results: readonly Result[]): string {
  const keyOf = ({ link, rate, mechanism }: Result): string => `${link}|${rate}|${mechanism}`;
  const lines = [...new Set(results.map(keyOf))].map((key) => {
    const group = results.filter((result) => keyOf(result) === key);
    const [first] = group;
    const errors = (of: (result: Result) => number): string => {
      const { min, max } = spread(group.map((result) => of(result) / rateBpsOf(result) - 1));
      return `${percent(min)} … ${percent(max)}`;
    };
    const pings = (which: 'pingIdle' | 'pingLoaded', p: number): string =>
      rangeOf(group.map(({ found }) => pingPercentile(found[which], p)).filter((value) => !Number.isNaN(value)));
    return [
      ...[first?.link ?? '', first?.rate ?? '', first?.mechanism ?? '', String(group.length)],
      errors(({ found }) => found.wireBps),
      errors(({ found }) => found.firstSecondBps),
      String(Math.max(...group.map(({ found }) => found.retransmits || 0))),
      ...[pings('pingIdle', 50), pings('pingLoaded', 50), pings('pingLoaded', 99)],
      rangeOf(group.map(({ found }) => found.cpuSecondsPerGbit)),
    ];
  });
  const head =
    'on,limit,mechanism,cases,rate,first second,retransmits ≤,ping before p50,under load p50,p99 ms,CPU s/Gbit';
  return alignColumns([head.split(','), ...lines]);
}

function rangeOf(values: readonly number[]): string {
  if (values.length === 0) return '–';
  const { value, min, max } = spread(values);
  return min === max ? ms(value) : `${ms(min)} … ${ms(max)}`;
}

export function percent(part: number): string {
  return `${part < 0 ? '−' : '+'}${Math.abs(part * 100).toFixed(Math.abs(part) < 1 ? 1 : 0)} %`;
}

function ms(value: number): string {
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}
