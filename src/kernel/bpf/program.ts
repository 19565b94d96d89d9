/** BPF programs: load, explain the verifier, run on a packet. */
import { constants } from 'node:os';
import { SluiceError } from '../../core/error.ts';
import { check, Errno, errnoText, SyscallError } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import { addressOf, withSignalBlocked } from '../ffi.ts';
import { BpfObject, openPinnedFd } from './object.ts';
import { BpfAttr, BpfCommand, infoName, objectInfo } from './sys.ts';

/** enum bpf_prog_type. */
export const ProgramType = { schedCls: 3, cgroupSkb: 8, cgroupSockAddr: 18, cgroupSockopt: 25 } as const;

const logLength = 1 << 20;
const programInfoLength = 80;
/** Test runs may make the packet longer, never by more than this. */
const testRunHeadroom = 512;

/** Plain data: a program whose references to maps are resolved. */
export interface LoadableProgram {
  readonly name: string;
  readonly type: number;
  /** 8 bytes each. */
  readonly instructions: Uint8Array;
  readonly license: string;
  /** enum bpf_attach_type, for the types that want it at load. */
  readonly expectedAttachType?: number;
}

/** The verifier refused a program: `log` is the whole of what it said. */
export class VerifierError extends SluiceError {
  readonly log: string;

  constructor(name: string, errno: number, log: string) {
    const lines = log.split('\n').filter((line) => line.trim() !== '');
    const hidden = Math.max(lines.length - 1, 0);
    super({
      code: 'verifier_rejected',
      operation: 'load program',
      object: name,
      what: `${verifierReason(lines) ?? errnoText(errno)} (${hidden} more lines in the verifier's log)`,
    });
    this.log = log;
  }
}

/** The last line that is not the verifier's statistics is what it stumbled over. */
function verifierReason(lines: readonly string[]): string | undefined {
  return lines
    .filter((line) => !line.startsWith('processed ') && !line.startsWith('verification time'))
    .at(-1)
    ?.trim();
}

export interface ProgramInfo {
  readonly id: number;
  readonly name: string;
  /** Hash of the instructions, map references left out: 16 hexadecimal digits. */
  readonly tag: string;
}

export interface TestRun {
  /** The program's return value, as a signed number. */
  readonly returnValue: number;
  readonly packet: Uint8Array;
  /** Average of one run, nanoseconds. */
  readonly durationNs: number;
}

export class BpfProgram extends BpfObject {
  private constructor(fd: OwnedFd) {
    super(fd);
  }

  /** Tries without a log; asks the verifier for its reasons only after a refusal. */
  static load(program: LoadableProgram): BpfProgram {
    const fd = callLoad(() => loadAttr(program));
    if (fd >= 0) return new BpfProgram(ownFd(fd, `program ${program.name}`));
    if (fd === -Errno.EPERM) {
      throw new SyscallError({
        operation: 'load program',
        object: program.name,
        errno: Errno.EPERM,
        remedy: 'run as root, or with CAP_BPF and CAP_NET_ADMIN',
      });
    }
    const log = new Uint8Array(logLength);
    const second = callLoad(() => loadAttr(program).u32(24, 1).u32(28, log.length).pointer(32, log));
    if (second >= 0) return new BpfProgram(ownFd(second, `program ${program.name}`));
    const end = log.indexOf(0);
    throw new VerifierError(
      program.name,
      -second,
      new TextDecoder().decode(log.subarray(0, end < 0 ? log.length : end)),
    );
  }

  /** Undefined when nothing is pinned at `path`. */
  static openPinned(path: string): BpfProgram | undefined {
    const fd = openPinnedFd(path);
    return fd === undefined ? undefined : new BpfProgram(fd);
  }

  /** Undefined when no such program is loaded. */
  static openById(id: number): BpfProgram | undefined {
    const fd = new BpfAttr().u32(0, id).call(BpfCommand.progGetFdById);
    if (fd === -Errno.ENOENT) return undefined;
    return new BpfProgram(ownFd(check(fd, 'open program', `id ${id}`), `program id ${id}`));
  }

  info(): ProgramInfo {
    const info = objectInfo(this.fd, programInfoLength);
    if (info === undefined)
      throw new SluiceError({
        code: 'internal',
        operation: 'read info of',
        object: 'a program',
        what: 'the descriptor is not a program',
      });
    const tag = Buffer.from(info.buffer, 8, 8).toString('hex');
    return { id: info.getUint32(4, true), name: infoName(info, 64), tag };
  }

  /** Ids of the maps it uses, in no order; more than the limit are left out. */
  mapIds(limit = 32): number[] {
    const ids = new Uint8Array(limit * 4);
    const info = new Uint8Array(programInfoLength);
    const view = new DataView(info.buffer);
    view.setUint32(52, limit, true);
    view.setBigUint64(56, addressOf(ids), true);
    const attr = new BpfAttr().u32(0, this.fd).u32(4, info.length).pointer(8, info);
    check(attr.call(BpfCommand.objGetInfo), 'read maps of program', `fd ${this.fd}`);
    const count = Math.min(limit, view.getUint32(52, true));
    return Array.from({ length: count }, (_, i) => new DataView(ids.buffer).getUint32(i * 4, true));
  }

  /** Runs the program on a frame (BPF_PROG_TEST_RUN). `repeat` runs are timed and averaged. */
  testRun(packet: Uint8Array, options: { readonly repeat?: number } = {}): TestRun {
    const out = new Uint8Array(packet.length + testRunHeadroom);
    const attr = new BpfAttr()
      .u32(0, this.fd)
      .u32(8, packet.length)
      .u32(12, out.length)
      .pointer(16, packet)
      .pointer(24, out)
      .u32(32, options.repeat ?? 1);
    check(attr.call(BpfCommand.progTestRun), 'test-run program', `fd ${this.fd}`);
    return {
      returnValue: attr.readU32(4) | 0,
      packet: out.subarray(0, attr.readU32(12)),
      durationNs: attr.readU32(36),
    };
  }
}

/** The verifier gives up with EAGAIN when a signal is pending (bpf_check, kernel/bpf/verifier.c); libbpf tries again too. */
const maxLoadAttempts = 10;
/** Of `node --cpu-prof`, every millisecond: each attempt of a program that takes longer to verify would fail. */
const { SIGPROF } = constants.signals;

/** A descriptor, or -errno. `attr` is made anew for each attempt. */
export function callLoad(attr: () => BpfAttr): number {
  return withSignalBlocked(SIGPROF, () => {
    for (let attempt = 1; ; attempt++) {
      const fd = attr().call(BpfCommand.progLoad);
      if (fd !== -Errno.EAGAIN || attempt === maxLoadAttempts) return fd;
    }
  });
}

function loadAttr(program: LoadableProgram): BpfAttr {
  return new BpfAttr()
    .u32(0, program.type)
    .u32(4, program.instructions.length / 8)
    .pointer(8, program.instructions)
    .path(16, program.license)
    .name(48, program.name)
    .u32(68, program.expectedAttachType ?? 0);
}
