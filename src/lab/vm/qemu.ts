/**
 * QEMU's command line. Software emulation with one CPU: with two and multi-threaded TCG the guest kernel panics now
 * and then while it patches its own code (static keys, about one boot in fifty).
 */

import { readFileSync } from 'node:fs';
import { rootTag, shareTag, type GuestMount } from './initramfs.ts';

export interface QemuMachine {
  readonly kernelPath: string;
  readonly initramfsPath: string;
  readonly memoryMb: number;
  readonly mounts: readonly GuestMount[];
  /** QEMU chardev definitions: the kernel's console and the named virtio ports, in this order. */
  readonly serial: string;
  readonly ports: readonly { readonly name: string; readonly chardev: string }[];
  /** "tcp:127.0.0.1:40000-10.0.2.15:6443": a port of the host that leads into the guest, which has no other network. */
  readonly hostForward?: string;
}

/** The guest's address in QEMU's user network, fixed by its built-in DHCP range. */
export const guestAddress = '10.0.2.15';

/**
 * Without "enhanced rep movsb": TCG moves each byte of it by itself, so a kernel that trusts it copies at a quarter of the
 * speed of its own loop of 8-byte moves (iperf3 between ipvlan interfaces: 1.22 Gbit/s with it, 4.3 Gbit/s without).
 */
const cpuModel = 'max,la57=off,-fsrm,-erms';

export function qemuArguments(machine: QemuMachine): string[] {
  return [
    ...['-M', 'q35,hpet=off', '-accel', 'tcg', '-cpu', cpuModel, '-smp', '1', '-m', `${machine.memoryMb}`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-kernel', machine.kernelPath, '-initrd', machine.initramfsPath, '-append', kernelParameters.join(' ')],
    ...['-chardev', `${machine.serial},id=serial`, '-serial', 'chardev:serial'],
    ...['-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci'],
    ...machine.ports.flatMap(portArguments),
    ...shareArguments('/', rootTag, 'ro'),
    ...machine.mounts.flatMap(({ path, mode }, index) =>
      mode === 'rw' ? shareArguments(path, shareTag(index), mode) : [],
    ),
    ...networkArguments(machine.hostForward),
  ];
}

/**
 * Without mitigations and five-level page tables an emulated boot takes 3 s instead of 10. No tsc=reliable: on a busy host
 * the kernel's calibration against the emulated PIT is off by up to a factor of five (848 for 2,445 MHz was seen), and
 * only the clocksource watchdog notices and goes over to the ACPI timer, which is slow to read (158 Mbit/s of TCP instead
 * of 494). So the guest is told the host's frequency, which TCG passes on; were it wrong, the watchdog would notice.
 */
const kernelParameters = [
  'console=ttyS0 quiet loglevel=3 panic=-1',
  ...hostTscParameter(),
  'mitigations=off nokaslr no5lvl no_timer_check rcupdate.rcu_expedited=1',
  'audit=0 selinux=0 apparmor=0 random.trust_cpu=on net.ifnames=0',
];

function hostTscParameter(): string[] {
  const mhz = /^cpu MHz\s*: ([0-9.]+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  return mhz === undefined ? [] : [`tsc_early_khz=${Math.round(Number(mhz) * 1000)}`];
}

function portArguments(port: { readonly name: string; readonly chardev: string }): string[] {
  return [
    '-chardev',
    `${port.chardev},id=${port.name}`,
    '-device',
    `virtserialport,chardev=${port.name},name=${port.name}`,
  ];
}

/** multidevs=remap: a share may span several of the host's mounts, whose inode numbers would collide. */
function shareArguments(path: string, tag: string, mode: 'ro' | 'rw'): string[] {
  const readonly = mode === 'ro' ? ',readonly=on' : '';
  const escaped = path.replaceAll(',', ',,');
  return ['-virtfs', `local,path=${escaped},mount_tag=${tag},security_model=none,multidevs=remap${readonly}`];
}

function networkArguments(hostForward: string | undefined): string[] {
  if (hostForward === undefined) return ['-nic', 'none'];
  return ['-netdev', `user,id=net,restrict=on,ipv6=off,hostfwd=${hostForward}`, '-device', 'virtio-net-pci,netdev=net'];
}
