/** A lab inside the small virtual machine, for kernels without ipvlan: the same commands, run by its guest. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { systemClock } from '../../core/clock.ts';
import { SluiceError } from '../../core/error.ts';
import { packageRoot } from '../../kernel/package-root.ts';
import { freePort } from '../free-port.ts';
import { readLabVm, startLabVm, type LabVm } from '../vm/lab-vm.ts';
import { runInLabVm } from '../vm/lab-vm-job.ts';
import { cliCommand } from './entry.ts';
import { writeFileAtomically, writeLabState, type LabState } from './state.ts';
import type { LabStatus } from './status.ts';
import type { LabUpOptions } from './up.ts';

/** On the guest's tmpfs. */
const guestDir = '/run/sluice-lab';
/** Under emulation, on a machine that is busy with other things; an idle one needs well under a minute. */
const guestUpTimeoutMs = 900_000;
const statusTimeoutMs = 60_000;

export async function vmLabUp(options: LabUpOptions, existing: LabState | undefined): Promise<string> {
  options.onProgress(`this kernel has no ${options.link}: the lab runs in a small virtual machine`);
  // The guest uses the same port, so that its kubeconfig fits the host too.
  const apiPort = existing?.apiPort ?? (options.apiPort === 0 ? await freePort() : options.apiPort);
  const state: LabState = existing ?? {
    id: randomBytes(3).toString('hex'),
    dir: options.dir,
    nodes: options.nodes,
    link: options.link,
    policyEnforcement: options.policyEnforcement,
    apiHost: '127.0.0.1',
    apiPort,
    webhookPort: 0,
    healthPort: 0,
    createdAt: new Date().toISOString(),
    path: options.path,
    vm: { guestDir },
  };
  const lab = writeLabState(state);
  const machine =
    readLabVm(options.dir) ??
    (await startLabVm({
      dir: options.dir,
      cacheDir: options.vmCacheDir,
      guestPort: apiPort,
      hostPort: apiPort,
      visibleDirs: [packageRoot()],
      clock: systemClock,
      onProgress: options.onProgress,
    }));
  const args = ['lab', 'up', '--dir', guestDir, '--nodes', String(state.nodes), '--link', state.link];
  const call = { timeoutMs: guestUpTimeoutMs, path: options.path, onStderr: options.onProgress };
  const mode = ['--policy-enforcement', state.policyEnforcement ?? 'default'];
  const listen = ['--api-host', '0.0.0.0', '--api-port', String(apiPort)];
  const output = await runGuest(machine, [...args, ...mode, ...listen], call).catch(async (error: unknown) => {
    await saveGuestLogs(machine, join(lab.logsDir, 'guest.log'));
    throw error;
  });
  const guestKubeconfig = output.trim().split('\n').at(-1) ?? join(guestDir, 'kubeconfig');
  writeFileAtomically(lab.kubeconfig, await guestFile(machine, guestKubeconfig));
  return lab.kubeconfig;
}

/** The guest's own report. */
export async function vmLabStatus(machine: LabVm, state: LabState): Promise<LabStatus> {
  const args = ['lab', 'status', '--json', '--dir', state.vm?.guestDir ?? guestDir];
  return JSON.parse(await runGuest(machine, args, { timeoutMs: statusTimeoutMs, path: state.path })) as LabStatus;
}

/** The guest's files end with it; what its processes last said goes beside the host's logs. */
async function saveGuestLogs(machine: LabVm, file: string): Promise<void> {
  const script = `tail -n 50 ${guestDir}/logs/*.log ${guestDir}.failed-logs/*.log 2>/dev/null; ps -eo pid,etime,time,args | tail -n 40`;
  const call = { timeoutMs: statusTimeoutMs, path: '/usr/bin:/bin' };
  const text = await runCommand(machine, ['sh', '-c', script], call).catch((error: unknown) => String(error));
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

interface GuestCall {
  readonly timeoutMs: number;
  readonly path: string;
  readonly onStderr?: (line: string) => void;
}

async function runGuest(machine: LabVm, args: readonly string[], call: GuestCall): Promise<string> {
  const command = [...cliCommand({ preferBundle: true }), ...args];
  return runCommand(machine, command, call);
}

function guestFile(machine: LabVm, path: string): Promise<string> {
  return runCommand(machine, ['cat', path], { timeoutMs: statusTimeoutMs, path: '/usr/bin:/bin' });
}

async function runCommand(machine: LabVm, command: readonly string[], call: GuestCall): Promise<string> {
  const stdout: Buffer[] = [];
  let stderr = '';
  const status = await runInLabVm(machine, {
    command,
    env: { PATH: call.path, HOME: '/root' },
    timeoutMs: call.timeoutMs,
    clock: systemClock,
    onStdout: (chunk) => stdout.push(chunk),
    onStderr: (chunk) => {
      const text = chunk.toString('utf8');
      stderr = `${stderr}${text}`.slice(-2000);
      for (const line of text.split('\n')) if (line.trim() !== '') call.onStderr?.(`vm: ${line.trim()}`);
    },
  });
  if (status === 0) return Buffer.concat(stdout).toString('utf8');
  throw new SluiceError({
    code: 'vm_failed',
    operation: 'run in the virtual machine',
    object: command.slice(-8).join(' '),
    what: `exit status ${status}: ${stderr.trim().split('\n').slice(-3).join(' | ')}`,
  });
}
