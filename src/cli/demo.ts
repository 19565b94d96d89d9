/** `sluice lab demo`: a lab, the walkthrough on it with everything measured, and the lab gone again. */
import { type Command, Option } from 'commander';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import { packageRoot } from '../kernel/package-root.ts';
import type { Report } from '../lab/walkthrough/report.ts';
import type { WalkthroughLink } from '../lab/walkthrough/walkthrough.ts';
import { stopSignal } from './process.ts';

interface DemoFlags {
  readonly link: WalkthroughLink;
  readonly keep: boolean;
}

/** `lab` is registered by lab.ts. */
export function registerDemoCommand(program: Command): void {
  const lab = program.commands.find((command) => command.name() === 'lab');
  lab
    ?.command('demo')
    .description('bring a lab up, run the walkthrough on real packets, show what was measured, take the lab down')
    .addOption(new Option('--link <kind>', 'the pods’ interfaces').choices(['ipvlan', 'macvlan']).default('ipvlan'))
    .option('--keep', 'leave the lab running', false)
    .action(runDemo);
}

type RunSluice = (args: readonly string[], timeoutMs: number, signal?: AbortSignal) => Promise<string>;

async function runDemo(flags: DemoFlags): Promise<void> {
  const [{ Report }, { mustRun }] = await Promise.all([
    import('../lab/walkthrough/report.ts'),
    import('../lab/walkthrough/run-command.ts'),
  ]);
  const stop = stopSignal();
  // Once stopped, the steps under way only find out that their lab is gone: nothing of that is shown.
  const print = (line: string): void => {
    if (!stop.aborted) process.stdout.write(`${line}\n`);
  };
  const report = new Report(print);
  const dir = mkdtempSync(join(tmpdir(), 'sluice-demo-'));
  const sluice: RunSluice = (args, timeoutMs, signal) =>
    mustRun(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], {
      env: process.env,
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
      onStderr: (text) => process.stderr.write(text),
    });
  try {
    await Promise.race([showWalkthrough({ flags, report, dir, sluice, stop }), rejectWhenStopped(stop)]);
  } catch (error) {
    report.failure('the demo', formatErrorChain(error));
  } finally {
    if (flags.keep) print(`\nThe lab stays: ./bin/sluice lab down --dir ${dir} ends it.`);
    else await takeDown(report, sluice, dir);
  }
  print(`\n${report.table()}\n\n${report.closingLine()}`);
  process.exitCode = report.failed === 0 ? 0 : 1;
  if (!stop.aborted) return;
  process.stderr.write(`sluice lab demo: ${formatErrorChain(stop.reason)}\n`);
  process.exit();
}

async function rejectWhenStopped(stop: AbortSignal): Promise<never> {
  await once(stop, 'abort');
  throw stop.reason;
}

interface Demo {
  readonly flags: DemoFlags;
  readonly report: Report;
  readonly dir: string;
  readonly sluice: RunSluice;
  readonly stop: AbortSignal;
}

async function showWalkthrough({ flags, report, dir, sluice, stop }: Demo): Promise<void> {
  const [{ runWalkthrough }, { findKubectl }] = await Promise.all([
    import('../lab/walkthrough/walkthrough.ts'),
    import('../lab/walkthrough/kubectl-cluster.ts'),
  ]);
  report.step(
    `sluice lab up --link ${flags.link}`,
    'Two nodes, joined by an underlay switch, each with the real agent; a Kubernetes API for kubectl.',
  );
  const up = await sluice(['lab', 'up', '--dir', dir, '--link', flags.link], 600_000, stop);
  const kubeconfig = up.trim().split('\n').at(-1) ?? '';
  report.detail(`export KUBECONFIG=${kubeconfig}`);
  const cluster =
    (await findKubectl(kubeconfig, process.env)) ??
    (await import('../lab/walkthrough/api-cluster.ts')).apiCluster(kubeconfig);
  report.detail(`the steps go through ${cluster.description}`);
  // SLUICE_VM: the demo itself runs in the small VM (make test-kernels).
  const emulated = process.env['SLUICE_VM'] === '1' || (await labIsVirtual(sluice, dir));
  await runWalkthrough({
    cluster,
    report,
    link: flags.link,
    exampleDir: join(packageRoot(), 'examples', 'walkthrough'),
    scratchDir: join(dir, 'walkthrough'),
    fullSpeedFactor: emulated ? 3 : 50,
  });
}

/** Where packets are forwarded by an emulated CPU, full speed means less. */
async function labIsVirtual(sluice: RunSluice, dir: string): Promise<boolean> {
  const status: unknown = JSON.parse(await sluice(['lab', 'status', '--json', '--dir', dir], 60_000));
  if (typeof status !== 'object' || status === null)
    throw new SluiceError({ code: 'internal', operation: 'read', object: 'lab status', what: 'it is not an object' });
  return 'vm' in status && status.vm !== undefined && status.vm !== null && status.vm !== false;
}

async function takeDown(report: Report, sluice: RunSluice, dir: string): Promise<void> {
  try {
    await sluice(['lab', 'down', '--dir', dir], 120_000);
    rmSync(dir, { recursive: true, force: true });
  } catch (error) {
    report.failure('taking the lab down', error instanceof Error ? error.message : String(error));
  }
}
