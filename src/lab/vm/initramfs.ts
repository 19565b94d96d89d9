/**
 * The guest's first program. It loads the modules packed beside it, mounts the host's files (read-only, with a tmpfs
 * over them), and hands over to the run's own script. Everything it calls is busybox.
 *
 * One archive is made per kernel and kept; what differs per run is a second archive appended to it.
 */

import { directoryMode, executableMode, fileMode, writeCpio, type CpioEntry } from './cpio.ts';

/** A host directory as the guest sees it, at the same path. */
export interface GuestMount {
  readonly path: string;
  readonly mode: 'ro' | 'rw';
}

export interface GuestSetup {
  readonly modulesPath: string;
  readonly release: string;
  /** Read-write directories are 9p shares of their own, tagged share0, share1, …, in this order. */
  readonly mounts: readonly GuestMount[];
  /** POSIX shell, run by busybox as process 1 after the root is in place; must not end. */
  readonly main: string;
}

export interface InitramfsModule {
  readonly name: string;
  readonly content: Uint8Array;
}

/** Where the guest keeps busybox and the run's script; on a tmpfs. */
export const guestDir = '/run/sluice-vm';

/** Tag of the 9p share that is the host's whole file system. */
export const rootTag = 'hostroot';

export function shareTag(index: number): string {
  return `share${index}`;
}

export function baseInitramfs(busybox: Uint8Array, modules: readonly InitramfsModule[]): Uint8Array {
  const directories = ['bin', 'modules', 'proc', 'sys', 'dev', 'lower', 'rw', 'new'];
  const entries: CpioEntry[] = directories.map((path) => ({ path, mode: directoryMode }));
  entries.push({ path: 'bin/busybox', mode: executableMode, content: busybox });
  modules.forEach(({ name, content }, index) => {
    entries.push({ path: `modules/${String(index).padStart(2, '0')}-${name}`, mode: fileMode, content });
  });
  return writeCpio(entries);
}

export function runInitramfs(setup: GuestSetup): Uint8Array {
  return writeCpio([
    { path: 'init', mode: executableMode, content: Buffer.from(initScript(setup)) },
    { path: 'main', mode: executableMode, content: Buffer.from(setup.main) },
  ]);
}

function initScript(setup: GuestSetup): string {
  return `#!/bin/busybox sh
b=/bin/busybox
fail() { $b echo "sluice-vm: $* failed" >/dev/console; $b reboot -f; }
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
for m in /modules/*; do $b insmod $m || $b echo "sluice-vm: insmod $m failed" >/dev/console; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose ${rootTag} /lower || fail mounting the host
$b mount -t tmpfs -o size=75% tmpfs /rw; $b mkdir -p /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new || fail overlay
$b mkdir -p /new/lib/modules/${setup.release}
$b mount --bind "/lower${setup.modulesPath}" /new/lib/modules/${setup.release}
for t in proc:proc sysfs:sys devtmpfs:dev tmpfs:run tmpfs:tmp; do $b mount -t \${t%:*} \${t%:*} /new/\${t#*:}; done
$b mkdir -p /new/dev/pts /new/dev/shm /new/run/netns /new/run/lock /new${guestDir}
$b mount -t devpts devpts /new/dev/pts; $b mount -t tmpfs tmpfs /new/dev/shm; $b chmod 1777 /new/tmp /new/dev/shm
$b ln -sf /proc/self/fd /new/dev/fd
for n in 0:in 1:out 2:err; do $b ln -sf /proc/self/fd/\${n%:*} /new/dev/std\${n#*:}; done
$b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup || fail cgroup2
$b mount -t bpf bpf /new/sys/fs/bpf || fail bpffs
$b mount -t tracefs tracefs /new/sys/kernel/tracing
${setup.mounts.map(mountLine).join('')}$b ifconfig lo up; $b hostname sluice-vm
$b cp /bin/busybox /main /new${guestDir}/
exec $b switch_root /new ${guestDir}/busybox sh ${guestDir}/main
`;
}

/** A read-only directory is bound from the lower layer, because the guest's own /tmp and /run hide the host's. */
function mountLine(mount: GuestMount, index: number): string {
  const how =
    mount.mode === 'rw'
      ? `-t 9p -o rw,trans=virtio,version=9p2000.L,msize=512000,cache=mmap ${shareTag(index)}`
      : `--bind "/lower${mount.path}"`;
  return `$b mkdir -p "/new${mount.path}"; $b mount ${how} "/new${mount.path}" || fail mounting "${mount.path}"\n`;
}
