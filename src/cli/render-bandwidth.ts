/** What the bandwidth commands print for people. Pure: values in, text out. */
import type { BandwidthAnswer, BandwidthInfo, BandwidthSource } from '../api/agent-api.ts';
import { table } from './render.ts';

const sourceTexts: Readonly<Record<BandwidthSource, string>> = {
  'pod-annotation': 'pod annotation',
  'network-selection': 'network selection',
  runtime: 'runtime',
  'namespace-annotation': 'namespace annotation',
};

const missing = 'not in the kernel';

export function renderBandwidths(answers: readonly BandwidthAnswer[]): string {
  const limits = answers.flatMap((answer) => answer.limits);
  const unlimited = answers.reduce((sum, answer) => sum + answer.unlimited, 0);
  const header = ['NODE', 'POD', 'INTERFACE', 'DIRECTION', 'LIMIT', 'SOURCE', 'MECHANISM', 'RATE', 'DROPS', 'BACKLOG'];
  const rows = limits.map((one) => [
    ...[one.node, `${one.pod.namespace}/${one.pod.name}`, one.interface, one.direction, bpsText(one.limitBps)],
    ...[sourceTexts[one.source], one.mechanism ?? missing, rateText(one)],
    ...[String(one.statistics?.drops ?? '-'), backlogText(one)],
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
      ...[one.dropsPerSecond.toFixed(0), backlogText(one)],
    ]),
  );
}

/** What a pod's own page says of it. */
export function bandwidthLine(limits: readonly BandwidthInfo[]): string {
  const one = ({ direction, limitBps, source, mechanism = missing }: BandwidthInfo): string =>
    `${direction} ${bpsText(limitBps)} (${mechanism}, from ${sourceTexts[source]})`;
  return limits.map(one).join(', ') || 'no limit';
}

/** Nodes that lack the same are named together. */
function shortfallLines(answers: readonly BandwidthAnswer[]): string[] {
  const nodesOf = new Map<string, string[]>();
  for (const { node, shortfalls } of answers)
    for (const sentence of shortfalls) nodesOf.set(sentence, [...(nodesOf.get(sentence) ?? []), node]);
  return [...nodesOf].map(([sentence, nodes]) => `! ${nodes.join(', ')}: ${sentence}`);
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

/** With how long it takes at the limit: that much later the next packet of a bulk flow leaves. */
function backlogText({ statistics, limitBps }: BandwidthInfo): string {
  if (statistics === undefined) return '-';
  const { backlogBytes } = statistics;
  const size = scaled(backlogBytes, 1024, ['B', 'KiB', 'MiB', 'GiB']);
  return backlogBytes === 0 ? size : `${size} (${scaled((backlogBytes * 8e3) / limitBps, 1000, ['ms', 's'])})`;
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let [rest, index] = [value, 0];
  while (rest >= base && index < units.length - 1) [rest, index] = [rest / base, index + 1];
  const text = rest >= 100 || Number.isInteger(rest) ? rest.toFixed(0) : rest.toPrecision(3).replace(/\.?0+$/, '');
  return `${text} ${units[index] ?? ''}`;
}
