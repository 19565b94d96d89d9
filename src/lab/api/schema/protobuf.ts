/**
 * Reading Kubernetes' protobuf encoding of built-in kinds, which typed clients (`kubectl create namespace`) send.
 *
 * The envelope is "k8s\0" and a runtime.Unknown; inside are proto2 messages whose field numbers stand in the type table
 * (k8s.io/apimachinery/pkg/runtime/generated.proto). Answers are always JSON, which those clients accept.
 */
import type { Json, JsonObject } from '../json.ts';
import { typeTable } from './table.ts';
import type { FieldSpec, FieldType, ObjectType, ScalarType } from './types.ts';

/** The bytes are damaged or of a kind without a protobuf form. */
export class ProtobufError extends Error {}

interface RawField {
  readonly number: number;
  /** For wire type 0; 64 bits wide. */
  readonly varint: bigint;
  /** For wire type 2. */
  readonly bytes: Buffer | undefined;
}

const magic = Buffer.from('k8s\0', 'latin1');

export function decodeProtobuf(body: Buffer): JsonObject {
  if (!body.subarray(0, magic.length).equals(magic)) throw new ProtobufError('the body is not Kubernetes protobuf');
  const envelope = fields(body.subarray(magic.length));
  const typeMeta = fields(bytesOf(envelope, 1) ?? Buffer.alloc(0));
  const apiVersion = bytesOf(typeMeta, 1)?.toString('utf8') ?? '';
  const kind = bytesOf(typeMeta, 2)?.toString('utf8') ?? '';
  const type = typeTable.get(apiVersion === 'events.k8s.io/v1' ? `EventsV1${kind}` : kind);
  if (type === undefined)
    throw new ProtobufError(`${apiVersion} ${kind} has no protobuf form here: send application/json`);
  return { apiVersion, kind, ...decodeMessage(type, fields(bytesOf(envelope, 2) ?? Buffer.alloc(0))) };
}

function bytesOf(all: readonly RawField[], number: number): Buffer | undefined {
  return all.findLast((item) => item.number === number)?.bytes;
}

function decodeMessage(type: ObjectType, raw: readonly RawField[]): JsonObject {
  const result: JsonObject = {};
  for (const [name, spec] of type.fields) {
    const found = locate(raw, spec.numbers);
    if (found.length === 0) continue;
    const value = decodeField(spec, found);
    if (value !== undefined) result[name] = value;
  }
  return result;
}

/** Embedded structs are messages of their own. */
function locate(raw: readonly RawField[], numbers: readonly number[]): readonly RawField[] {
  const [first, ...rest] = numbers;
  if (first === undefined) return [];
  const here = raw.filter((item) => item.number === first);
  return rest.length === 0 ? here : here.flatMap((item) => locate(fields(item.bytes ?? Buffer.alloc(0)), rest));
}

function decodeField(spec: FieldSpec, found: readonly RawField[]): Json | undefined {
  const { type } = spec;
  switch (type.kind) {
    case 'list':
      return found.flatMap((item) => decodeItems(type.items, item));
    case 'map':
      return Object.fromEntries(found.map((item) => decodeEntry(type.values, item)));
    default:
      return decodeOne(type, found.at(-1));
  }
}

/** Integers may come packed: many in one field. */
function decodeItems(type: FieldType, item: RawField): Json[] {
  const packed =
    type.kind === 'scalar' && (type.scalar === 'int32' || type.scalar === 'int64') && item.bytes !== undefined;
  if (!packed) return [decodeOne(type, item) ?? null];
  const cursor = new Cursor(item.bytes);
  const values: Json[] = [];
  while (!cursor.done) values.push(toNumber(cursor.varint()));
  return values;
}

function decodeEntry(values: FieldType, item: RawField): [string, Json] {
  const entry = fields(item.bytes ?? Buffer.alloc(0));
  const key = bytesOf(entry, 1)?.toString('utf8') ?? '';
  return [
    key,
    decodeOne(
      values,
      entry.find((part) => part.number === 2),
    ) ?? '',
  ];
}

function decodeOne(type: FieldType, item: RawField | undefined): Json | undefined {
  if (item === undefined) return undefined;
  if (type.kind === 'scalar') return decodeScalar(type.scalar, item);
  if (type.kind !== 'ref') throw new ProtobufError('nested lists have no protobuf form');
  const inner = typeTable.get(type.name);
  if (inner === undefined) throw new ProtobufError(`no type ${type.name}`);
  return decodeMessage(inner, fields(item.bytes ?? Buffer.alloc(0)));
}

function decodeScalar(scalar: ScalarType, item: RawField): Json | undefined {
  const bytes = item.bytes ?? Buffer.alloc(0);
  switch (scalar) {
    case 'string':
      return bytes.toString('utf8');
    case 'boolean':
      return item.varint !== 0n;
    case 'int32':
    case 'int64':
      return toNumber(item.varint);
    case 'bytes':
      return bytes.toString('base64');
    case 'quantity':
      return bytesOf(fields(bytes), 1)?.toString('utf8') ?? '0';
    case 'intOrString':
      return decodeIntOrString(fields(bytes));
    case 'time':
    case 'microTime':
      return decodeTime(fields(bytes), scalar === 'microTime');
    case 'any':
      return decodeRaw(bytes);
  }
}

/** {type = 1 (0 int, 1 string), intVal = 2, strVal = 3} */
function decodeIntOrString(raw: readonly RawField[]): Json {
  const isString = raw.some((item) => item.number === 1 && item.varint === 1n);
  if (isString) return bytesOf(raw, 3)?.toString('utf8') ?? '';
  return toNumber(raw.find((item) => item.number === 2)?.varint ?? 0n);
}

/** {seconds = 1, nanos = 2}; an empty message is the zero time, which JSON leaves out. */
function decodeTime(raw: readonly RawField[], micro: boolean): Json | undefined {
  const seconds = raw.find((item) => item.number === 1)?.varint;
  if (seconds === undefined) return undefined;
  const nanos = Number(raw.find((item) => item.number === 2)?.varint ?? 0n);
  const text = new Date(toNumber(seconds) * 1000).toISOString().slice(0, 19);
  return micro ? `${text}.${String(Math.floor(nanos / 1000)).padStart(6, '0')}Z` : `${text}Z`;
}

/** RawExtension and FieldsV1: {raw = 1} holds JSON. Structs that stay free-form here cannot be read. */
function decodeRaw(bytes: Buffer): Json | undefined {
  const raw = bytesOf(fields(bytes), 1);
  if (raw === undefined) return {};
  try {
    return JSON.parse(raw.toString('utf8')) as Json;
  } catch {
    throw new ProtobufError('a free-form field cannot be read from protobuf: send application/json');
  }
}

/** int64 in two's complement. */
function toNumber(varint: bigint): number {
  return Number(BigInt.asIntN(64, varint));
}

function fields(bytes: Buffer): RawField[] {
  const cursor = new Cursor(bytes);
  const found: RawField[] = [];
  while (!cursor.done) found.push(cursor.field());
  return found;
}

class Cursor {
  private readonly bytes: Buffer;
  private offset = 0;

  constructor(bytes: Buffer | undefined) {
    this.bytes = bytes ?? Buffer.alloc(0);
  }

  get done(): boolean {
    return this.offset >= this.bytes.length;
  }

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.offset++];
      if (byte === undefined) break;
      value |= BigInt(byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
    throw new ProtobufError('the protobuf body is cut off');
  }

  field(): RawField {
    const tag = Number(this.varint());
    const number = tag >> 3;
    switch (tag & 7) {
      case 0:
        return { number, varint: this.varint(), bytes: undefined };
      case 1:
        return { number, varint: 0n, bytes: this.take(8) };
      case 2:
        return { number, varint: 0n, bytes: this.take(Number(this.varint())) };
      case 5:
        return { number, varint: 0n, bytes: this.take(4) };
      default:
        throw new ProtobufError(`protobuf wire type ${tag & 7} is not used by Kubernetes`);
    }
  }

  private take(length: number): Buffer {
    if (this.offset + length > this.bytes.length) throw new ProtobufError('the protobuf body is cut off');
    const taken = this.bytes.subarray(this.offset, this.offset + length);
    this.offset += length;
    return taken;
  }
}
