/**
 * Decoding of built-in kinds as Go's JSON decoder does it: unknown fields are dropped and reported, nulls and empty optional
 * collections count as unset, and a value of the wrong type is an error that names the Go field.
 */
import { isArray, isObject, setOwn, type Json, type JsonObject } from '../json.ts';
import { typeTable } from './table.ts';
import type { FieldType, ObjectType, ScalarType } from './types.ts';

export interface Decoded {
  readonly object: JsonObject;
  /** `unknown field "spec.x"`, one per field that was dropped. */
  readonly strictErrors: readonly string[];
}

/** A value that does not fit its field's type. */
export class DecodeError extends Error {}

interface Context {
  /** The path with list indices, for unknown fields. */
  readonly path: string;
  /** The path without them, as encoding/json prints it. */
  readonly goPath: string;
  readonly owner: string;
  readonly strictErrors: string[];
}

export function decodeTyped(typeName: string, value: JsonObject): Decoded {
  const strictErrors: string[] = [];
  const object = decodeObject(typeOf(typeName), value, { path: '', goPath: '', owner: typeName, strictErrors });
  return { object, strictErrors };
}

export function typeOf(name: string): ObjectType {
  const type = typeTable.get(name);
  if (type === undefined) throw new Error(`type table: no type ${name}`);
  return type;
}

function decodeObject(type: ObjectType, value: JsonObject, context: Context): JsonObject {
  const result: JsonObject = {};
  for (const [name, member] of Object.entries(value)) {
    const spec = type.fields.get(name);
    const path = join(context.path, name);
    if (spec === undefined) {
      context.strictErrors.push(`unknown field "${path}"`);
      continue;
    }
    if (member === null || member === undefined) continue;
    const decoded = decodeValue(spec.type, member, {
      ...context,
      path,
      goPath: join(context.goPath, name),
      owner: type.name,
    });
    if (!spec.required && !spec.pointer && isOmitted(spec.type, decoded)) continue;
    result[name] = decoded;
  }
  return result;
}

function decodeValue(type: FieldType, value: Json, context: Context): Json {
  switch (type.kind) {
    case 'scalar':
      return decodeScalar(type.scalar, value, context);
    case 'ref':
      if (!isObject(value)) throw mismatch(value, type.name, context);
      return decodeObject(typeOf(type.name), value, context);
    case 'list':
      if (!isArray(value)) throw mismatch(value, `[]${goName(type.items)}`, context);
      return value.map((item, index) => decodeItem(type.items, item, index, context));
    case 'map':
      return decodeMap(type.values, value, context);
  }
}

function decodeItem(type: FieldType, item: Json, index: number, context: Context): Json {
  const inner = { ...context, path: `${context.path}[${index}]` };
  // A null element decodes to Go's zero value.
  if (item === null) return type.kind === 'ref' ? {} : type.kind === 'scalar' ? zero(type.scalar) : null;
  return decodeValue(type, item, inner);
}

function decodeMap(values: FieldType, value: Json, context: Context): JsonObject {
  if (!isObject(value)) throw mismatch(value, `map[string]${goName(values)}`, context);
  const result: JsonObject = {};
  for (const [key, member] of Object.entries(value)) {
    const decoded =
      member === null || member === undefined
        ? values.kind === 'scalar'
          ? zero(values.scalar)
          : null
        : decodeValue(values, member, { ...context, path: join(context.path, key) });
    setOwn(result, key, decoded);
  }
  return result;
}

function decodeScalar(scalar: ScalarType, value: Json, context: Context): Json {
  switch (scalar) {
    case 'any':
      return value;
    case 'string':
      if (typeof value === 'string') return value;
      throw mismatch(value, 'string', context);
    case 'boolean':
      if (typeof value === 'boolean') return value;
      throw mismatch(value, 'bool', context);
    case 'int32':
    case 'int64':
      if (typeof value === 'number' && Number.isInteger(value)) return value;
      throw mismatch(value, scalar, context);
    case 'intOrString':
      if (typeof value === 'string' || (typeof value === 'number' && Number.isInteger(value))) return value;
      throw mismatch(value, 'intstr.IntOrString', context);
    case 'quantity':
      return decodeQuantity(value, context);
    case 'time':
    case 'microTime':
      return decodeTime(value, context);
    case 'bytes':
      if (typeof value === 'string' && isBase64(value)) return value;
      throw typeof value === 'string'
        ? new DecodeError('illegal base64 data at input byte 0')
        : mismatch(value, '[]uint8', context);
  }
}

const quantityForm = /^[+-]?(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?$/;

export function isQuantity(text: string): boolean {
  return quantityForm.test(text);
}

function decodeQuantity(value: Json, context: Context): Json {
  const text = typeof value === 'number' ? String(value) : value;
  if (typeof text !== 'string') throw mismatch(value, 'resource.Quantity', context);
  if (!isQuantity(text)) {
    throw new DecodeError(
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
  }
  return text;
}

function decodeTime(value: Json, context: Context): Json {
  if (typeof value !== 'string') throw mismatch(value, 'v1.Time', context);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(value) || Number.isNaN(Date.parse(value))) {
    throw new DecodeError(`parsing time "${value}" as "2006-01-02T15:04:05Z07:00": cannot parse "${value}"`);
  }
  return value;
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}

/** Go's `omitempty`. */
function isOmitted(type: FieldType, value: Json): boolean {
  if (type.kind === 'list') return isArray(value) && value.length === 0;
  if (type.kind === 'map') return isObject(value) && Object.keys(value).length === 0;
  if (type.kind !== 'scalar' || type.scalar === 'any' || type.scalar === 'intOrString') return false;
  return value === '' || value === false || value === 0;
}

function mismatch(value: Json, goType: string, context: Context): DecodeError {
  const found = isArray(value) ? 'array' : typeof value === 'boolean' ? 'bool' : typeof value;
  const shown = typeof value === 'number' && !Number.isInteger(value) ? `number ${value}` : found;
  return new DecodeError(
    `json: cannot unmarshal ${shown} into Go struct field ${context.owner}.${context.goPath} of type ${goType}`,
  );
}

function goName(type: FieldType): string {
  if (type.kind === 'ref') return `v1.${type.name}`;
  if (type.kind === 'scalar') return type.scalar === 'boolean' ? 'bool' : type.scalar;
  return type.kind;
}

function zero(scalar: ScalarType): Json {
  if (scalar === 'boolean') return false;
  return scalar === 'int32' || scalar === 'int64' || scalar === 'intOrString' ? 0 : scalar === 'any' ? null : '';
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}
