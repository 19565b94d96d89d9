/** Structural schemas of custom resources: pruning, defaulting and validation (apiextensions.k8s.io/v1). */
import { cloneJson, equalJson, isArray, isObject, numberAt, objectAt, stringAt, stringsAt } from './json.ts';
import type { Json, JsonObject } from './json.ts';
import { field, type FieldError } from './status.ts';

/** Drops fields the schema does not name; returns their paths. The value is the caller's own. */
export function prune(schema: JsonObject, value: Json, path = '', atRoot = true): string[] {
  if (isArray(value)) {
    const items = objectAt(schema, 'items');
    if (items === undefined) return [];
    return value.flatMap((item, index) => prune(items, item, `${path}[${index}]`, false));
  }
  if (!isObject(value)) return [];
  const preserve = schema['x-kubernetes-preserve-unknown-fields'] === true;
  const embedded = atRoot || schema['x-kubernetes-embedded-resource'] === true;
  const dropped: string[] = [];
  for (const name of Object.keys(value)) {
    if (embedded && (name === 'apiVersion' || name === 'kind' || name === 'metadata')) continue;
    const inner = memberSchema(schema, name);
    const innerPath = path === '' ? name : `${path}.${name}`;
    if (inner !== undefined) dropped.push(...prune(inner, value[name] ?? null, innerPath, false));
    else if (!preserve && schema.additionalProperties !== true) {
      delete value[name];
      dropped.push(innerPath);
    }
  }
  return dropped;
}

function memberSchema(schema: JsonObject, name: string): JsonObject | undefined {
  const properties = objectAt(schema, 'properties');
  if (properties !== undefined && Object.hasOwn(properties, name)) return objectAt(properties, name);
  return objectAt(schema, 'additionalProperties');
}

/** Sets `default`s where a member is absent, also inside objects that were just set. */
export function applySchemaDefaults(schema: JsonObject, value: Json): void {
  if (isArray(value)) {
    const items = objectAt(schema, 'items');
    if (items !== undefined) for (const item of value) applySchemaDefaults(items, item);
    return;
  }
  if (!isObject(value)) return;
  for (const [name, inner] of Object.entries(objectAt(schema, 'properties') ?? {})) {
    if (!isObject(inner)) continue;
    const missing = value[name] === undefined || (value[name] === null && inner.nullable !== true);
    if (missing && inner.default !== undefined) value[name] = cloneJson(inner.default);
    else if (missing && value[name] === null) delete value[name];
  }
  for (const [name, member] of Object.entries(value)) {
    const inner = memberSchema(schema, name);
    if (inner !== undefined && member !== undefined) applySchemaDefaults(inner, member);
  }
}

export function validateSchema(schema: JsonObject, value: Json, path = ''): FieldError[] {
  if (value === null) {
    if (schema.nullable === true || schema.type === undefined) return [];
    return [field.typeInvalid(path, 'null', typeMessage(path, schema, 'null'))];
  }
  const typeError = checkType(schema, value, path);
  if (typeError !== undefined) return [typeError];
  return [
    ...checkEnum(schema, value, path),
    ...(typeof value === 'string' ? checkString(schema, value, path) : []),
    ...(typeof value === 'number' ? checkNumber(schema, value, path) : []),
    ...(isArray(value) ? checkArray(schema, value, path) : []),
    ...(isObject(value) ? checkObject(schema, value, path) : []),
    ...checkCombinations(schema, value, path),
  ];
}

function typeMessage(path: string, schema: JsonObject, found: string): string {
  return `${path} in body must be of type ${stringAt(schema, 'type') ?? 'any'}: "${found}"`;
}

function checkType(schema: JsonObject, value: Json, path: string): FieldError | undefined {
  const found = isArray(value)
    ? 'array'
    : typeof value === 'number' && Number.isInteger(value)
      ? 'integer'
      : typeof value;
  if (schema['x-kubernetes-int-or-string'] === true) {
    if (found === 'integer' || found === 'string') return undefined;
    return field.typeInvalid(path, value, typeMessage(path, { type: 'integer,string' }, found));
  }
  const wanted = stringAt(schema, 'type');
  if (wanted === undefined || wanted === found || (wanted === 'number' && found === 'integer')) return undefined;
  return field.typeInvalid(path, found, typeMessage(path, schema, found));
}

function checkEnum(schema: JsonObject, value: Json, path: string): FieldError[] {
  const allowed = schema.enum;
  if (!isArray(allowed) || allowed.some((item) => equalJson(item, value))) return [];
  return [field.notSupported(path, value, allowed.map(String))];
}

function checkString(schema: JsonObject, value: string, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const invalid = (what: string): number => errors.push(field.invalid(path, value, `${path} in body ${what}`));
  const { maxLength, minLength } = {
    maxLength: numberAt(schema, 'maxLength'),
    minLength: numberAt(schema, 'minLength'),
  };
  const length = [...value].length;
  if (maxLength !== undefined && length > maxLength) errors.push(field.tooLong(path, maxLength));
  if (minLength !== undefined && length < minLength) invalid(`should be at least ${minLength} chars long`);
  const pattern = stringAt(schema, 'pattern');
  if (pattern !== undefined && !new RegExp(pattern, 'u').test(value)) invalid(`should match '${pattern}'`);
  const format = stringAt(schema, 'format');
  if (format !== undefined && formats[format]?.(value) === false)
    invalid(`must be of type ${format}: ${JSON.stringify(value)}`);
  return errors;
}

const formats: Readonly<Record<string, (text: string) => boolean>> = {
  'date-time': (text) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text),
  ipv4: (text) => /^(\d{1,3}\.){3}\d{1,3}$/.test(text) && text.split('.').every((part) => Number(part) < 256),
  ipv6: (text) => text.includes(':') && /^[0-9a-fA-F:.]+$/.test(text),
  uuid: (text) => /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(text),
  byte: (text) => /^[A-Za-z0-9+/]*={0,2}$/.test(text),
};

function checkNumber(schema: JsonObject, value: number, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const invalid = (what: string): number =>
    errors.push(field.invalid(path, value, `${path} in body should be ${what}`));
  const { minimum, maximum, multipleOf } = {
    minimum: numberAt(schema, 'minimum'),
    maximum: numberAt(schema, 'maximum'),
    multipleOf: numberAt(schema, 'multipleOf'),
  };
  const { exclusiveMinimum, exclusiveMaximum } = schema;
  if (minimum !== undefined && exclusiveMinimum === true && value <= minimum) invalid(`greater than ${minimum}`);
  else if (minimum !== undefined && value < minimum) invalid(`greater than or equal to ${minimum}`);
  if (maximum !== undefined && exclusiveMaximum === true && value >= maximum) invalid(`less than ${maximum}`);
  else if (maximum !== undefined && value > maximum) invalid(`less than or equal to ${maximum}`);
  if (multipleOf !== undefined && value % multipleOf !== 0) invalid(`a multiple of ${multipleOf}`);
  return errors;
}

function checkArray(schema: JsonObject, value: readonly Json[], path: string): FieldError[] {
  const errors: FieldError[] = [];
  const { minItems, maxItems } = { minItems: numberAt(schema, 'minItems'), maxItems: numberAt(schema, 'maxItems') };
  if (minItems !== undefined && value.length < minItems) {
    errors.push(field.invalid(path, value.length, `${path} in body should have at least ${minItems} items`));
  }
  if (maxItems !== undefined && value.length > maxItems) errors.push(field.tooMany(path, value.length, maxItems));
  const unique = duplicateIndices(schema, value);
  errors.push(
    ...unique.map((index) => field.duplicate(`${path}[${index}]`, duplicateOf(schema, value[index] ?? null))),
  );
  const items = objectAt(schema, 'items');
  if (items !== undefined) {
    errors.push(...value.flatMap((item, index) => validateSchema(items, item, `${path}[${index}]`)));
  }
  return errors;
}

function duplicateOf(schema: JsonObject, item: Json): Json {
  const keys = stringsAt(schema, 'x-kubernetes-list-map-keys');
  if (keys.length === 0 || !isObject(item)) return item;
  return Object.fromEntries(keys.map((key) => [key, item[key] ?? null]));
}

function duplicateIndices(schema: JsonObject, value: readonly Json[]): number[] {
  const listType = stringAt(schema, 'x-kubernetes-list-type');
  if (schema.uniqueItems !== true && listType !== 'set' && listType !== 'map') return [];
  const seen = new Set<string>();
  return value.flatMap((item, index) => {
    const key = JSON.stringify(duplicateOf(schema, item));
    if (seen.has(key)) return [index];
    seen.add(key);
    return [];
  });
}

function checkObject(schema: JsonObject, value: JsonObject, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const at = (name: string): string => (path === '' ? name : `${path}.${name}`);
  for (const name of stringsAt(schema, 'required')) {
    if (value[name] === undefined) errors.push(field.required(at(name)));
  }
  const count = Object.keys(value).length;
  const { minProperties, maxProperties } = schema;
  if (typeof minProperties === 'number' && count < minProperties) {
    errors.push(field.invalid(path, count, `${path} in body should have at least ${minProperties} properties`));
  }
  if (typeof maxProperties === 'number' && count > maxProperties)
    errors.push(field.tooMany(path, count, maxProperties));
  for (const [name, member] of Object.entries(value)) {
    // Metadata has its own validation.
    if (path === '' && (name === 'metadata' || name === 'apiVersion' || name === 'kind')) continue;
    const inner = memberSchema(schema, name);
    if (inner !== undefined && member !== undefined) errors.push(...validateSchema(inner, member, at(name)));
  }
  return errors;
}

function checkCombinations(schema: JsonObject, value: Json, path: string): FieldError[] {
  const alternatives = (name: string): JsonObject[] => {
    const list = schema[name];
    return isArray(list) ? list.filter(isObject) : [];
  };
  const fits = (inner: JsonObject): boolean => validateSchema(inner, value, path).length === 0;
  const errors = alternatives('allOf').flatMap((inner) => validateSchema(inner, value, path));
  const anyOf = alternatives('anyOf');
  if (anyOf.length > 0 && !anyOf.some(fits)) {
    errors.push(field.invalid(path, value, `${path} in body must validate at least one schema (anyOf)`));
  }
  const oneOf = alternatives('oneOf');
  if (oneOf.length > 0 && oneOf.filter(fits).length !== 1) {
    errors.push(field.invalid(path, value, `${path} in body must validate one and only one schema (oneOf)`));
  }
  const not = objectAt(schema, 'not');
  if (not !== undefined && fits(not)) {
    errors.push(field.invalid(path, value, `${path} in body must not validate the schema (not)`));
  }
  return errors;
}
