import { forbidden, type FieldError } from '../api/field-error.ts';
import { spiderFinalizer } from '../api/spider.ts';
import type { SpiderObjectMeta } from '../api/spider-schema.ts';

interface Deleted {
  readonly metadata: SpiderObjectMeta;
  readonly spec?: object | undefined;
}

/** Nothing may change while an object waits for its end, except that its finalizer goes. */
export function validateTerminating(object: Deleted, old: Deleted, kind: string, until: string): FieldError[] {
  const before = (old.metadata.finalizers ?? []).filter((finalizer) => finalizer !== spiderFinalizer);
  const after = (object.metadata.finalizers ?? []).filter((finalizer) => finalizer !== spiderFinalizer);
  const sameSpec = JSON.stringify(sortKeys(object.spec)) === JSON.stringify(sortKeys(old.spec));
  if (sameSpec && after.every((finalizer) => before.includes(finalizer))) return [];
  return [forbidden('metadata.deletionTimestamp', `cannot update a terminating ${kind}, ${until}`)];
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort()
      .map(([key, inner]) => [key, sortKeys(inner)]),
  );
}
