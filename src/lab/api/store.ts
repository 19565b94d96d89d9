/**
 * The object store: one increasing resourceVersion for everything, a window of past events for watches, and optional
 * durability through a journal. Objects handed in and out are shared and must never be mutated.
 */
import type { KubeObject } from './json.ts';
import type { Journal, JournalEntry } from './journal.ts';

export interface StoredEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly resourceVersion: number;
  /** "group/plural", "" for the core group: one bucket per stored resource. */
  readonly bucket: string;
  readonly key: string;
  /** For DELETED the last state, carrying the resourceVersion of the deletion. */
  readonly object: KubeObject;
  readonly previous?: KubeObject | undefined;
}

/** Events kept for watches and for lists at a past resourceVersion. */
export const historyLimit = 20_000;

export type StoreListener = (event: StoredEvent) => void;

export class RevisionConflict extends Error {}
export class KeyExists extends Error {}
export class KeyMissing extends Error {}

export class Store {
  private readonly buckets = new Map<string, Map<string, KubeObject>>();
  private readonly listeners = new Set<StoreListener>();
  private readonly journal: Journal | undefined;
  private history: StoredEvent[] = [];
  private revision = 1;
  /** The newest resourceVersion whose event is no longer in the history. */
  private compacted = 1;

  constructor(journal?: Journal) {
    this.journal = journal;
    if (journal === undefined) return;
    const recovered = journal.recover();
    this.revision = Math.max(1, recovered.snapshotRevision);
    this.compacted = this.revision;
    for (const { bucket, key, object } of recovered.snapshot) this.bucket(bucket).set(key, object);
    for (const entry of recovered.entries) this.replay(entry);
  }

  get resourceVersion(): number {
    return this.revision;
  }

  get oldestResourceVersion(): number {
    return this.compacted;
  }

  get(bucket: string, key: string): KubeObject | undefined {
    return this.buckets.get(bucket)?.get(key);
  }

  /** Sorted by key, as etcd lists. A namespace selects the keys that begin with "namespace/". */
  list(bucket: string, namespace?: string): KubeObject[] {
    return select(this.buckets.get(bucket) ?? new Map<string, KubeObject>(), namespace);
  }

  /** The bucket as it was at a past resourceVersion; undefined when that is older than the history. */
  listAt(bucket: string, resourceVersion: number, namespace?: string): KubeObject[] | undefined {
    if (resourceVersion < this.compacted) return undefined;
    const past = new Map(this.buckets.get(bucket));
    for (let index = this.history.length - 1; index >= 0; index--) {
      const event = this.history[index];
      if (event === undefined || event.resourceVersion <= resourceVersion) break;
      if (event.bucket !== bucket) continue;
      if (event.previous === undefined) past.delete(event.key);
      else past.set(event.key, event.previous);
    }
    return select(past, namespace);
  }

  bucketNames(): string[] {
    return [...this.buckets].filter(([, objects]) => objects.size > 0).map(([name]) => name);
  }

  create(bucket: string, key: string, object: KubeObject): KubeObject {
    if (this.get(bucket, key) !== undefined) throw new KeyExists(key);
    return this.commit('ADDED', bucket, key, object, undefined);
  }

  /** Replaces the object if its resourceVersion is still `expected`. */
  update(bucket: string, key: string, object: KubeObject, expected: string | undefined): KubeObject {
    const previous = this.get(bucket, key);
    if (previous === undefined) throw new KeyMissing(key);
    if (previous.metadata.resourceVersion !== expected) throw new RevisionConflict(key);
    return this.commit('MODIFIED', bucket, key, object, previous);
  }

  delete(bucket: string, key: string, expected: string | undefined): KubeObject {
    const previous = this.get(bucket, key);
    if (previous === undefined) throw new KeyMissing(key);
    if (previous.metadata.resourceVersion !== expected) throw new RevisionConflict(key);
    return this.commit('DELETED', bucket, key, previous, previous);
  }

  /** Called synchronously after every change, in order. */
  subscribe(listener: StoreListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The bucket's events after the resourceVersion; undefined when some of them are no longer known. */
  eventsSince(bucket: string, resourceVersion: number): StoredEvent[] | undefined {
    if (resourceVersion < this.compacted) return undefined;
    const events: StoredEvent[] = [];
    for (let index = this.history.length - 1; index >= 0; index--) {
      const event = this.history[index];
      if (event === undefined || event.resourceVersion <= resourceVersion) break;
      if (event.bucket === bucket) events.push(event);
    }
    return events.reverse();
  }

  close(): void {
    this.listeners.clear();
    this.journal?.close();
  }

  private bucket(name: string): Map<string, KubeObject> {
    let objects = this.buckets.get(name);
    if (objects === undefined) {
      objects = new Map();
      this.buckets.set(name, objects);
    }
    return objects;
  }

  private commit(
    type: StoredEvent['type'],
    bucket: string,
    key: string,
    object: KubeObject,
    previous: KubeObject | undefined,
  ): KubeObject {
    const resourceVersion = this.revision + 1;
    const stored: KubeObject = {
      ...object,
      metadata: { ...object.metadata, resourceVersion: String(resourceVersion) },
    };
    this.journal?.append({ type, resourceVersion, bucket, key, object: stored });
    this.apply({ type, resourceVersion, bucket, key, object: stored, previous });
    if (this.journal?.wantsSnapshot() === true) this.journal.snapshot(this.revision, this.everything());
    return stored;
  }

  private apply(event: StoredEvent): void {
    this.revision = event.resourceVersion;
    if (event.type === 'DELETED') this.bucket(event.bucket).delete(event.key);
    else this.bucket(event.bucket).set(event.key, event.object);
    this.history.push(event);
    // Cut in large steps: shift() on every event would cost O(n) each.
    if (this.history.length > historyLimit * 1.25) {
      const cut = this.history.length - historyLimit;
      this.compacted = this.history[cut - 1]?.resourceVersion ?? this.compacted;
      this.history = this.history.slice(cut);
    }
    for (const listener of [...this.listeners]) listener(event);
  }

  private replay(entry: JournalEntry): void {
    if (entry.resourceVersion <= this.revision) return;
    this.apply({ ...entry, previous: this.get(entry.bucket, entry.key) });
  }

  private *everything(): Iterable<{ bucket: string; key: string; object: KubeObject }> {
    for (const [bucket, objects] of this.buckets) {
      for (const [key, object] of objects) yield { bucket, key, object };
    }
  }
}

function select(objects: ReadonlyMap<string, KubeObject>, namespace: string | undefined): KubeObject[] {
  const prefix = namespace === undefined ? '' : `${namespace}/`;
  const keys = [...objects.keys()].filter((key) => key.startsWith(prefix));
  // '/' sorts before every character of a name except '-' and '.'; etcd compares bytes, and so does this.
  keys.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return keys.flatMap((key) => objects.get(key) ?? []);
}
