/** Inclusive ranges of addresses of one family, and sets of them: the arithmetic of address pools. */

import { compareIp, formatIp, parseIp, type IpAddress } from './ip.ts';

export interface IpRange {
  readonly first: IpAddress;
  /** Inclusive; same family as `first` and not before it. */
  readonly last: IpAddress;
}

/** "A-B" or "A". Undefined when malformed, of two families or reversed; never throws. */
export function parseIpRange(text: string): IpRange | undefined {
  const parts = text.split('-');
  if (parts.length > 2) return undefined;
  const first = parseIp(parts[0] ?? '');
  const last = parts.length === 2 ? parseIp(parts[1] ?? '') : first;
  if (first === undefined || last === undefined) return undefined;
  if (first.family !== last.family || first.value > last.value) return undefined;
  return { first, last };
}

/** "A" for a single address, else "A-B". */
export function formatIpRange(range: IpRange): string {
  const first = formatIp(range.first);
  return range.first.value === range.last.value ? first : `${first}-${formatIp(range.last)}`;
}

/** The same set of addresses as sorted ranges that neither overlap nor touch. */
export function mergeRanges(ranges: readonly IpRange[]): IpRange[] {
  const merged: IpRange[] = [];
  for (const range of [...ranges].sort((a, b) => compareIp(a.first, b.first))) {
    const open = merged.at(-1);
    if (open !== undefined && open.first.family === range.first.family && range.first.value <= open.last.value + 1n) {
      if (range.last.value > open.last.value) merged[merged.length - 1] = { first: open.first, last: range.last };
    } else {
      merged.push(range);
    }
  }
  return merged;
}

/** The addresses of `from` that are in none of `remove`, merged. */
export function subtractRanges(from: readonly IpRange[], remove: readonly IpRange[]): IpRange[] {
  let left = mergeRanges(from);
  for (const hole of mergeRanges(remove)) left = left.flatMap((range) => subtractOne(range, hole));
  return left;
}

export function rangeContains(range: IpRange, ip: IpAddress): boolean {
  return ip.family === range.first.family && range.first.value <= ip.value && ip.value <= range.last.value;
}

/** Number of addresses; an IPv6 range does not fit a double. */
export function rangeSize(range: IpRange): bigint {
  return range.last.value - range.first.value + 1n;
}

function subtractOne(range: IpRange, hole: IpRange): IpRange[] {
  const { family } = range.first;
  if (hole.first.family !== family || hole.last.value < range.first.value || hole.first.value > range.last.value) {
    return [range];
  }
  const left: IpRange[] = [];
  if (range.first.value < hole.first.value) {
    left.push({ first: range.first, last: { family, value: hole.first.value - 1n } });
  }
  if (hole.last.value < range.last.value) {
    left.push({ first: { family, value: hole.last.value + 1n }, last: range.last });
  }
  return left;
}
