/** bpf(2): command numbers and the union bpf_attr, field by field at its offset (include/uapi/linux/bpf.h). */
import { Errno } from '../errno.ts';
import { addressOf, bpf, setrlimit } from '../ffi.ts';

export const BpfCommand = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  mapGetNextKey: 4,
  progLoad: 5,
  objPin: 6,
  objGet: 7,
  progAttach: 8,
  progDetach: 9,
  progTestRun: 10,
  progGetNextId: 11,
  mapGetNextId: 12,
  progGetFdById: 13,
  mapGetFdById: 14,
  objGetInfo: 15,
  progQuery: 16,
  mapFreeze: 22,
  mapLookupBatch: 24,
  mapUpdateBatch: 26,
  mapDeleteBatch: 27,
  linkCreate: 28,
  linkUpdate: 29,
  linkDetach: 34,
} as const;

/** Longer than any attribute this layer writes; the kernel wants the unused rest to be zero. */
const attributeLength = 128;
const objectNameLength = 15;

/** Fills one bpf_attr. Buffers passed by address are kept alive until the call is made. */
export class BpfAttr {
  readonly bytes = new Uint8Array(attributeLength);
  readonly #view = new DataView(this.bytes.buffer);
  readonly #kept: Uint8Array[] = [];

  u32(offset: number, value: number): this {
    this.#view.setUint32(offset, value >>> 0, true);
    return this;
  }

  u64(offset: number, value: bigint): this {
    this.#view.setBigUint64(offset, value, true);
    return this;
  }

  /** The address of `buffer`; an empty one is a null pointer. */
  pointer(offset: number, buffer: Uint8Array | undefined): this {
    if (buffer === undefined || buffer.length === 0) return this;
    this.#kept.push(buffer);
    return this.u64(offset, addressOf(buffer));
  }

  /** A kernel object name: 15 bytes of [A-Za-z0-9_.]. */
  name(offset: number, name: string): this {
    const text = name.replace(/[^A-Za-z0-9_.]/g, '_').slice(0, objectNameLength);
    this.bytes.set(new TextEncoder().encode(text), offset);
    return this;
  }

  path(offset: number, path: string): this {
    return this.pointer(offset, new TextEncoder().encode(`${path}\0`));
  }

  readU32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  /**
   * The result, or -errno. Before Linux 5.11 maps and programs count against RLIMIT_MEMLOCK, 64 kB by default, and a
   * refusal for that says EPERM: the limit is then raised and the call made again.
   */
  call(command: number): number {
    const rc = bpf(command, this.bytes);
    const takesMemory = command === BpfCommand.mapCreate || command === BpfCommand.progLoad;
    return rc === -Errno.EPERM && takesMemory && raiseMemlock() ? bpf(command, this.bytes) : rc;
  }
}

const RLIMIT_MEMLOCK = 8;
const rlimInfinity = 0xffff_ffff_ffff_ffffn;

/** False without CAP_SYS_RESOURCE. */
function raiseMemlock(): boolean {
  const unlimited = new Uint8Array(BigUint64Array.of(rlimInfinity, rlimInfinity).buffer);
  return setrlimit(RLIMIT_MEMLOCK, unlimited) === 0;
}

/** What BPF_OBJ_GET_INFO_BY_FD fills for a map, program or link; undefined when the kernel refuses. */
export function objectInfo(fd: number, length: number): DataView | undefined {
  const info = new Uint8Array(length);
  const attr = new BpfAttr().u32(0, fd).u32(4, length).pointer(8, info);
  return attr.call(BpfCommand.objGetInfo) < 0 ? undefined : new DataView(info.buffer);
}

export function infoName(info: DataView, offset: number): string {
  const bytes = new Uint8Array(info.buffer, offset, 16);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? 16 : end));
}
