/** The objects an informer has seen last, by namespace/name, with indexes kept beside them. */

import type { KubeObject } from '../api/kubernetes.ts';

/** The index values of an object; an object may be found under several. */
export type IndexFunction<T> = (object: T) => readonly string[];

export class ObjectStore<T extends KubeObject> {
  readonly #objects = new Map<string, T>();
  readonly #functions: Readonly<Record<string, IndexFunction<T>>>;
  /** index name → value → keys */
  readonly #indexes = new Map<string, Map<string, Set<string>>>();

  constructor(indexes: Readonly<Record<string, IndexFunction<T>>>) {
    this.#functions = { ...indexes, [namespaceIndex]: (object) => [object.metadata?.namespace ?? ''] };
    for (const name of Object.keys(this.#functions)) this.#indexes.set(name, new Map());
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  keys(): string[] {
    return [...this.#objects.keys()];
  }

  values(): T[] {
    return [...this.#objects.values()];
  }

  /** Throws for an index that was not declared. */
  byIndex(name: string, value: string): T[] {
    const index = this.#indexes.get(name);
    if (index === undefined) throw new RangeError(`there is no index "${name}"`);
    return [...(index.get(value) ?? [])].flatMap((key) => this.#objects.get(key) ?? []);
  }

  set(key: string, object: T): void {
    this.delete(key);
    this.#objects.set(key, object);
    this.#eachIndexValue(object, (index, value) => {
      const keys = index.get(value);
      if (keys === undefined) index.set(value, new Set([key]));
      else keys.add(key);
    });
  }

  delete(key: string): void {
    const old = this.#objects.get(key);
    if (old === undefined) return;
    this.#objects.delete(key);
    this.#eachIndexValue(old, (index, value) => {
      const keys = index.get(value);
      keys?.delete(key);
      if (keys?.size === 0) index.delete(value);
    });
  }

  #eachIndexValue(object: T, visit: (index: Map<string, Set<string>>, value: string) => void): void {
    for (const [name, index] of this.#indexes) {
      for (const value of this.#functions[name]?.(object) ?? []) visit(index, value);
    }
  }
}

export const namespaceIndex = 'namespace';

/** "namespace/name", or "name" for what is cluster-scoped. */
export function objectKey(namespace: string | undefined, name: string): string {
  return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`;
}
