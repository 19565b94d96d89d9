/** The scripts that process 1 of the guest runs, one per use. */

import { guestDir } from './initramfs.ts';
import { shellCommand, shellExports } from './shell.ts';

export interface GuestCommand {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Names of the virtio ports; a port is found through sysfs because its device number depends on the order of discovery. */
export const ports = { control: 'control', stdout: 'stdout', stderr: 'stderr' } as const;

const prologue = `b=${guestDir}/busybox
port() { for p in /sys/class/virtio-ports/*; do [ "$($b cat $p/name)" = "$1" ] && $b echo "/dev/\${p##*/}"; done; }
ulimit -n 1048576
`;

/**
 * Runs one command and powers off. The command writes into pipes, as under any test runner; two cats carry them to the
 * host. Whoever started the VM may be killed: then the control port reads end-of-file and the guest powers off.
 */
export function runOnceScript(guest: GuestCommand): string {
  return `${prologue}
exec 9<>$(port ${ports.control})
$b echo booted >&9
{ $b cat <&9 >/dev/null; $b reboot -f; } &
guard=$!
$b mkfifo ${guestDir}/out ${guestDir}/err
$b cat <${guestDir}/out >$(port ${ports.stdout}) 2>/dev/null & cat1=$!
$b cat <${guestDir}/err >$(port ${ports.stderr}) 2>/dev/null & cat2=$!
${exportsAndCwd(guest)}( exec 9<&-; exec /usr/bin/env ${shellCommand(guest.command)} ) </dev/null >${guestDir}/out 2>${guestDir}/err &
wait $!
rc=$?
# What the command left running must not hold the pipes open.
for d in /proc/[0-9]*; do p=\${d#/proc/}
  case $p in 1|$cat1|$cat2|$guard) ;; *) [ -n "$($b readlink $d/exe)" ] && [ "$($b cut -d' ' -f4 $d/stat)" != $guard ] && $b kill -9 $p;; esac
done 2>/dev/null
wait $cat1 $cat2
$b sync
$b echo "exit $rc" >&9
$b sleep 5
exec $b reboot -f
`;
}

/**
 * A guest that stays and runs what the host puts into SHARE/jobs/ID/script; out, err and, last, status appear beside it.
 * It looks ten times a second: a virtio port would report end-of-file whenever nobody is connected on the host's side,
 * and the machine is gone as soon as the host ends it, so nothing has to be told.
 */
export function serveJobsScript(shareDir: string, env: Readonly<Record<string, string>>): string {
  return `${prologue}
${shellExports({ ...baseEnv, ...env })}cd /
$b ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
share=${shellCommand([shareDir])}
job() {
  $b sh $1/taken </dev/null >$1/out 2>$1/err
  $b echo $? >$1/status.tmp
  $b mv $1/status.tmp $1/status
}
serve() {
  $b touch $share/booted
  while :; do
    for d in $share/jobs/*; do
      [ -e $d/script ] && $b mv $d/script $d/taken && { job $d & }
    done
    $b sleep 0.25
  done
}
serve & serving=$!
# Process 1 must reap what others leave behind; wait does.
while kill -0 $serving; do wait $serving; done
exec $b reboot -f
`;
}

const baseEnv = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  TERM: 'dumb',
  LANG: 'C.UTF-8',
  SLUICE_VM: '1',
};

function exportsAndCwd(guest: GuestCommand): string {
  return `${shellExports({ ...baseEnv, ...guest.env })}cd ${shellCommand([guest.cwd])}\n`;
}
