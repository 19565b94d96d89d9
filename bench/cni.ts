/**
 * CNI ADD and DEL of a whole chain, pods one after another and twenty at once, on a real lab node: ours (macvlan, spiderpool, cilium-cni,
 * coordinator) beside Debian's macvlan, host-local and tuning, which has neither policy nor limits nor shared addresses.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../src/kernel/package-root.ts';
import { type BenchRow, percentile, type Suite, spread } from './report.ts';

const baseline = 'macvlan+host-local+tuning';

/** Pods that start at once. */
export const parallel = 20;

export interface ChainTimes {
  /** Milliseconds, one for each pod. */
  readonly add: readonly number[];
  readonly del: readonly number[];
}

export interface WorkerReport {
  readonly ours: ChainTimes;
  readonly plain: ChainTimes;
  /** ADD, milliseconds, when `parallel` pods start at once. */
  readonly oursTogether: readonly number[];
  readonly plainTogether: readonly number[];
}

export const cniSuite: Suite = {
  name: 'cni',
  describe: 'ADD and DEL of the whole chain, 100 pods one after another and 20 at once',
  run({ quick, log }) {
    const dir = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
    try {
      log('starting a one-node lab on macvlan');
      sluice(['lab', 'up', '--dir', dir, '--link', 'macvlan', '--nodes', '1']);
      const rounds: WorkerReport[] = [];
      for (let round = 1; round <= (quick ? 1 : 5); round++) {
        log(`round ${round}`);
        rounds.push(measureOnNode(dir, quick ? 20 : 100));
      }
      return Promise.resolve(rows(rounds));
    } finally {
      sluice(['lab', 'down', '--dir', dir]);
      rmSync(dir, { recursive: true, force: true });
    }
  },
};

function sluice(args: readonly string[]): void {
  const result = spawnSync(join(packageRoot(), 'bin', 'sluice'), args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (result.status !== 0) throw new Error(`sluice ${args.join(' ')} ended with status ${result.status}`);
}

/** The worker runs inside the node's namespace, as a container runtime does. */
function measureOnNode(dir: string, pods: number): WorkerReport {
  const status = spawnSync(join(packageRoot(), 'bin', 'sluice'), ['lab', 'status', '--json', '--dir', dir], {
    encoding: 'utf8',
  });
  const { id } = JSON.parse(status.stdout) as { id: string };
  const worker = join(packageRoot(), 'bench', 'cni-worker.ts');
  const args = [
    `--net=/run/netns/sluice-${id}-node1`,
    process.execPath,
    '--import',
    'tsx',
    worker,
    dir,
    id,
    String(pods),
  ];
  const result = spawnSync('nsenter', args, {
    encoding: 'utf8',
    cwd: packageRoot(),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (result.status !== 0) throw new Error(`the worker ended with status ${result.status}`);
  return JSON.parse(result.stdout) as WorkerReport;
}

function rows(rounds: readonly WorkerReport[]): BenchRow[] {
  const row = (what: string, p: number, of: (round: WorkerReport) => readonly (readonly number[])[]): BenchRow => {
    const [ours, plain] = [0, 1].map((side) => spread(rounds.map((round) => percentile(of(round)[side] ?? [], p))));
    if (ours === undefined || plain === undefined) throw new RangeError('no rounds');
    return {
      suite: 'cni',
      case: what,
      metric: `p${p}`,
      unit: 'ms',
      ...ours,
      baseline,
      ratio: ours.value / plain.value,
    };
  };
  return [50, 99].flatMap((p) => [
    row('ADD of the chain', p, ({ ours, plain }) => [ours.add, plain.add]),
    row('DEL of the chain', p, ({ ours, plain }) => [ours.del, plain.del]),
    row(`ADD, ${parallel} at once`, p, ({ oursTogether, plainTogether }) => [oursTogether, plainTogether]),
  ]);
}
