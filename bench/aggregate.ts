/**
 * What an aggregate limit on the parent interface would bring and cost (docs/decisions/0009-no-aggregate-limit.md): a pod with a
 * guaranteed share beside one that floods, on a wire that is too narrow for both; and the same devices without a limit in the way.
 */
import { applyBandwidth } from '../src/datapath/shaper.ts';
import { addresses, type Aggregate, AggregateBed } from './aggregate-bed.ts';
import { type Load, measure, type Measurement, pingPercentile } from './bandwidth-load.ts';
import type { Direction } from './bandwidth-mechanisms.ts';
import { type BenchRow, formatTable, percentile, type Suite } from './report.ts';

const wireBps = 100e6;
/** What stands before the wire must be slower than the wire, or nothing waits there. */
const aggregate: Aggregate = { rateBps: 95e6, guaranteedBps: 60e6 };
/** Nothing waits: what remains is the way through it. */
const openAggregate: Aggregate = { rateBps: 200e9, guaranteedBps: 100e9 };
const floods: Readonly<Record<string, Load>> = {
  'UDP at twice the wire': { protocol: 'udp', flows: 1, offeredBps: 2 * wireBps },
  '16 TCP flows': { protocol: 'tcp', flows: 16 },
};
const directions = ['egress', 'ingress'] as const;

export const aggregateSuite: Suite = {
  name: 'aggregate',
  describe: 'what an aggregate limit on the parent interface would bring and cost',
  options: [['--link <kind>', 'macvlan or ipvlan', 'macvlan']],
  async run({ quick, log, flags }) {
    const link = flags['link'] === 'ipvlan' ? 'ipvlan' : 'macvlan';
    const rows: BenchRow[] = [];
    for (const direction of directions) {
      for (const [flood, load] of Object.entries(floods)) {
        const found = await shares(link, direction, load, quick ? 4 : 10);
        rows.push(...found.map((row) => ({ ...row, case: `${direction}, beside ${flood}` })));
        log(formatTable(rows.slice(-found.length)));
      }
    }
    for (const direction of directions) {
      for (const flows of [1, 4]) {
        rows.push(...(await cost(link, direction, flows, quick ? 1 : 5)));
        log(formatTable(rows.slice(-2)));
      }
    }
    return rows;
  },
};

type Link = 'macvlan' | 'ipvlan';

/** The guaranteed pod's own TCP flow: nothing in the way, an aggregate on the parent, or a limit of the other pod alone. */
async function shares(link: Link, direction: Direction, flood: Load, seconds: number): Promise<BenchRow[]> {
  const found = new Map<string, Measurement>();
  for (const [name, limit] of setups) {
    using bed = new AggregateBed(link);
    bed.limitWire(wireBps);
    limit(bed, direction);
    // The flood begins first and ends last.
    const flooding = measure(pathOf(bed, 'flood', direction), flood, seconds + 3, wireBps / 10);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    const path = pathOf(bed, 'guaranteed', direction);
    found.set(name, await measure(path, { protocol: 'tcp', flows: 1 }, seconds, wireBps / 100));
    await flooding;
  }
  const [[, without] = []] = found;
  return [...found]
    .slice(1)
    .flatMap(([name, one]) => [
      rowOf(`${name}: guaranteed 60M gets`, 'Mbit/s', [one.wireBps / 1e6], (without?.wireBps ?? Number.NaN) / 1e6),
      rowOf(`${name}: its ping, p50`, 'ms', [pingOf(one)], without === undefined ? Number.NaN : pingOf(without)),
    ]);
}

const setups: readonly (readonly [string, (bed: AggregateBed, direction: Direction) => void])[] = [
  ['nothing', () => undefined],
  ['aggregate', (bed, direction) => bed.limitParent(direction, aggregate)],
  ['limit of the other pod', limitFlood],
];

/** What the product has: an annotation of that pod or of its namespace. */
function limitFlood(bed: AggregateBed, direction: Direction): void {
  const bps = aggregate.rateBps - aggregate.guaranteedBps;
  const limit = direction === 'egress' ? { egressBps: bps } : { ingressBps: bps };
  applyBandwidth({ netns: bed.path('flood'), interfaceName: 'eth0', ...limit });
}

function pingOf({ pingLoaded }: Measurement): number {
  return pingPercentile(pingLoaded, 50);
}

/** All that the devices carry, without a limit in the way and through one that never holds. */
async function cost(link: Link, direction: Direction, flows: number, rounds: number): Promise<BenchRow[]> {
  const found: Record<'without' | 'through', Measurement[]> = { without: [], through: [] };
  for (let round = 0; round < rounds; round++) {
    for (const which of ['without', 'through'] as const) {
      using bed = new AggregateBed(link);
      if (which === 'through') bed.limitParent(direction, openAggregate);
      const path = pathOf(bed, 'guaranteed', direction);
      found[which].push(await measure(path, { protocol: 'tcp', flows }, 3, 100e6));
    }
  }
  const medianOf = (of: (one: Measurement) => number): number => percentile(found.without.map(of), 50);
  const name = `${direction}, ${flows} TCP flow${flows > 1 ? 's' : ''}, nothing to limit`;
  const row = (metric: string, unit: string, of: (one: Measurement) => number): BenchRow => ({
    ...rowOf(metric, unit, found.through.map(of), medianOf(of)),
    case: name,
  });
  return [
    row('throughput', 'Gbit/s', (one) => one.wireBps / 1e9),
    row('CPU', 's/Gbit', (one) => one.cpuSecondsPerGbit),
  ];
}

function rowOf(metric: string, unit: string, rounds: readonly number[], baseline: number): BenchRow {
  const value = percentile(rounds, 50);
  return {
    ...{ suite: 'aggregate', case: '', metric, unit, value, min: Math.min(...rounds), max: Math.max(...rounds) },
    ...{ baseline: 'without', ratio: value / baseline },
  };
}

function pathOf(bed: AggregateBed, pod: 'guaranteed' | 'flood', direction: Direction): Parameters<typeof measure>[0] {
  const ends = [pod, `${pod}-peer`] as const;
  const [sender, receiver] = direction === 'egress' ? ends : [ends[1], ends[0]];
  return {
    ...{ sender: bed.path(sender), receiver: bed.path(receiver), receiverAddress: addresses[receiver] },
    ...{ pinger: bed.path(pod), pingAddress: addresses[ends[1]] },
  };
}
