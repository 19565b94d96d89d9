/** JSON values as the API server handles them, and readers that never throw on a wrong shape. */

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

export interface JsonObject {
  [key: string]: Json | undefined;
}

/** An object with Kubernetes' metadata; everything else is read through the helpers below. */
export interface KubeObject extends JsonObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

export interface ObjectMeta extends JsonObject {
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: { [key: string]: string };
  annotations?: { [key: string]: string };
  finalizers?: string[];
  ownerReferences?: OwnerReference[];
}

export interface OwnerReference extends JsonObject {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isArray(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value);
}

/** The value at the path, or undefined where a step is missing or is not an object. */
export function valueAt(value: Json | undefined, ...path: readonly string[]): Json | undefined {
  let current = value;
  for (const step of path) {
    if (!isObject(current) || !Object.hasOwn(current, step)) return undefined;
    current = current[step];
  }
  return current;
}

export function objectAt(value: Json | undefined, ...path: readonly string[]): JsonObject | undefined {
  const found = valueAt(value, ...path);
  return isObject(found) ? found : undefined;
}

/** The elements of the list at the path that are objects; empty where there is none. */
export function objectsAt(value: Json | undefined, ...path: readonly string[]): JsonObject[] {
  const found = valueAt(value, ...path);
  return isArray(found) ? found.filter(isObject) : [];
}

export function stringsAt(value: Json | undefined, ...path: readonly string[]): string[] {
  const found = valueAt(value, ...path);
  return isArray(found) ? found.filter((item): item is string => typeof item === 'string') : [];
}

export function stringAt(value: Json | undefined, ...path: readonly string[]): string | undefined {
  const found = valueAt(value, ...path);
  return typeof found === 'string' ? found : undefined;
}

export function numberAt(value: Json | undefined, ...path: readonly string[]): number | undefined {
  const found = valueAt(value, ...path);
  return typeof found === 'number' ? found : undefined;
}

export function boolAt(value: Json | undefined, ...path: readonly string[]): boolean | undefined {
  const found = valueAt(value, ...path);
  return typeof found === 'boolean' ? found : undefined;
}

/** Scalars as text, the rest as JSON; absent and null are empty. */
export function textOf(value: Json | undefined): string {
  if (value === undefined || value === null) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** The object under the key, made when absent. Only for objects the caller owns. */
export function ensureObject(parent: JsonObject, key: string): JsonObject {
  const found = parent[key];
  if (isObject(found)) return found;
  const made: JsonObject = {};
  parent[key] = made;
  return made;
}

/** Sets a default: absent and null count as unset, as in Go's decoding. */
export function setDefault(parent: JsonObject, key: string, value: Json): void {
  if (parent[key] === undefined || parent[key] === null) parent[key] = value;
}

export function cloneJson<T extends Json | undefined>(value: T): T {
  return cloneValue(value) as T;
}

function cloneValue(value: Json | undefined): Json | undefined {
  if (isArray(value)) return value.map((item) => cloneValue(item) ?? null);
  if (!isObject(value)) return value;
  const copy: JsonObject = {};
  for (const key of Object.keys(value)) setOwn(copy, key, cloneValue(value[key]));
  return copy;
}

/** Assigns a key that came from outside; "__proto__" becomes an ordinary own property. */
export function setOwn(target: JsonObject, key: string, value: Json | undefined): void {
  if (key === '__proto__') {
    Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
  } else {
    target[key] = value;
  }
}

/** Deep equality; undefined members count as absent. */
export function equalJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (isArray(a) && isArray(b)) return a.length === b.length && a.every((item, index) => equalJson(item, b[index]));
  if (!isObject(a) || !isObject(b)) return false;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].every((key) => equalJson(a[key], b[key]));
}

const encoded = new WeakMap<JsonObject, string>();

/** The JSON text of a stored (never mutated) object, made once: lists, watches and the journal share it. */
export function encodeStored(object: JsonObject): string {
  let text = encoded.get(object);
  if (text === undefined) {
    text = JSON.stringify(object);
    encoded.set(object, text);
  }
  return text;
}
