/**
 * Programs on a cgroup (version 2), by BPF_PROG_ATTACH rather than by a link: they need no name and no holder, and go with
 * the cgroup. Several may be on the same hook; each of them can refuse.
 */
import { constants, openSync } from 'node:fs';
import { check, Errno } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import type { BpfProgram } from './program.ts';
import { BpfAttr, BpfCommand } from './sys.ts';

/** enum bpf_attach_type. */
export const CgroupHook = { setsockopt: 22 } as const;
export type CgroupHook = (typeof CgroupHook)[keyof typeof CgroupHook];

const BPF_F_ALLOW_MULTI = 1 << 1;
/** More are not asked for (BPF_CGROUP_MAX_PROGS). */
const maxPrograms = 64;

/** Whatever processes of the cgroup, and of those below it, do from now on. EINVAL: this very program is there already. */
export function attachToCgroup(cgroupDir: string, hook: CgroupHook, program: BpfProgram): void {
  using cgroup = openCgroup(cgroupDir);
  const attr = new BpfAttr().u32(0, cgroup.value).u32(4, program.fd).u32(8, hook).u32(12, BPF_F_ALLOW_MULTI);
  check(attr.call(BpfCommand.progAttach), 'attach program to cgroup', cgroupDir);
}

export function detachFromCgroup(cgroupDir: string, hook: CgroupHook, program: BpfProgram): void {
  using cgroup = openCgroup(cgroupDir);
  const rc = new BpfAttr().u32(0, cgroup.value).u32(4, program.fd).u32(8, hook).call(BpfCommand.progDetach);
  if (rc !== -Errno.ENOENT) check(rc, 'detach program from cgroup', cgroupDir);
}

/** Ids, in the order in which they run; those that the cgroup has from above are not among them. */
export function cgroupPrograms(cgroupDir: string, hook: CgroupHook): number[] {
  using cgroup = openCgroup(cgroupDir);
  const ids = new Uint8Array(maxPrograms * 4);
  const attr = new BpfAttr().u32(0, cgroup.value).u32(4, hook).pointer(16, ids).u32(24, maxPrograms);
  check(attr.call(BpfCommand.progQuery), 'list programs of cgroup', cgroupDir);
  const view = new DataView(ids.buffer);
  return Array.from({ length: attr.readU32(24) }, (_, i) => view.getUint32(i * 4, true));
}

function openCgroup(dir: string): OwnedFd {
  return ownFd(openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY), `cgroup ${dir}`);
}
