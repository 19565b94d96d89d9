import { spiderFinalizer } from '../api/spider.ts';

interface Finalized {
  readonly metadata: { readonly finalizers?: readonly string[] | undefined };
}

/** The object without Spiderpool's finalizer; undefined when it has none: whoever else holds it is not ours to judge. */
export function withoutSpiderFinalizer<T extends Finalized>(object: T): T | undefined {
  const before = object.metadata.finalizers ?? [];
  const finalizers = before.filter((finalizer) => finalizer !== spiderFinalizer);
  return finalizers.length === before.length ? undefined : { ...object, metadata: { ...object.metadata, finalizers } };
}
