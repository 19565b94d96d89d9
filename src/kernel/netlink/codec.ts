/**
 * The netlink wire format (RFC 3549; include/uapi/linux/netlink.h): messages are a header, a family's fixed struct
 * and attributes (length, type, payload), everything padded to 4 bytes, numbers in host byte order unless noted.
 */
import { endianness } from 'node:os';

/** Both architectures we support are little endian; the codec says so rather than guess. */
const littleEndian = endianness() === 'LE';

const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

function align4(length: number): number {
  return (length + 3) & ~3;
}

/** Builds the body of one message. Methods return `this`, so that a message reads as a list. */
export class MessageWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  u8(value: number): this {
    this.#reserve(1)[0] = value;
    return this;
  }

  u16(value: number): this {
    this.#view(2).setUint16(0, value, littleEndian);
    return this;
  }

  u16be(value: number): this {
    this.#view(2).setUint16(0, value, false);
    return this;
  }

  u32(value: number): this {
    this.#view(4).setUint32(0, value >>> 0, littleEndian);
    return this;
  }

  i32(value: number): this {
    this.#view(4).setInt32(0, value, littleEndian);
    return this;
  }

  u64(value: bigint): this {
    this.#view(8).setBigUint64(0, value, littleEndian);
    return this;
  }

  bytes(value: Uint8Array): this {
    this.#reserve(value.length).set(value);
    return this;
  }

  attribute(type: number, payload: Uint8Array): this {
    this.#header(type, payload.length).bytes(payload);
    return this.#pad();
  }

  u8Attribute(type: number, value: number): this {
    return this.#header(type, 1).u8(value).#pad();
  }

  u16Attribute(type: number, value: number): this {
    return this.#header(type, 2).u16(value).#pad();
  }

  u32Attribute(type: number, value: number): this {
    return this.#header(type, 4).u32(value);
  }

  i32Attribute(type: number, value: number): this {
    return this.#header(type, 4).i32(value);
  }

  u64Attribute(type: number, value: bigint): this {
    return this.#header(type, 8).u64(value);
  }

  /** NUL-terminated, as the kernel's NLA_NUL_STRING policies ask for. */
  stringAttribute(type: number, value: string): this {
    return this.attribute(type, new TextEncoder().encode(`${value}\0`));
  }

  /** Without NLA_F_NESTED: the tc actions' order index, and rtnetlink's link info, predate the flag and some kernels check it. */
  nested(type: number, write: (inner: MessageWriter) => void): this {
    const inner = new MessageWriter();
    write(inner);
    return this.attribute(type, inner.finish());
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #header(type: number, payloadLength: number): this {
    return this.u16(4 + payloadLength).u16(type);
  }

  #pad(): this {
    this.#reserve(align4(this.#length) - this.#length);
    return this;
  }

  #view(length: number): DataView {
    const at = this.#reserve(length);
    return new DataView(at.buffer, at.byteOffset, length);
  }

  #reserve(length: number): Uint8Array {
    const end = this.#length + length;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    const at = this.#bytes.subarray(this.#length, end);
    this.#length = end;
    return at;
  }
}

/**
 * A cursor over received bytes with a sticky error: reading past the end yields zeros and sets `truncated`, so that
 * a decoder reads straight through and checks once.
 */
export class MessageReader {
  readonly #bytes: Uint8Array;
  #offset = 0;
  truncated = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  u8(): number {
    return this.#take(1)[0] ?? 0;
  }

  u16(): number {
    return this.#view(2).getUint16(0, littleEndian);
  }

  u32(): number {
    return this.#view(4).getUint32(0, littleEndian);
  }

  i32(): number {
    return this.#view(4).getInt32(0, littleEndian);
  }

  u64(): bigint {
    return this.#view(8).getBigUint64(0, littleEndian);
  }

  skip(length: number): void {
    this.#take(length);
  }

  rest(): Uint8Array {
    return this.#take(this.remaining);
  }

  /** The remaining attributes by type; of a repeated type the last one counts, as in the kernel's own parser. */
  attributes(): Attributes {
    return parseAttributes(this.rest());
  }

  #view(length: number): DataView {
    const at = this.#take(length);
    return new DataView(at.buffer, at.byteOffset, length);
  }

  #take(length: number): Uint8Array {
    if (length > this.remaining) {
      this.truncated = true;
      this.#offset = this.#bytes.length;
      return new Uint8Array(length);
    }
    const at = this.#bytes.subarray(this.#offset, this.#offset + length);
    this.#offset += length;
    return at;
  }
}

/** Attributes of one message or of one nested attribute. */
export class Attributes {
  readonly #byType: ReadonlyMap<number, Uint8Array>;

  constructor(byType: ReadonlyMap<number, Uint8Array>) {
    this.#byType = byType;
  }

  has(type: number): boolean {
    return this.#byType.has(type);
  }

  bytes(type: number): Uint8Array | undefined {
    return this.#byType.get(type);
  }

  u8(type: number): number | undefined {
    return this.#reader(type, 1)?.u8();
  }

  u16(type: number): number | undefined {
    return this.#reader(type, 2)?.u16();
  }

  u32(type: number): number | undefined {
    return this.#reader(type, 4)?.u32();
  }

  u64(type: number): bigint | undefined {
    return this.#reader(type, 8)?.u64();
  }

  string(type: number): string | undefined {
    const bytes = this.#byType.get(type);
    if (bytes === undefined) return undefined;
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  }

  nested(type: number): Attributes | undefined {
    const bytes = this.#byType.get(type);
    return bytes === undefined ? undefined : parseAttributes(bytes);
  }

  #reader(type: number, length: number): MessageReader | undefined {
    const bytes = this.#byType.get(type);
    return bytes === undefined || bytes.length < length ? undefined : new MessageReader(bytes);
  }
}

export function parseAttributes(bytes: Uint8Array): Attributes {
  const byType = new Map<number, Uint8Array>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let offset = 0; offset + 4 <= bytes.length;) {
    const length = view.getUint16(offset, littleEndian);
    if (length < 4 || offset + length > bytes.length) break;
    const type = view.getUint16(offset + 2, littleEndian) & NLA_TYPE_MASK;
    byType.set(type, bytes.subarray(offset + 4, offset + length));
    offset += align4(length);
  }
  return new Attributes(byType);
}

/** The type value for an attribute that must carry the nested flag (strictly validated families). */
export function nestedType(type: number): number {
  return type | NLA_F_NESTED;
}

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly body: Uint8Array;
}

const headerLength = 16;

export function encodeMessage(message: Omit<NetlinkMessage, 'portId'>): Uint8Array {
  return new MessageWriter()
    .u32(headerLength + message.body.length)
    .u16(message.type)
    .u16(message.flags)
    .u32(message.sequence)
    .u32(0)
    .bytes(message.body)
    .finish();
}

/** Splits one datagram into its messages. */
export function decodeMessages(datagram: Uint8Array): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let offset = 0; offset + headerLength <= datagram.length;) {
    const reader = new MessageReader(datagram.subarray(offset));
    const length = reader.u32();
    const type = reader.u16();
    const flags = reader.u16();
    const sequence = reader.u32();
    const portId = reader.u32();
    if (length < headerLength || offset + length > datagram.length) break;
    messages.push({ type, flags, sequence, portId, body: datagram.subarray(offset + headerLength, offset + length) });
    offset += align4(length);
  }
  return messages;
}
