/** A real boot: what the machine offers, what comes back, and that nothing stays behind. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { systemClock } from '../../core/clock.ts';
import { hasErrorCode } from '../../core/error.ts';
import { packageRoot } from '../../kernel/package-root.ts';
import { isAlive } from '../process.ts';
import { vmCacheDir } from './cache-dir.ts';
import { prepareKernelKit } from './kernel-kit.ts';
import { runInLabVm } from './lab-vm-job.ts';
import { readLabVm, startLabVm, stopLabVm, type LabVm } from './lab-vm.ts';
import { runInVm, type VmRunOptions } from './run.ts';

const cacheDir = vmCacheDir(process.env);
const timeoutMs = 180_000;

interface Run {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function vm(script: string, options: Partial<VmRunOptions> = {}): Promise<Run> {
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  const onStdout = (chunk: Buffer): number => stdout.push(chunk);
  const onStderr = (chunk: Buffer): number => stderr.push(chunk);
  const status = await runInVm({ command: ['sh', '-c', script], cacheDir, timeoutMs, onStdout, onStderr, ...options });
  return { status, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
}

/** QEMU processes whose command line holds the text. */
function qemusWith(text: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return commandLine.startsWith('/usr/bin/qemu') && commandLine.includes(text);
    } catch {
      return false;
    }
  });
}

describe('the virtual machine', () => {
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'sluice-vm-test-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));

  it('has ipvlan, flow queues and the host’s programs; passes output and exit status on', async () => {
    const script = `set -e
      uname -r
      ip link add p0 type dummy; ip link set p0 up
      ip link add link p0 name i0 type ipvlan mode l2
      ip link add ifb0 type ifb 2>/dev/null || modprobe ifb
      tc qdisc add dev p0 root fq_codel
      tc qdisc replace dev p0 root cake bandwidth 100mbit
      tc qdisc add dev p0 clsact
      ip -o link show type ipvlan | cut -d: -f2
      grep -c 'cgroup2\\|bpf ' /proc/mounts
      echo complaint >&2
      exit 7`;
    const { status, stdout, stderr } = await vm(script);
    assert.equal(status, 7, stderr);
    assert.match(stdout, /^\d+\.\d+\S*-amd64\n i0@p0\n[2-9]\n$/);
    assert.equal(stderr, 'complaint\n');
  });

  it('takes a kernel that was fetched by its series, without the network', async () => {
    const cache = join(dir, 'cache');
    const { packageName } = await prepareKernelKit({ cacheDir, kernel: '6.12', clock: systemClock });
    mkdirSync(join(cache, 'kernels'), { recursive: true });
    symlinkSync(join(cacheDir, 'kernels', packageName), join(cache, 'kernels', packageName));
    const kit = await prepareKernelKit({ cacheDir: cache, clock: systemClock });
    assert.equal(kit.packageName, packageName);
    assert.deepEqual(readdirSync(cache), ['kernels'], 'nothing was made');
  });

  it('passes megabytes of output whole, and does not wait for what the command left running', async () => {
    const { status, stdout } = await vm('sleep 1000 & head -c 3000000 /dev/zero | tr "\\0" x; echo end');
    assert.equal(status, 0);
    assert.equal(stdout.length, 3_000_004);
    assert.ok(stdout.endsWith('xend\n'));
  });

  it('writes to the shared directory and nowhere else', async () => {
    const shared = join(dir, 'shared');
    mkdirSync(shared);
    const { status, stderr } = await vm(`pwd > here; touch "${dir}/elsewhere" /etc/sluice-vm-test`, {
      sharedDir: shared,
    });
    assert.equal(status, 0, stderr);
    assert.equal(readFileSync(join(shared, 'here'), 'utf8'), `${shared}\n`);
    assert.ok(!existsSync(join(dir, 'elsewhere')) && !existsSync('/etc/sluice-vm-test'));
  });

  it('is killed when the time is up, and leaves no process and no file', async () => {
    const shared = mkdtempSync(join(dir, 'timeout-'));
    const before = readdirSync(tmpdir());
    await assert.rejects(vm('sleep 1000', { sharedDir: shared, timeoutMs: 3_000 }), (error) =>
      hasErrorCode(error, 'timeout'),
    );
    assert.deepEqual(qemusWith(shared), []);
    assert.deepEqual(
      readdirSync(tmpdir()).filter((name) => name.startsWith('sluice-vm-') && !before.includes(name)),
      [],
    );
  });

  it('goes down when its starter is killed', async () => {
    const shared = mkdtempSync(join(dir, 'killed-'));
    const command = [
      '--import',
      'tsx',
      'src/cli/main.ts',
      'vm',
      'run',
      '--shared',
      shared,
      '--',
      'sh',
      '-c',
      `touch ${shared}/up; sleep 1000`,
    ];
    const starter = spawn(process.execPath, command, { cwd: packageRoot(), stdio: 'ignore' });
    await eventually('the command runs', () => existsSync(join(shared, 'up')));
    assert.equal(qemusWith(shared).length, 1);
    starter.kill('SIGKILL');
    await eventually('QEMU has ended', () => qemusWith(shared).length === 0);
  });
});

describe('a lab’s virtual machine', () => {
  let dir: string;
  let machine: LabVm;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-lab-vm-'));
    machine = await startLabVm({
      dir,
      cacheDir,
      guestPort: 8080,
      visibleDirs: [packageRoot()],
      clock: systemClock,
      memoryMb: 1024,
    });
  });
  after(() => {
    stopLabVm(dir);
    rmSync(dir, { recursive: true, force: true });
  });

  const job = async (script: string): Promise<Run> => {
    const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
    const onStdout = (chunk: Buffer): number => stdout.push(chunk);
    const onStderr = (chunk: Buffer): number => stderr.push(chunk);
    const status = await runInLabVm(machine, {
      command: ['sh', '-c', script],
      timeoutMs,
      clock: systemClock,
      onStdout,
      onStderr,
    });
    return { status, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
  };

  it('runs jobs side by side', async () => {
    const [slow, fast] = await Promise.all([job('sleep 2; echo slow; exit 3'), job('echo fast; echo oh >&2')]);
    assert.deepEqual(slow, { status: 3, stdout: 'slow\n', stderr: '' });
    assert.deepEqual(fast, { status: 0, stdout: 'fast\n', stderr: 'oh\n' });
  });

  it('is reached through one port of the host, and reaches nothing itself', async () => {
    await job(`mkdir /tmp/www && echo hello >/tmp/www/index.html && busybox httpd -p 0.0.0.0:8080 -h /tmp/www`);
    const answer = await fetch(`http://127.0.0.1:${machine.hostPort}/`);
    assert.equal(await answer.text(), 'hello\n');
    const { stdout } = await job('ip route show default | wc -l');
    assert.equal(stdout.trim(), '0');
  });

  it('refuses a second start in the same directory, and stops without a trace', async () => {
    assert.deepEqual(readLabVm(dir)?.process, machine.process);
    await assert.rejects(startLabVm({ dir, cacheDir, guestPort: 8080, clock: systemClock }), (error) =>
      hasErrorCode(error, 'lab_conflict'),
    );
    stopLabVm(dir);
    assert.equal(isAlive(machine.process), false);
    assert.deepEqual(readdirSync(dir), []);
  });
});

async function eventually(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within a minute`);
    await systemClock.sleep(100);
  }
}
