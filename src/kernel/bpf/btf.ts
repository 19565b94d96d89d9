/** BTF as the kernel documents it (Documentation/bpf/btf.rst): the types that describe maps and shared structs. */
import { malformed, stringAt, viewOf } from './elf.ts';

const btfKinds = [
  'void',
  'int',
  'ptr',
  'array',
  'struct',
  'union',
  'enum',
  'fwd',
  'typedef',
  'volatile',
  'const',
  'restrict',
  'func',
  'funcProto',
  'var',
  'datasec',
  'float',
  'declTag',
  'typeTag',
  'enum64',
] as const;
export type BtfKind = (typeof btfKinds)[number];

export interface BtfMember {
  readonly name: string;
  readonly typeId: number;
  readonly bitOffset: number;
}

export interface BtfType {
  readonly id: number;
  readonly kind: BtfKind;
  readonly name: string;
  /** Bytes, of int, struct, union, enum, float, datasec. */
  readonly size: number;
  /** What it refers to: ptr, typedef, qualifiers, var, func; the element of an array. */
  readonly typeId: number;
  /** Of struct and union. */
  readonly members: readonly BtfMember[];
  /** Of an array. */
  readonly elementCount: number;
  /** Of enum: name → value. */
  readonly values: ReadonlyMap<string, number>;
  /** Of datasec: the ids of its variables. */
  readonly variableIds: readonly number[];
}

const BTF_MAGIC = 0xeb9f;
const sizedKinds: readonly BtfKind[] = ['int', 'struct', 'union', 'enum', 'datasec', 'float', 'enum64'];
/** Bytes after the 12-byte header: fixed, or for each of the `vlen` parts. */
const extraBytes: Readonly<Partial<Record<BtfKind, number>>> = { int: 4, array: 12, var: 4, declTag: 4 };
const extraBytesEach: Readonly<Partial<Record<BtfKind, number>>> = {
  struct: 12,
  union: 12,
  enum: 8,
  funcProto: 8,
  datasec: 12,
  enum64: 12,
};

export class Btf {
  readonly #types: readonly BtfType[];

  private constructor(types: readonly BtfType[]) {
    this.#types = types;
  }

  static parse(bytes: Uint8Array, name: string): Btf {
    const view = viewOf(bytes);
    if (bytes.length < 24 || view.getUint16(0, true) !== BTF_MAGIC)
      throw malformed(name, 'its .BTF section has no BTF header');
    const headerLength = view.getUint32(4, true);
    const typesAt = headerLength + view.getUint32(8, true);
    const stringsAt = headerLength + view.getUint32(16, true);
    const types = bytes.subarray(typesAt, typesAt + view.getUint32(12, true));
    const strings = bytes.subarray(stringsAt, stringsAt + view.getUint32(20, true));
    return new Btf(parseTypes(types, strings, name));
  }

  type(id: number): BtfType | undefined {
    return this.#types[id];
  }

  find(kind: BtfKind, name: string): BtfType | undefined {
    return this.#types.find((type) => type.kind === kind && type.name === name);
  }

  /** The type behind typedefs and qualifiers. */
  resolve(id: number): BtfType | undefined {
    let type = this.type(id);
    while (type !== undefined && ['typedef', 'volatile', 'const', 'restrict', 'typeTag'].includes(type.kind))
      type = this.type(type.typeId);
    return type;
  }

  /** sizeof, in bytes; undefined for incomplete types. */
  sizeOf(id: number): number | undefined {
    const type = this.resolve(id);
    if (type === undefined) return undefined;
    if (type.kind === 'ptr') return 8;
    if (type.kind !== 'array') return sizedKinds.includes(type.kind) ? type.size : undefined;
    const element = this.sizeOf(type.typeId);
    return element === undefined ? undefined : element * type.elementCount;
  }
}

const voidType: BtfType = {
  id: 0,
  kind: 'void',
  name: '',
  size: 0,
  typeId: 0,
  members: [],
  elementCount: 0,
  values: new Map(),
  variableIds: [],
};

function parseTypes(bytes: Uint8Array, strings: Uint8Array, name: string): BtfType[] {
  const view = viewOf(bytes);
  const types: BtfType[] = [voidType];
  for (let at = 0; at + 12 <= bytes.length;) {
    const info = view.getUint32(at + 4, true);
    const kind = btfKinds[(info >>> 24) & 0x1f];
    const vlen = info & 0xffff;
    if (kind === undefined) throw malformed(name, `it uses an unknown kind of BTF type (${(info >>> 24) & 0x1f})`);
    const length = (extraBytes[kind] ?? 0) + vlen * (extraBytesEach[kind] ?? 0);
    if (at + 12 + length > bytes.length) throw malformed(name, 'its BTF types are cut off');
    const detail = new DataView(bytes.buffer, bytes.byteOffset + at + 12, length);
    const sizeOrType = view.getUint32(at + 8, true);
    const head = { id: types.length, kind, name: stringAt(strings, view.getUint32(at, true)) };
    types.push({
      ...voidType,
      ...head,
      ...(sizedKinds.includes(kind) ? { size: sizeOrType } : { typeId: sizeOrType }),
      ...parseDetail(kind, detail, vlen, strings, info >>> 31),
    });
    at += 12 + length;
  }
  return types;
}

function parseDetail(
  kind: BtfKind,
  detail: DataView,
  vlen: number,
  strings: Uint8Array,
  kindFlag: number,
): Partial<BtfType> {
  const parts = Array.from({ length: vlen }, (_, index) => index);
  switch (kind) {
    case 'array':
      return { typeId: detail.getUint32(0, true), elementCount: detail.getUint32(8, true) };
    case 'struct':
    case 'union':
      return { members: parts.map((index) => parseMember(detail, index * 12, strings, kindFlag)) };
    case 'enum':
      return {
        values: new Map(
          parts.map((index) => [
            stringAt(strings, detail.getUint32(index * 8, true)),
            detail.getInt32(index * 8 + 4, true),
          ]),
        ),
      };
    case 'datasec':
      return { variableIds: parts.map((index) => detail.getUint32(index * 12, true)) };
    default:
      return {};
  }
}

/** With the kind flag the upper 8 bits of the offset are a bit-field's size. */
function parseMember(detail: DataView, at: number, strings: Uint8Array, kindFlag: number): BtfMember {
  const offset = detail.getUint32(at + 8, true);
  return {
    name: stringAt(strings, detail.getUint32(at, true)),
    typeId: detail.getUint32(at + 4, true),
    bitOffset: kindFlag === 1 ? offset & 0xff_ffff : offset,
  };
}
