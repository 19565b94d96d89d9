/** What the bandwidth commands print for people. Pure: values in, text out. */
import type { BandwidthAnswer, BandwidthInfo, BandwidthSource } from '../api/agent-api.ts';
import { table } from './render.ts';

const sourceTexts: Readonly<Record<BandwidthSource, string>> = {
  'pod-annotation': 'pod',
  'network-selection': 'network selection',
  runtime: 'runtime',
  'namespace-annotation': 'namespace',
};

const missing = 'not in the kernel';

export function renderBandwidths(answers: readonly BandwidthAnswer[]): string {
  const limits = answers.flatMap((answer) => answer.limits);
  const unlimited = answers.reduce((sum, answer) => sum + answer.unlimited, 0);
  const header = ['NODE', 'POD', 'INTERFACE', 'DIRECTION', 'LIMIT', 'SOURCE', 'MECHANISM', 'RATE', 'DROPS', 'BACKLOG'];
  const rows = limits.map((one) => [
    ...[one.node, `${one.pod.namespace}/${one.pod.name}`, one.interface, one.direction, bpsText(one.limitBps)],
    ...[sourceTexts[one.source], one.mechanism ?? missing, rateText(one)],
    ...[String(one.statistics?.drops ?? '-'), bytesText(one.statistics?.backlogBytes)],
  ]);
  return [
    limits.length === 0 ? 'no limits' : table(header, rows),
    ...(unlimited === 0 ? [] : [`${unlimited} interfaces without a limit`]),
    ...shortfallLines(answers),
  ].join('\n');
}

export type TopOrder = 'rate' | 'share' | 'drops' | 'backlog';
export const topOrders: readonly TopOrder[] = ['share', 'rate', 'drops', 'backlog'];

/** A line of `top`: what happened between two answers. */
export interface BandwidthTopLine extends BandwidthInfo {
  /** Rate against limit, 0 to 1 and a little more. */
  readonly share: number;
  readonly dropsPerSecond: number;
}

/** `before` are the limits of the last round; its drops are counted from. */
export function topLines(
  limits: readonly BandwidthInfo[],
  before: readonly BandwidthInfo[],
  elapsedMs: number,
  order: TopOrder,
): BandwidthTopLine[] {
  const earlier = new Map(before.map((one) => [placeOf(one), one.statistics?.drops ?? 0]));
  const lines = limits.map((one): BandwidthTopLine => {
    const drops = one.statistics?.drops ?? 0;
    const more = Math.max(0, drops - (earlier.get(placeOf(one)) ?? drops));
    return { ...one, share: (one.rateBps ?? 0) / one.limitBps, dropsPerSecond: (more * 1000) / elapsedMs };
  });
  const value: Readonly<Record<TopOrder, (line: BandwidthTopLine) => number>> = {
    rate: ({ rateBps = 0 }) => rateBps,
    share: ({ share }) => share,
    drops: ({ dropsPerSecond }) => dropsPerSecond,
    backlog: ({ statistics }) => statistics?.backlogBytes ?? 0,
  };
  return lines.sort((a, b) => value[order](b) - value[order](a) || (placeOf(a) < placeOf(b) ? -1 : 1));
}

export function renderTop(lines: readonly BandwidthTopLine[]): string {
  const header = ['NODE', 'POD', 'INTERFACE', 'DIRECTION', 'RATE', 'LIMIT', 'USED', 'DROPS/S', 'BACKLOG'];
  return table(
    header,
    lines.map((one) => [
      ...[one.node, `${one.pod.namespace}/${one.pod.name}`, one.interface, one.direction, rateText(one)],
      ...[bpsText(one.limitBps), one.mechanism === undefined ? missing : `${Math.round(one.share * 100)} %`],
      ...[one.dropsPerSecond.toFixed(0), bytesText(one.statistics?.backlogBytes)],
    ]),
  );
}

/** What a pod's own page says of it. */
export function bandwidthLine(limits: readonly BandwidthInfo[]): string {
  const one = ({ direction, limitBps, source, mechanism = missing }: BandwidthInfo): string =>
    `${direction} ${bpsText(limitBps)} (${mechanism}, from ${sourceTexts[source]})`;
  return limits.map(one).join(', ') || 'no limit';
}

function shortfallLines(answers: readonly BandwidthAnswer[]): string[] {
  return answers.flatMap(({ node, shortfalls }) => shortfalls.map((sentence) => `! ${node}: ${sentence}`));
}

function placeOf({ node, pod, interface: name, direction }: BandwidthInfo): string {
  return [node, pod.namespace, pod.name, name, direction].join('/');
}

function rateText({ rateBps }: BandwidthInfo): string {
  return rateBps === undefined ? '-' : bpsText(rateBps);
}

/** Decimal, as limits are written: "100 Mbit/s", "1.5 kbit/s". */
export function bpsText(bps: number): string {
  return scaled(bps, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s', 'Pbit/s']);
}

function bytesText(bytes: number | undefined): string {
  return bytes === undefined ? '-' : scaled(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB']);
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let [rest, index] = [value, 0];
  while (rest >= base && index < units.length - 1) [rest, index] = [rest / base, index + 1];
  const text = rest >= 100 || Number.isInteger(rest) ? rest.toFixed(0) : rest.toPrecision(3).replace(/\.?0+$/, '');
  return `${text} ${units[index] ?? ''}`;
}
