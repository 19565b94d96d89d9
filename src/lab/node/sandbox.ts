/**
 * A pod's namespaces: a named netns, and one process ("pause") that is pid 1 of the pod's pid namespace and holds its
 * mount, UTS and IPC namespaces. All containers of a pod share them, as with Kubernetes' shareProcessNamespace.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Cgroup } from '../../kernel/cgroup.ts';
import { createNamedNetns, netnsInode, removeNamedNetns } from '../../kernel/netns.ts';
import { RtNetlink } from '../../kernel/netlink/rtnetlink.ts';
import { SluiceError } from '../../core/error.ts';
import { childrenOf, identifyProcess, isAlive, type ProcessId } from '../process.ts';
import { killCgroup } from '../teardown.ts';
import type { SandboxRecord } from './pod-record.ts';

/**
 * Runs as root of the new mount namespace ($1 = host name, $2 = file to show as /etc/hosts, or empty).
 * Copied mounts of other namespaces' netns files and of bpffs are dropped: a copy would keep a deleted pod's netns, and so its
 * address on the wire, alive for as long as this pod lives. A pod deleted meanwhile takes the copy with it, so that
 * umount finds none: the list is read again and only what stays is an error. A fresh sysfs shows the pod's own interfaces.
 * `ip netns` binds /run/netns over itself, and mounts from before cannot be reached below it: the cover goes first, however
 * often it is there.
 */
const setupScript = `
hostname "$1"
hosts=$2
foreign() { while read -r _ dir type _; do case $type in nsfs|bpf) echo "$dir";; esac; done </proc/self/mounts; }
while umount -l /run/netns 2>/dev/null; do :; done
for dir in $(foreign); do umount -l "$dir" 2>/dev/null || :; done
for dir in $(foreign); do umount -l "$dir"; done
mount -t proc proc /proc
[ -z "$hosts" ] || { mount -t sysfs sysfs /sys && mount --bind "$hosts" /etc/hosts; }
exec env --ignore-signal=CHLD sleep infinity
`;

export interface SandboxSpec {
  readonly record: SandboxRecord;
  readonly hostname: string;
  /** Absolute path of the pod's /etc/hosts; not used with hostNetwork. */
  readonly hostsFile: string;
  /** The pod's cgroup (path in the file system). */
  readonly cgroup: Cgroup;
}

/** Creates the pod's netns with its loopback up. With hostNetwork there is nothing to create. */
export function createSandboxNetns(record: SandboxRecord): void {
  if (record.hostNetwork || netnsInode(record.netns) !== undefined) return;
  createNamedNetns(record.netns);
  using link = RtNetlink.open(record.netns);
  link.setLink(link.mustLink('lo').ifindex, { up: true });
}

/** Starts pause; resolves with its identity once the namespaces are set up. */
export async function startPause(spec: SandboxSpec): Promise<ProcessId> {
  const cgroup = spec.cgroup.child('pause');
  cgroup.create();
  const { hostNetwork, hostPid, netns } = spec.record;
  const namespaces = ['--mount', '--uts', '--ipc', ...(hostPid ? [] : ['--pid', '--fork'])];
  const args = [
    '-c',
    'echo 0 > "$0/cgroup.procs" && exec "$@"',
    cgroup.path,
    ...(hostNetwork ? [] : ['nsenter', `--net=${netns}`]),
    'unshare',
    ...namespaces,
    'sh',
    '-ec',
    setupScript,
    'sh',
    spec.hostname,
    hostNetwork ? '' : spec.hostsFile,
  ];
  const child = spawn('sh', args, { detached: true, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  let hasEnded = false;
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')));
  const failed = new Promise<never>((_, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => {
      hasEnded = true;
      reject(sandboxFailed(`the sandbox process ended with status ${code}: ${said.trim()}`));
    });
  });
  failed.catch(() => undefined);
  const pause = await Promise.race([waitForPause(child.pid ?? 0, hostPid, () => hasEnded), failed]);
  child.stderr.destroy();
  child.unref();
  return pause;
}

/** The set-up is done when the script has become `sleep`. Forking and three mounts: milliseconds, so polling is cheap. */
async function waitForPause(outer: number, hostPid: boolean, hasEnded: () => boolean): Promise<ProcessId> {
  for (let tries = 0; tries < maxTries && !hasEnded(); tries++) {
    const pid = hostPid ? outer : childrenOf(outer)[0];
    if (pid !== undefined && commandName(pid) === 'sleep') {
      const id = identifyProcess(pid);
      if (id !== undefined) return id;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw sandboxFailed('the sandbox process did not get ready within a minute');
}
const maxTries = 12_000;

export function sandboxAlive(record: SandboxRecord): boolean {
  return record.pause !== undefined && isAlive(record.pause);
}

/** Kills every process of the pod and removes its cgroup and its named netns. Succeeds when all is gone already. */
export async function removeSandbox(record: SandboxRecord | undefined, cgroup: Cgroup): Promise<void> {
  await killCgroup(cgroup);
  if (record !== undefined && !record.hostNetwork) removeNamedNetns(record.netns);
}

function commandName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

function sandboxFailed(what: string): SluiceError {
  return new SluiceError({ code: 'process_failed', operation: 'start', object: 'pod sandbox', what });
}
