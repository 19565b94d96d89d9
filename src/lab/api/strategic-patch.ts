/**
 * Strategic merge patch for built-in kinds
 * (k8s.io/apimachinery/pkg/util/strategicpatch; directives $patch, $deleteFromPrimitiveList, $setElementOrder, $retainKeys).
 */
import { equalJson, isArray, isObject, setOwn, type Json, type JsonObject } from './json.ts';
import { typeOf } from './schema/decode.ts';
import type { FieldSpec, FieldType, ObjectType } from './schema/types.ts';
import { badRequest } from './status.ts';

const setOrder = '$setElementOrder/';
const deleteFrom = '$deleteFromPrimitiveList/';

export function applyStrategicPatch(typeName: string, original: JsonObject, patch: JsonObject): JsonObject {
  return mergeObject(typeOf(typeName), original, patch);
}

/** `type` is undefined below free-form fields, where a merge patch applies. */
function mergeObject(type: ObjectType | undefined, original: JsonObject, patch: JsonObject): JsonObject {
  const directive = patch.$patch;
  if (directive === 'replace') return without(patch, '$patch');
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge') {
    throw badRequest(`Unknown patch type: ${JSON.stringify(directive)}`);
  }
  const result = retain(original, patch.$retainKeys);
  applyPrimitiveDeletions(result, patch);
  for (const [name, value] of Object.entries(patch)) {
    if (name.startsWith('$')) continue;
    const order = patch[setOrder + name];
    if (value === null || value === undefined) delete result[name];
    else setOwn(result, name, mergeValue(type?.fields.get(name), result[name], value, order));
  }
  reorderUnpatched(type, result, patch);
  return result;
}

function mergeValue(spec: FieldSpec | undefined, original: Json | undefined, patch: Json, order?: Json): Json {
  const type = spec?.type;
  if (isArray(patch)) return mergeList(type, isArray(original) ? original : [], patch, order);
  if (!isObject(patch)) return patch;
  const merged = mergeObject(objectTypeOf(type), isObject(original) ? original : {}, patch);
  return merged;
}

function objectTypeOf(type: FieldType | undefined): ObjectType | undefined {
  return type?.kind === 'ref' ? typeOf(type.name) : undefined;
}

function mergeList(type: FieldType | undefined, original: readonly Json[], patch: readonly Json[], order?: Json): Json {
  if (type?.kind !== 'list') return stripDirectives(patch);
  if (type.mergeSet === true) {
    const merged = [...original, ...patch.filter((item) => !original.some((old) => equalJson(old, item)))];
    return reorder(merged, order, undefined);
  }
  if (type.mergeKey === undefined) return stripDirectives(patch);
  return reorder(mergeKeyed(type, type.mergeKey, original, patch), order, type.mergeKey);
}

function mergeKeyed(
  type: Extract<FieldType, { kind: 'list' }>,
  key: string,
  original: readonly Json[],
  patch: readonly Json[],
): Json[] {
  const items = patch.filter(isObject);
  if (items.some((item) => item.$patch === 'replace')) return items.filter((item) => item.$patch !== 'replace');
  let result = [...original];
  for (const item of items) {
    const id = item[key];
    if (id === undefined) throw badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${key}`);
    const index = result.findIndex((old) => isObject(old) && equalJson(old[key], id));
    if (item.$patch === 'delete') {
      result = result.filter((old) => !(isObject(old) && equalJson(old[key], id)));
    } else if (index >= 0) {
      const old = result[index];
      result[index] = mergeObject(objectTypeOf(type.items), isObject(old) ? old : {}, item);
    } else {
      result.push(mergeObject(objectTypeOf(type.items), {}, item));
    }
  }
  return result;
}

/** Items named in the order come in that order; the others keep their place relative to their neighbours. */
function reorder(items: readonly Json[], order: Json | undefined, key: string | undefined): Json[] {
  if (!isArray(order)) return [...items];
  const identity = (item: Json): Json | undefined => (key !== undefined && isObject(item) ? item[key] : item);
  const rank = (item: Json): number => order.findIndex((wanted) => equalJson(identity(wanted), identity(item)));
  const ordered = items.filter((item) => rank(item) >= 0).sort((a, b) => rank(a) - rank(b));
  const serverOnly = items.filter((item) => rank(item) < 0);
  const result: Json[] = [];
  for (const item of serverOnly) {
    const before = items.slice(0, items.indexOf(item)).filter((other) => rank(other) >= 0);
    const upTo = Math.max(-1, ...before.map((other) => ordered.indexOf(other)));
    result.push(...ordered.slice(0, upTo + 1).filter((other) => !result.includes(other)), item);
  }
  result.push(...ordered.filter((other) => !result.includes(other)));
  return result;
}

/** A $setElementOrder may come for a list whose items the patch leaves alone. */
function reorderUnpatched(type: ObjectType | undefined, result: JsonObject, patch: JsonObject): void {
  for (const [name, order] of Object.entries(patch)) {
    if (!name.startsWith(setOrder)) continue;
    const target = name.slice(setOrder.length);
    const list = result[target];
    if (patch[target] !== undefined || !isArray(list)) continue;
    const fieldType = type?.fields.get(target)?.type;
    result[target] = reorder(list, order, fieldType?.kind === 'list' ? fieldType.mergeKey : undefined);
  }
}

function applyPrimitiveDeletions(result: JsonObject, patch: JsonObject): void {
  for (const [name, values] of Object.entries(patch)) {
    if (!name.startsWith(deleteFrom) || !isArray(values)) continue;
    const target = name.slice(deleteFrom.length);
    const list = result[target];
    if (!isArray(list)) continue;
    const rest = list.filter((item) => !values.some((value) => equalJson(item, value)));
    if (rest.length === 0) delete result[target];
    else result[target] = rest;
  }
}

function retain(original: JsonObject, keys: Json | undefined): JsonObject {
  if (!isArray(keys)) return { ...original };
  return Object.fromEntries(Object.entries(original).filter(([name]) => keys.includes(name)));
}

function stripDirectives(value: readonly Json[]): Json[] {
  return value.map((item) => (isObject(item) ? without(item, '$patch') : item));
}

function without(object: JsonObject, key: string): JsonObject {
  const { [key]: _, ...rest } = object;
  return rest;
}
