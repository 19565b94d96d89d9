/** BPF links: attachments that outlive the process when pinned and that nobody in the pod can remove (tcx, kernel 6.6). */
import { SluiceError } from '../../core/error.ts';
import { check, Errno, SyscallError } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import { haveTcx } from './features.ts';
import { BpfObject, openPinnedFd } from './object.ts';
import type { BpfProgram } from './program.ts';
import { BpfAttr, BpfCommand, objectInfo } from './sys.ts';

/** enum bpf_attach_type. */
const tcxAttachType = { ingress: 46, egress: 47 } as const;
const BPF_LINK_TYPE_TCX = 11;
const linkInfoLength = 64;
const BPF_F_BEFORE = 1 << 3;
/** A hook holds at most this many programs (BPF_MPROG_MAX, include/linux/bpf_mprog.h). */
const maxHookPrograms = 64;

export type TcxHook = keyof typeof tcxAttachType;

export interface LinkInfo {
  readonly id: number;
  readonly programId: number;
  /** 0 when the device is gone: the link is then defunct. */
  readonly ifindex: number;
  readonly hook: TcxHook | undefined;
}

/** One program on a tcx hook, in the order in which they run. */
export interface HookProgram {
  readonly programId: number;
  /** 0 when it was attached without a link. */
  readonly linkId: number;
}

/** What is on a hook of a device of the calling thread's netns, first to last: call inside `withNetns`. */
export function queryTcx(ifindex: number, hook: TcxHook): HookProgram[] {
  const programIds = new Uint8Array(maxHookPrograms * 4);
  const linkIds = new Uint8Array(maxHookPrograms * 4);
  const attr = new BpfAttr()
    .u32(0, ifindex)
    .u32(4, tcxAttachType[hook])
    .pointer(16, programIds)
    .u32(24, maxHookPrograms)
    .pointer(40, linkIds);
  const rc = attr.call(BpfCommand.progQuery);
  if (rc === -Errno.ENOENT || rc === -Errno.ENODEV) return [];
  check(rc, `list programs of tcx ${hook}`, `ifindex ${ifindex}`);
  const [programs, links] = [new DataView(programIds.buffer), new DataView(linkIds.buffer)];
  return Array.from({ length: attr.readU32(24) }, (_, i) => ({
    programId: programs.getUint32(i * 4, true),
    linkId: links.getUint32(i * 4, true),
  }));
}

export class BpfLink extends BpfObject {
  private constructor(fd: OwnedFd) {
    super(fd);
  }

  /**
   * Attaches to a device of the calling thread's netns: call inside `withNetns`. It becomes the first program of the hook.
   * EEXIST: this very program is on the hook already.
   */
  static attachTcx(target: {
    readonly program: BpfProgram;
    readonly ifindex: number;
    readonly hook: TcxHook;
  }): BpfLink {
    const attr = new BpfAttr()
      .u32(0, target.program.fd)
      .u32(4, target.ifindex)
      .u32(8, tcxAttachType[target.hook])
      .u32(12, BPF_F_BEFORE);
    const fd = attr.call(BpfCommand.linkCreate);
    if (fd >= 0) return new BpfLink(ownFd(fd, `tcx ${target.hook} link`));
    const lacksTcx = fd === -Errno.EINVAL && !haveTcx();
    throw new SyscallError({
      ...(lacksTcx ? { code: 'unsupported_kernel', reason: 'this kernel has no tcx, which needs Linux 6.6' } : {}),
      operation: `attach tcx ${target.hook}`,
      object: `ifindex ${target.ifindex}`,
      errno: -fd,
    });
  }

  /** Undefined when nothing is pinned at `path`. */
  static openPinned(path: string): BpfLink | undefined {
    const fd = openPinnedFd(path);
    return fd === undefined ? undefined : new BpfLink(fd);
  }

  /** Swaps the program in one step: no packet passes between the old and the new one. */
  update(program: BpfProgram): void {
    const attr = new BpfAttr().u32(0, this.fd).u32(4, program.fd);
    check(attr.call(BpfCommand.linkUpdate), 'update link', `fd ${this.fd}`);
  }

  /** Takes the program off its hook, whoever else holds the link. */
  detach(): void {
    check(new BpfAttr().u32(0, this.fd).call(BpfCommand.linkDetach), 'detach link', `fd ${this.fd}`);
  }

  info(): LinkInfo {
    const info = objectInfo(this.fd, linkInfoLength);
    if (info === undefined)
      throw new SluiceError({
        code: 'internal',
        operation: 'read info of',
        object: 'a link',
        what: 'the descriptor is not a link',
      });
    const isTcx = info.getUint32(0, true) === BPF_LINK_TYPE_TCX;
    const attachType = info.getUint32(20, true);
    const hook =
      attachType === tcxAttachType.ingress ? 'ingress' : attachType === tcxAttachType.egress ? 'egress' : undefined;
    return {
      id: info.getUint32(4, true),
      programId: info.getUint32(8, true),
      ifindex: isTcx ? info.getUint32(16, true) : 0,
      hook: isTcx ? hook : undefined,
    };
  }
}
