/** Who reaches whom on one port, and how a difference is shown to a person. */

import type { IpFamily } from '../../src/core/ip.ts';
import { evaluate } from '../../src/policy/oracle.ts';
import { matchesPattern, type Expectation, type PodName, type Protocol } from './case.ts';
import type { Scene } from './scene.ts';

export interface Probe {
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
}

export type Outcome = 'reached' | 'timeout' | 'refused' | 'error';

export class TruthTable {
  readonly pods: readonly PodName[];
  readonly #cells = new Map<string, Outcome>();

  constructor(pods: readonly PodName[]) {
    this.pods = pods;
  }

  static of(pods: readonly PodName[], cell: (from: PodName, to: PodName) => Outcome): TruthTable {
    const table = new TruthTable(pods);
    for (const from of pods) for (const to of pods) table.set(from, to, cell(from, to));
    return table;
  }

  get(from: PodName, to: PodName): Outcome | undefined {
    return this.#cells.get(`${from} ${to}`);
  }

  set(from: PodName, to: PodName, outcome: Outcome): void {
    this.#cells.set(`${from} ${to}`, outcome);
  }

  /** The cells that are not as expected, in order. */
  differences(expected: TruthTable): { readonly from: PodName; readonly to: PodName }[] {
    return this.pods.flatMap((from) =>
      this.pods.flatMap((to) => (this.get(from, to) === expected.get(from, to) ? [] : [{ from, to }])),
    );
  }
}

/**
 * What NetworkPolicy says: the source's egress and the destination's ingress both allow it. A pod's packets to its own
 * address stay on its loopback, which no policy reaches (k/k#95879 asks for that; the suites leave the cells out).
 */
export function expectedTable(scene: Scene, { family, protocol, port }: Probe): TruthTable {
  const world = scene.world();
  const allows = (pod: PodName, peer: PodName, direction: 'ingress' | 'egress'): boolean =>
    evaluate(world, { pod: scene.pod(pod), direction, peer: scene.addressOf(peer, family), protocol, port }).verdict ===
    'allow';
  return TruthTable.of(scene.podNames, (from, to) =>
    from === to || (allows(from, to, 'egress') && allows(to, from, 'ingress')) ? 'reached' : 'timeout',
  );
}

/** What upstream states by hand. */
export function statedTable(pods: readonly PodName[], { edges }: Expectation): TruthTable {
  return TruthTable.of(pods, (from, to) => {
    if (from === to) return 'reached';
    const last = edges.filter((edge) => matchesPattern(edge.from, from) && matchesPattern(edge.to, to)).at(-1);
    return (last?.reaches ?? true) ? 'reached' : 'timeout';
  });
}

const marks: Readonly<Record<Outcome, string>> = { reached: '.', timeout: 'X', refused: 'R', error: 'E' };

/**
 * Expected and seen side by side, from × to; cells that differ carry a "<".
 *
 *   TCP 80 over IPv4, from (rows) to (columns); . reached, X timeout, R refused, E error
 *          expected            seen
 *          x/a x/b y/a         x/a x/b y/a
 *   x/a     .   .   X           .   .   .<
 */
export function formatDifference(probe: Probe, expected: TruthTable, seen: TruthTable): string {
  const { pods } = expected;
  const width = Math.max(...pods.map((pod) => pod.length)) + 1;
  const cell = (text: string): string => text.padEnd(width);
  const row = (table: TruthTable, from: PodName, mark: (to: PodName) => string): string =>
    pods.map((to) => cell(` ${marks[table.get(from, to) ?? 'error']}${mark(to)}`)).join('');
  const heads = pods.map(cell).join('');
  const wrong = (from: PodName, to: PodName): string => (expected.get(from, to) === seen.get(from, to) ? '' : '<');
  return [
    `${probe.protocol} ${probe.port} over IPv${probe.family}, from (rows) to (columns); . reached, X timeout, R refused, E error`,
    `${cell('')}${'expected'.padEnd(heads.length)}  seen`,
    `${cell('')}${heads}  ${heads}`,
    ...pods.map((from) => `${cell(from)}${row(expected, from, () => '')}  ${row(seen, from, (to) => wrong(from, to))}`),
  ].join('\n');
}
