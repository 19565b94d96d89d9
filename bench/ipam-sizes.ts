/** What the size of one pool costs: a million addresses, an IPv6 /64, beside a /29. No API server: only what we compute. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../src/kernel/package-root.ts';
import { spread, type BenchRow } from './report.ts';

export interface SizeCase {
  readonly name: string;
  readonly subnet: string;
  readonly ips: string;
  readonly taken: number;
  /** Name of the case that it stands beside. */
  readonly beside?: string;
}

const small = '6 addresses (/29), 2 taken';
const full = '8,190 addresses (/19), 4,990 taken';
const million = '10.0.0.1-10.15.255.254';

export const sizeCases: readonly SizeCase[] = [
  { name: small, subnet: '10.0.0.0/29', ips: '10.0.0.1-10.0.0.6', taken: 2 },
  { name: '1,048,574 addresses (/12), 2 taken', subnet: '10.0.0.0/12', ips: million, taken: 2, beside: small },
  {
    ...{ name: '2^64 addresses (IPv6 /64), 2 taken', subnet: 'fd00::/64', taken: 2, beside: small },
    ips: 'fd00::1-fd00::ffff:ffff:ffff:ffff',
  },
  { name: full, subnet: '10.0.0.0/19', ips: '10.0.0.1-10.0.31.254', taken: 4990 },
  { name: '1,048,574 addresses (/12), 4,990 taken', subnet: '10.0.0.0/12', ips: million, taken: 4990, beside: full },
];

/** What a worker prints. */
export interface SizeFigures {
  readonly admitMs: number;
  readonly changeMs: number;
  readonly allocateMs: number;
  readonly releaseMs: number;
  readonly gcMs: number;
  /** status.allocatedIPs */
  readonly documentKb: number;
  readonly rssMb: number;
  /** Of that, since before the pool was there. */
  readonly grownMb: number;
}

const metrics: readonly (readonly [key: keyof SizeFigures, metric: string, unit: string, factor: number])[] = [
  ['admitMs', 'admission of the pool', 'µs', 1000],
  ['changeMs', 'admission of a change', 'µs', 1000],
  ['allocateMs', 'an address', 'µs', 1000],
  ['releaseMs', 'its return', 'µs', 1000],
  ['gcMs', 'garbage collection', 'µs', 1000],
  ['documentKb', 'stored records', 'kB', 1],
  ['rssMb', 'resident', 'MB', 1],
  ['grownMb', 'of it by the pool', 'MB', 1],
];

export async function sizeRows(quick: boolean, log: (line: string) => void): Promise<BenchRow[]> {
  const rounds = sizeCases.map((): SizeFigures[] => []);
  for (let round = 0; round < (quick ? 1 : 5); round++) {
    for (const [index, { name }] of sizeCases.entries()) {
      const figures = await measure(index, quick ? 0.5 : 1);
      rounds[index]?.push(figures);
      log(`${name}: ${JSON.stringify(figures)}`);
    }
  }
  return sizeCases.flatMap((each, index) => {
    const beside = sizeCases.findIndex(({ name }) => name === each.beside);
    return rowsOf(each, rounds[index] ?? [], rounds[beside]);
  });
}

async function measure(index: number, seconds: number): Promise<SizeFigures> {
  const worker = join(packageRoot(), 'bench', 'ipam-sizes-worker.ts');
  const args = ['--import', 'tsx', '--expose-gc', worker, String(index), String(seconds)];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return JSON.parse(stdout) as SizeFigures;
}

function rowsOf(
  { name, beside }: SizeCase,
  rounds: readonly SizeFigures[],
  baseline: readonly SizeFigures[] | undefined,
): BenchRow[] {
  return metrics.map(([key, metric, unit, factor]) => {
    const own = spread(rounds.map((round) => round[key] * factor));
    const other = baseline && spread(baseline.map((round) => round[key] * factor)).value;
    return {
      ...{ suite: 'ipam', case: name, metric, unit, ...own },
      baseline: beside ?? null,
      ratio: other === undefined || other === 0 ? null : own.value / other,
    };
  });
}
