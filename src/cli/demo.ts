/** `sluice lab demo`: a lab, the walkthrough on it with everything measured, and the lab gone again. */
import { type Command, Option } from 'commander';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SluiceError } from '../core/error.ts';
import { packageRoot } from '../kernel/package-root.ts';
import type { WalkthroughLink } from '../lab/walkthrough/walkthrough.ts';

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

async function runDemo(flags: DemoFlags): Promise<void> {
  const [{ runWalkthrough }, { Report }, { findKubectl }, { mustRun }] = await Promise.all([
    import('../lab/walkthrough/walkthrough.ts'),
    import('../lab/walkthrough/report.ts'),
    import('../lab/walkthrough/kubectl-cluster.ts'),
    import('../lab/walkthrough/run-command.ts'),
  ]);
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  const report = new Report(print);
  const dir = mkdtempSync(join(tmpdir(), 'sluice-demo-'));
  const sluice = (args: readonly string[], timeoutMs: number): Promise<string> =>
    mustRun(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], {
      env: process.env,
      timeoutMs,
      onStderr: (text) => process.stderr.write(text),
    });
  try {
    report.step(
      `sluice lab up --link ${flags.link}`,
      'Two nodes, joined by an underlay switch, each with the real agent; a Kubernetes API for kubectl.',
    );
    const kubeconfig =
      (await sluice(['lab', 'up', '--dir', dir, '--link', flags.link], 600_000)).trim().split('\n').at(-1) ?? '';
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
      fullSpeedFactor: emulated ? 10 : 50,
    });
  } catch (error) {
    const { formatErrorChain } = await import('../core/error.ts');
    report.failure('the demo', formatErrorChain(error));
  } finally {
    if (flags.keep) print(`\nThe lab stays: ./bin/sluice lab down --dir ${dir} ends it.`);
    else await takeDown(report, sluice, dir);
  }
  print(`\n${report.table()}\n\n${report.closingLine()}`);
  process.exitCode = report.failed === 0 ? 0 : 1;
}

/** Where packets are forwarded by an emulated CPU, full speed means less. */
async function labIsVirtual(
  sluice: (args: readonly string[], timeoutMs: number) => Promise<string>,
  dir: string,
): Promise<boolean> {
  const status: unknown = JSON.parse(await sluice(['lab', 'status', '--json', '--dir', dir], 60_000));
  if (typeof status !== 'object' || status === null)
    throw new SluiceError({ code: 'internal', operation: 'read', object: 'lab status', what: 'it is not an object' });
  return 'vm' in status && status.vm !== undefined && status.vm !== null && status.vm !== false;
}

async function takeDown(
  report: { failure(claim: string, reason: string): void },
  sluice: (args: readonly string[], timeoutMs: number) => Promise<string>,
  dir: string,
): Promise<void> {
  try {
    await sluice(['lab', 'down', '--dir', dir], 120_000);
    rmSync(dir, { recursive: true, force: true });
  } catch (error) {
    report.failure('taking the lab down', error instanceof Error ? error.message : String(error));
  }
}
