/**
 * C structs as typed values: a layout is declared once and both encodes and decodes. Little-endian, like every
 * machine we run on; fields named `be16` are in network byte order.
 */

interface FieldTypes {
  u8: number;
  u16: number;
  u32: number;
  u64: bigint;
  be16: number;
  be32: number;
  /** 16 bytes. */
  address: Uint8Array;
}

type FieldType = keyof FieldTypes;

/** [C name, type, offset in bytes] */
export type FieldSpec = readonly [cName: string, type: FieldType, offset: number];

export type StructValue<F extends Record<string, FieldSpec>> = { -readonly [K in keyof F]: FieldTypes[F[K][1]] };

export interface Struct<F extends Record<string, FieldSpec>> {
  readonly cName: string;
  readonly size: number;
  readonly fields: F;
  encode(value: Readonly<StructValue<F>>): Uint8Array;
  decode(bytes: Uint8Array): StructValue<F>;
}

export const fieldSize: Readonly<Record<FieldType, number>> = {
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  be16: 2,
  be32: 4,
  address: 16,
};

export function defineStruct<const F extends Record<string, FieldSpec>>(
  cName: string,
  size: number,
  fields: F,
): Struct<F> {
  const specs = Object.entries(fields);
  return {
    cName,
    size,
    fields,
    encode: (value) => {
      const bytes = new Uint8Array(size);
      for (const [name, [, type, offset]] of specs) writeField(bytes, type, offset, value[name]);
      return bytes;
    },
    decode: (bytes) => {
      if (bytes.byteLength < size) throw new RangeError(`struct ${cName}: ${bytes.byteLength} bytes, need ${size}`);
      return Object.fromEntries(
        specs.map(([name, [, type, offset]]) => [name, readField(bytes, type, offset)]),
      ) as StructValue<F>;
    },
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function writeField(
  bytes: Uint8Array,
  type: FieldType,
  offset: number,
  value: FieldTypes[FieldType] | undefined,
): void {
  const view = viewOf(bytes);
  if (value instanceof Uint8Array) bytes.set(value, offset);
  else if (typeof value === 'bigint') view.setBigUint64(offset, value, true);
  else if (value === undefined) throw new TypeError(`field at offset ${offset} has no value`);
  else if (type === 'u8') view.setUint8(offset, value);
  else if (type === 'u16' || type === 'be16') view.setUint16(offset, value, type === 'u16');
  else view.setUint32(offset, value, type === 'u32');
}

function readField(bytes: Uint8Array, type: FieldType, offset: number): FieldTypes[FieldType] {
  const view = viewOf(bytes);
  switch (type) {
    case 'u8':
      return view.getUint8(offset);
    case 'u16':
      return view.getUint16(offset, true);
    case 'u32':
      return view.getUint32(offset, true);
    case 'u64':
      return view.getBigUint64(offset, true);
    case 'be16':
      return view.getUint16(offset);
    case 'be32':
      return view.getUint32(offset);
    case 'address':
      return bytes.slice(offset, offset + 16);
  }
}
