/**
 * Keeps processes of a pod from sending past the programs on its interfaces. Two kinds of socket hand frames to the device
 * without the tc hooks, and CAP_NET_RAW, which most runtimes give to every container, is enough for both:
 *
 *   packet sockets with PACKET_QDISC_BYPASS   packet_xmit(), net/packet/af_packet.c
 *   AF_XDP sockets                            __xsk_generic_xmit(), net/xdp/xsk.c
 *
 * Neither works without setsockopt(2), so a program on the pod's cgroup refuses those options with EPERM. It is there before
 * the pod's first container is, and goes with the cgroup.
 */
import { attachToCgroup, CgroupHook, cgroupPrograms, detachFromCgroup } from '../kernel/bpf/cgroup-programs.ts';
import { BpfProgram, ProgramType } from '../kernel/bpf/program.ts';
import { PACKET_QDISC_BYPASS, SOL_PACKET } from '../kernel/packet-socket.ts';

const programName = 'sluice_sockets';

/** include/linux/socket.h. */
const SOL_XDP = 283;

const imm = (value: number): number[] => [value & 0xff, value >> 8, 0, 0];

/**
 * Offsets 24, 28 and 32 of struct bpf_sockopt: level, optname, optlen. An optlen of 0 means "the caller's value as it is";
 * without that, values of more than a page would be refused. Opcodes: Documentation/bpf/standardization.
 */
const refuseBypass = Uint8Array.of(
  ...[0x61, 0x12, 24, 0, ...imm(0)], // r2 = level
  ...[0x15, 0x02, 7, 0, ...imm(SOL_XDP)], // if r2 == SOL_XDP goto refuse
  ...[0x55, 0x02, 2, 0, ...imm(SOL_PACKET)], // if r2 != SOL_PACKET goto allow
  ...[0x61, 0x12, 28, 0, ...imm(0)], // r2 = optname
  ...[0x15, 0x02, 4, 0, ...imm(PACKET_QDISC_BYPASS)], // if r2 == PACKET_QDISC_BYPASS goto refuse
  ...[0xb7, 0x03, 0, 0, ...imm(0)], // allow: r3 = 0
  ...[0x63, 0x31, 32, 0, ...imm(0)], // optlen = r3
  ...[0xb7, 0x00, 0, 0, ...imm(1)],
  ...[0x95, 0x00, 0, 0, ...imm(0)],
  ...[0xb7, 0x00, 0, 0, ...imm(0)], // refuse
  ...[0x95, 0x00, 0, 0, ...imm(0)],
);

/** The program, and the pods' cgroups that it is put on. */
export class SocketGuard implements Disposable {
  #program: BpfProgram | undefined;

  /** Idempotent. False when it was there. */
  put(cgroupDir: string): boolean {
    this.#program ??= load();
    const { tag } = this.#program.info();
    const present = ourPrograms(cgroupDir);
    try {
      if (present.some((other) => other.info().tag === tag)) return false;
      attachToCgroup(cgroupDir, CgroupHook.setsockopt, this.#program);
      for (const earlier of present) detachFromCgroup(cgroupDir, CgroupHook.setsockopt, earlier);
      return true;
    } finally {
      for (const other of present) other.close();
    }
  }

  [Symbol.dispose](): void {
    this.#program?.close();
    this.#program = undefined;
  }
}

/** Takes it off, whoever put it there. Whether it was there; with `dryRun` it stays. */
export function removeSocketGuard(cgroupDir: string, options: { readonly dryRun?: boolean } = {}): boolean {
  const present = ourPrograms(cgroupDir);
  for (const program of present) {
    if (options.dryRun !== true) detachFromCgroup(cgroupDir, CgroupHook.setsockopt, program);
    program.close();
  }
  return present.length > 0;
}

function ourPrograms(cgroupDir: string): BpfProgram[] {
  return cgroupPrograms(cgroupDir, CgroupHook.setsockopt).flatMap((id) => {
    const program = BpfProgram.openById(id);
    if (program === undefined) return [];
    if (program.info().name === programName) return [program];
    program.close();
    return [];
  });
}

function load(): BpfProgram {
  return BpfProgram.load({
    name: programName,
    type: ProgramType.cgroupSockopt,
    instructions: refuseBypass,
    license: 'Apache-2.0',
    expectedAttachType: CgroupHook.setsockopt,
  });
}
