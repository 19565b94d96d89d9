/** BPF maps: keys and values are byte images; whoever knows the structs encodes and decodes them. */
import { readFileSync } from 'node:fs';
import { SluiceError } from '../../core/error.ts';
import { check, Errno, SyscallError } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import { BpfObject, openPinnedFd } from './object.ts';
import { BpfAttr, BpfCommand, infoName, objectInfo } from './sys.ts';

/** enum bpf_map_type. */
export const MapType = {
  hash: 1,
  array: 2,
  progArray: 3,
  percpuHash: 5,
  percpuArray: 6,
  lruHash: 9,
  lruPercpuHash: 10,
  lpmTrie: 11,
  arrayOfMaps: 12,
  hashOfMaps: 13,
  ringbuf: 27,
} as const;

export const MapFlag = { noPrealloc: 1, readOnlyProgram: 0x80 } as const;

/** For {@link BpfMap.update}: create or change, only create, only change. */
export const UpdateFlag = { any: 0, noExist: 1, exist: 2 } as const;

const perCpuTypes: readonly number[] = [MapType.percpuHash, MapType.percpuArray, MapType.lruPercpuHash];
/** Entries moved by one batch call. */
const batchLength = 512;
const mapInfoLength = 40;

/** Plain data: a map that may not exist yet. */
export interface MapSpec {
  readonly name: string;
  readonly type: number;
  readonly keySize: number;
  /** Of one CPU, for per-CPU maps. */
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** For maps of maps: what every inner map must look like. */
  readonly inner?: MapSpec;
}

export class BpfMap extends BpfObject {
  readonly spec: MapSpec;
  /** Bytes of a value as user space sees it: for per-CPU maps one value for each possible CPU. */
  readonly valueLength: number;

  private constructor(fd: OwnedFd, spec: MapSpec) {
    super(fd);
    this.spec = spec;
    this.valueLength = perCpuTypes.includes(spec.type) ? alignTo8(spec.valueSize) * possibleCpus() : spec.valueSize;
  }

  static create(spec: MapSpec): BpfMap {
    using inner = spec.inner === undefined ? undefined : BpfMap.create(spec.inner);
    const attr = new BpfAttr()
      .u32(0, spec.type)
      .u32(4, spec.keySize)
      .u32(8, spec.valueSize)
      .u32(12, spec.maxEntries)
      .u32(16, spec.flags)
      .name(28, spec.name);
    if (inner !== undefined) attr.u32(20, inner.fd);
    const fd = attr.call(BpfCommand.mapCreate);
    if (fd < 0) throw createError(spec, -fd);
    return new BpfMap(ownFd(fd, `map ${spec.name}`), spec);
  }

  /** Undefined when nothing is pinned at `path`. */
  static openPinned(path: string): BpfMap | undefined {
    const fd = openPinnedFd(path);
    if (fd === undefined) return undefined;
    return new BpfMap(fd, readSpec(fd, path));
  }

  /** An inner map by the id that a lookup in the outer map gives. Undefined when it no longer exists. */
  static openById(id: number): BpfMap | undefined {
    const fd = new BpfAttr().u32(0, id).call(BpfCommand.mapGetFdById);
    if (fd === -Errno.ENOENT) return undefined;
    const owned = ownFd(check(fd, 'open map', `id ${id}`), `map id ${id}`);
    return new BpfMap(owned, readSpec(owned, `id ${id}`));
  }

  get id(): number {
    return objectInfo(this.fd, mapInfoLength)?.getUint32(4, true) ?? 0;
  }

  lookup(key: Uint8Array): Uint8Array | undefined {
    const value = new Uint8Array(this.valueLength);
    const rc = this.#element(key, value, 0).call(BpfCommand.mapLookup);
    if (rc === -Errno.ENOENT) return undefined;
    check(rc, 'look up in map', this.spec.name);
    return value;
  }

  update(key: Uint8Array, value: Uint8Array, flags: number = UpdateFlag.any): void {
    if (value.length !== this.valueLength) throw this.#wrongLength('value', value.length, this.valueLength);
    const rc = this.#element(key, value, flags).call(BpfCommand.mapUpdate);
    const remedy =
      rc === -Errno.E2BIG || rc === -Errno.ENOSPC ? `the map holds at most ${this.spec.maxEntries} entries` : undefined;
    check(rc, 'update map', this.spec.name, remedy);
  }

  /** False when there was no such entry. */
  delete(key: Uint8Array): boolean {
    const rc = this.#element(key, undefined, 0).call(BpfCommand.mapDelete);
    if (rc === -Errno.ENOENT) return false;
    check(rc, 'delete from map', this.spec.name);
    return true;
  }

  /** Every key. A key deleted while iterating may make the walk start over: collect first when you delete. */
  *keys(): Generator<Uint8Array> {
    let key: Uint8Array | undefined;
    for (;;) {
      const next = new Uint8Array(this.spec.keySize);
      const attr = new BpfAttr().u32(0, this.fd).pointer(8, key).pointer(16, next);
      const rc = attr.call(BpfCommand.mapGetNextKey);
      if (rc === -Errno.ENOENT) return;
      check(rc, 'iterate over map', this.spec.name);
      yield next;
      key = next;
    }
  }

  *entries(): Generator<readonly [key: Uint8Array, value: Uint8Array]> {
    for (const key of this.keys()) {
      const value = this.lookup(key);
      if (value !== undefined) yield [key, value];
    }
  }

  /**
   * Every entry once, many at a time: of a hash map, which others may write to meanwhile. Keys and values lie one after the
   * other; they are valid until the next step.
   */
  *batches(): Generator<{ readonly count: number; readonly keys: Uint8Array; readonly values: Uint8Array }> {
    const keys = new Uint8Array(batchLength * this.spec.keySize);
    const values = new Uint8Array(batchLength * this.valueLength);
    let from: Uint8Array | undefined;
    for (;;) {
      const next = new Uint8Array(8);
      const attr = new BpfAttr().pointer(0, from).pointer(8, next).pointer(16, keys).pointer(24, values);
      const rc = attr.u32(32, batchLength).u32(36, this.fd).call(BpfCommand.mapLookupBatch);
      if (rc !== -Errno.ENOENT) check(rc, 'iterate over map', this.spec.name);
      const count = attr.readU32(32);
      if (count > 0) yield { count, keys, values };
      if (rc === -Errno.ENOENT) return;
      from = next;
    }
  }

  /** Many updates in few system calls (kernel 5.6; tries 5.14), one by one where the kernel cannot. */
  updateBatch(entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[]): void {
    this.updatePacked(concat(entries.map(([key]) => key)), concat(entries.map(([, value]) => value)));
  }

  /** The same, of keys and values that lie one after the other. */
  updatePacked(keys: Uint8Array, values: Uint8Array): void {
    const count = this.#countOf(keys);
    if (values.length !== count * this.valueLength)
      throw this.#wrongLength(`${count} values`, values.length, count * this.valueLength);
    for (let start = 0; start < count; start += batchLength) {
      const chunk = packed(keys, this.spec.keySize, start);
      const chunkValues = packed(values, this.valueLength, start);
      const rc = this.#batch(chunk, chunkValues).call(BpfCommand.mapUpdateBatch);
      if (isUnsupported(rc)) this.#updateOneByOne(chunk, chunkValues);
      else check(rc, 'update map', this.spec.name, `the map holds at most ${this.spec.maxEntries} entries`);
    }
  }

  /** Many deletions; entries that do not exist are no error. */
  deleteBatch(keys: readonly Uint8Array[]): void {
    this.deletePacked(concat(keys));
  }

  /** The same, of keys that lie one after the other. */
  deletePacked(keys: Uint8Array): void {
    const { keySize } = this.spec;
    for (let start = 0; start < this.#countOf(keys); start += batchLength) {
      const chunk = packed(keys, keySize, start);
      const rc = this.#batch(chunk, undefined).call(BpfCommand.mapDeleteBatch);
      if (rc >= 0) continue;
      // The kernel stops at the first key that is absent: finish the chunk one by one.
      for (let at = 0; at < chunk.length; at += keySize) this.delete(chunk.subarray(at, at + keySize));
    }
  }

  /** User space can no longer change it; with readOnlyProgram the verifier then knows its contents. */
  freeze(): void {
    check(new BpfAttr().u32(0, this.fd).call(BpfCommand.mapFreeze), 'freeze map', this.spec.name);
  }

  #element(key: Uint8Array, value: Uint8Array | undefined, flags: number): BpfAttr {
    if (key.length !== this.spec.keySize) throw this.#wrongLength('key', key.length, this.spec.keySize);
    return new BpfAttr().u32(0, this.fd).pointer(8, key).pointer(16, value).u64(24, BigInt(flags));
  }

  #batch(keys: Uint8Array, values: Uint8Array | undefined): BpfAttr {
    return new BpfAttr().pointer(16, keys).pointer(24, values).u32(32, this.#countOf(keys)).u32(36, this.fd);
  }

  #updateOneByOne(keys: Uint8Array, values: Uint8Array): void {
    for (let i = 0; i < this.#countOf(keys); i++) {
      const value = values.subarray(i * this.valueLength, (i + 1) * this.valueLength);
      this.update(keys.subarray(i * this.spec.keySize, (i + 1) * this.spec.keySize), value);
    }
  }

  #countOf(keys: Uint8Array): number {
    const count = keys.length / this.spec.keySize;
    if (!Number.isInteger(count)) throw this.#wrongLength('list of keys', keys.length, this.spec.keySize);
    return count;
  }

  #wrongLength(what: string, actual: number, expected: number): SluiceError {
    return new SluiceError({
      code: 'internal',
      operation: 'use map',
      object: this.spec.name,
      what: `a ${what} of ${actual} bytes where it has ${expected}`,
    });
  }
}

/** Every difference that keeps an existing map from standing in for `wanted`; empty when it can. */
export function mapDifferences(wanted: MapSpec, existing: MapSpec): string[] {
  const fields = ['type', 'keySize', 'valueSize', 'maxEntries', 'flags'] as const;
  return fields
    .filter((field) => wanted[field] !== existing[field])
    .map((field) => `${field}: ${existing[field]} where ${wanted[field]} is wanted`);
}

function readSpec(fd: OwnedFd, what: string): MapSpec {
  const info = objectInfo(fd.value, mapInfoLength);
  if (info === undefined)
    throw new SluiceError({ code: 'internal', operation: 'read map info of', object: what, what: 'it is not a map' });
  return {
    name: infoName(info, 24),
    type: info.getUint32(0, true),
    keySize: info.getUint32(8, true),
    valueSize: info.getUint32(12, true),
    maxEntries: info.getUint32(16, true),
    flags: info.getUint32(20, true),
  };
}

function createError(spec: MapSpec, errno: number): SyscallError {
  const remedies: Readonly<Record<number, string>> = {
    [Errno.EPERM]:
      'run as root, or with CAP_BPF and CAP_NET_ADMIN; before kernel 5.11 also CAP_SYS_RESOURCE, to raise RLIMIT_MEMLOCK',
    [Errno.EINVAL]: `the kernel does not know map type ${spec.type} with these sizes and flags`,
    [Errno.ENOMEM]: `lower its size (${spec.maxEntries} entries)`,
  };
  return new SyscallError({ operation: 'create map', object: spec.name, errno, remedy: remedies[errno] });
}

/** ENOTSUPP (524) and EINVAL: the map type has no batch operations on this kernel. */
function isUnsupported(rc: number): boolean {
  return rc === -Errno.ENOTSUPP || rc === -Errno.EINVAL || rc === -Errno.EOPNOTSUPP;
}

/** One batch of items of `size` bytes each. */
function packed(items: Uint8Array, size: number, start: number): Uint8Array {
  return items.subarray(start * size, (start + batchLength) * size);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

function alignTo8(length: number): number {
  return (length + 7) & ~7;
}

/** How many values a per-CPU map has: the CPUs that may ever be there, "0-3" → 4. */
export function possibleCpus(): number {
  const text = readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim();
  return text.split(',').reduce((count, range) => {
    const [first, last] = range.split('-').map(Number);
    return count + (last ?? first ?? 0) - (first ?? 0) + 1;
  }, 0);
}
