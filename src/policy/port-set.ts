/** Sets of (protocol, destination port): what entries let through between two parties, and how two such sets differ. */

import type { PolicyEntry } from './compile.ts';

/** Inclusive. */
type Interval = readonly [first: number, last: number];

/** Protocols of which a policy names ports; 0 stands for all the others, which have none. */
const protocols = [6, 17, 132, 0] as const;
type Slot = (typeof protocols)[number];

const lastPort = 65_535;
const whole: Readonly<Record<Slot, Interval>> = { 6: [0, lastPort], 17: [0, lastPort], 132: [0, lastPort], 0: [0, 0] };

const names: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmpv6', 132: 'sctp' };

/** "tcp"; the number where the protocol has no common name. */
export function protocolName(protocol: number): string {
  return names[protocol] ?? String(protocol);
}

/** Frozen values; every operation makes a new set. */
export class PortSet {
  readonly #slots: ReadonlyMap<Slot, readonly Interval[]>;

  static readonly empty = new PortSet(new Map());
  static readonly all = new PortSet(new Map(protocols.map((slot) => [slot, [whole[slot]]])));

  private constructor(slots: ReadonlyMap<Slot, readonly Interval[]>) {
    this.#slots = new Map([...slots].filter(([, intervals]) => intervals.length > 0));
  }

  /** What one entry's protocol and port let through. */
  static ofMatch(match: Pick<PolicyEntry, 'protocol' | 'port' | 'portPrefixLen'>): PortSet {
    if (match.protocol === 0) return PortSet.all;
    return PortSet.range(match.protocol, match.port, match.port + 2 ** (16 - match.portPrefixLen) - 1);
  }

  static range(protocol: number, first: number, last: number): PortSet {
    const slot = protocols.find((one) => one === protocol) ?? 0;
    return new PortSet(new Map([[slot, [slot === 0 ? whole[0] : ([first, last] as const)]]]));
  }

  static union(sets: Iterable<PortSet>): PortSet {
    const slots = new Map<Slot, Interval[]>();
    for (const set of sets) {
      for (const [slot, intervals] of set.#slots) slots.set(slot, [...(slots.get(slot) ?? []), ...intervals]);
    }
    return new PortSet(new Map([...slots].map(([slot, intervals]) => [slot, merge(intervals)])));
  }

  get isEmpty(): boolean {
    return this.#slots.size === 0;
  }

  get isAll(): boolean {
    return PortSet.all.minus(this).isEmpty;
  }

  intersect(other: PortSet): PortSet {
    return this.minus(PortSet.all.minus(other));
  }

  minus(other: PortSet): PortSet {
    const slots = [...this.#slots].map(([slot, own]) => {
      const holes = other.#slots.get(slot) ?? [];
      return [slot, own.flatMap((interval) => cut(interval, holes))] as const;
    });
    return new PortSet(new Map(slots));
  }

  covers(other: PortSet): boolean {
    return other.minus(this).isEmpty;
  }

  equals(other: PortSet): boolean {
    return this.covers(other) && other.covers(this);
  }

  /** "80/tcp, 8000-8080/udp", "every port of tcp", "every port", "nothing". */
  toString(): string {
    if (this.isEmpty) return 'nothing';
    if (this.isAll) return 'every port';
    return protocols
      .flatMap((slot) => (this.#slots.get(slot) ?? []).map((interval) => formatInterval(slot, interval)))
      .join(', ');
  }
}

function formatInterval(slot: Slot, [first, last]: Interval): string {
  if (slot === 0) return 'other protocols';
  if (first === 0 && last === lastPort) return `every port of ${protocolName(slot)}`;
  return first === last ? `${first}/${protocolName(slot)}` : `${first}-${last}/${protocolName(slot)}`;
}

function merge(intervals: readonly Interval[]): Interval[] {
  const merged: [number, number][] = [];
  for (const [first, last] of [...intervals].sort((a, b) => a[0] - b[0])) {
    const before = merged.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else merged.push([first, last]);
  }
  return merged;
}

/** What is left of the interval; the holes are sorted and apart. */
function cut(interval: Interval, holes: readonly Interval[]): Interval[] {
  const left: Interval[] = [];
  let first = interval[0];
  for (const [holeFirst, holeLast] of holes) {
    if (holeLast < first || holeFirst > interval[1]) continue;
    if (holeFirst > first) left.push([first, holeFirst - 1]);
    first = holeLast + 1;
  }
  if (first <= interval[1]) left.push([first, interval[1]]);
  return left;
}
