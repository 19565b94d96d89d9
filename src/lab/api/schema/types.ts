/**
 * A compact notation for the types of built-in kinds: `Type: field=type …`, one type per paragraph.
 *
 * Types: s string, b boolean, i32, i64, q quantity, is int-or-string, t time, mt time with microseconds, bytes (base64),
 * any (free form), Name (another type), [x] list, {x} map with string keys. After a list comes how a strategic merge patch
 * treats it: `@key` merges by that key, `@` merges a set of primitives, nothing replaces. A trailing `!` is retainKeys.
 * A `*` after the field's name marks it required in the published OpenAPI document, a `?` a pointer in Go, whose zero value
 * is kept. `#n` is the field's number in the protobuf form, `#n.m` field m of an embedded message n.
 */

export type ScalarType =
  'string' | 'boolean' | 'int32' | 'int64' | 'quantity' | 'intOrString' | 'time' | 'microTime' | 'bytes' | 'any';

export type FieldType =
  | { readonly kind: 'scalar'; readonly scalar: ScalarType }
  | { readonly kind: 'ref'; readonly name: string }
  | { readonly kind: 'list'; readonly items: FieldType; readonly mergeKey?: string; readonly mergeSet?: boolean }
  | { readonly kind: 'map'; readonly values: FieldType };

export interface FieldSpec {
  readonly type: FieldType;
  readonly required: boolean;
  readonly retainKeys: boolean;
  /** A pointer in Go: zero is a value, not absence. */
  readonly pointer: boolean;
  /** Protobuf field numbers from the outside in; empty where the kind has no protobuf form. */
  readonly numbers: readonly number[];
}

export interface ObjectType {
  readonly name: string;
  readonly fields: ReadonlyMap<string, FieldSpec>;
}

export type TypeTable = ReadonlyMap<string, ObjectType>;

const scalars: Readonly<Record<string, ScalarType>> = {
  s: 'string',
  b: 'boolean',
  i32: 'int32',
  i64: 'int64',
  q: 'quantity',
  is: 'intOrString',
  t: 'time',
  mt: 'microTime',
  bytes: 'bytes',
  any: 'any',
};

export function parseTypes(...sources: readonly string[]): TypeTable {
  const table = new Map<string, ObjectType>();
  for (const source of sources) {
    for (const paragraph of source.trim().split(/\n(?=\S)/)) {
      const type = parseType(paragraph);
      if (table.has(type.name)) throw new Error(`type table: ${type.name} is defined twice`);
      table.set(type.name, type);
    }
  }
  return table;
}

function parseType(paragraph: string): ObjectType {
  const [head = '', ...fields] = paragraph.trim().split(/\s+/);
  if (!head.endsWith(':')) throw new Error(`type table: "${head}" is not the head of a type`);
  return { name: head.slice(0, -1), fields: new Map(fields.map(parseField)) };
}

function parseField(text: string): [string, FieldSpec] {
  const match = /^(\w+)(\*?)(\??)=([^!#]+)(!?)(?:#([\d.]+))?$/.exec(text);
  if (match === null) throw new Error(`type table: "${text}" is not a field`);
  const [, name = '', star, mark, type = '', bang, numbers = ''] = match;
  const spec: FieldSpec = {
    type: parseFieldType(type),
    required: star === '*',
    retainKeys: bang === '!',
    pointer: mark === '?',
    numbers: numbers === '' ? [] : numbers.split('.').map(Number),
  };
  return [name, spec];
}

function parseFieldType(text: string): FieldType {
  const list = /^\[(.+)\](@\w*)?$/.exec(text);
  if (list !== null) {
    const items = parseFieldType(list[1] ?? '');
    if (list[2] === undefined) return { kind: 'list', items };
    return list[2] === '@'
      ? { kind: 'list', items, mergeSet: true }
      : { kind: 'list', items, mergeKey: list[2].slice(1) };
  }
  const map = /^\{(.+)\}$/.exec(text);
  if (map !== null) return { kind: 'map', values: parseFieldType(map[1] ?? '') };
  const scalar = scalars[text];
  return scalar === undefined ? { kind: 'ref', name: text } : { kind: 'scalar', scalar };
}
