/**
 * A local copy of a resource that follows the API server.
 *
 *   list ──► watch from the list's resourceVersion ──► (stream ends) ──► watch from the last version seen
 *    ▲                                                  │ 410 or a damaged stream
 *    └──────────────── backoff with jitter ◄────────────┘
 *
 * Events are delivered in the order of the server. An event whose version is not newer than the copy's is dropped.
 * After a relist, what vanished meanwhile is delivered as a delete with its last known state, and an object made
 * again under the same name (another uid) as a delete and an add.
 */

import type { KubeObject } from '../api/kubernetes.ts';
import { resourceName, type GroupVersionResource } from '../api/resources.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from './client.ts';
import { isExpired, isNotFound, KubeError } from './error.ts';
import { kubeLimits } from './limits.ts';
import { namespaceIndex, objectKey, ObjectStore, type IndexFunction } from './store.ts';
import type { WatchEvent } from './watch.ts';

export interface InformerOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly gvr: GroupVersionResource;
  /** Absent: all namespaces. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  readonly indexes?: Readonly<Record<string, IndexFunction<T>>> | undefined;
  /** What is kept of each object. The default drops managedFields, which can be most of an object. */
  readonly transform?: ((object: T) => T) | undefined;
  readonly log: Logger;
  readonly clock?: Clock | undefined;
  /** 0 ≤ x < 1. */
  readonly random?: (() => number) | undefined;
}

export interface InformerHandlers<T> {
  add: (object: T) => void;
  update: (object: T, old: T) => void;
  delete: (last: T) => void;
}

const initialBackoffMs = 200;
/** As client-go: between 5 and 10 minutes, so that not all watches end at once. */
const minWatchSeconds = 300;
/** A stream that the server ends sooner counts as a failure, or we would spin on it. */
const healthyWatchMs = 1_000;

export class Informer<T extends KubeObject> {
  /** Resolves when the first list has been delivered; rejects if the informer is stopped before. */
  readonly synced: Promise<void>;
  /** As `synced`, and also when the server says that it does not serve the resource: there are none then. */
  readonly settled: Promise<void>;
  readonly #options: InformerOptions<T>;
  readonly #clock: Clock;
  readonly #store: ObjectStore<T>;
  readonly #handlers: { [K in keyof InformerHandlers<T>]: InformerHandlers<T>[K][] } = {
    add: [],
    update: [],
    delete: [],
  };
  #resourceVersion: string | undefined;
  #failures = 0;
  #hasSynced = false;
  #connected = false;
  /** The server does not serve the resource: its definition is not there. */
  #absent = false;
  #resolveSynced: () => void = () => undefined;
  #resolveSettled: () => void = () => undefined;
  #rejectSynced: (error: Error) => void = () => undefined;

  constructor(options: InformerOptions<T>) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#store = new ObjectStore(options.indexes ?? {});
    this.synced = new Promise((resolve, reject) => {
      this.#resolveSynced = resolve;
      this.#rejectSynced = reject;
    });
    this.synced.catch(() => undefined);
    const absent = new Promise<void>((resolve) => (this.#resolveSettled = resolve));
    this.settled = Promise.race([this.synced, absent]);
    this.settled.catch(() => undefined);
  }

  /** Handlers are called with the copy already changed; what they throw is logged. Register before `start`. */
  on<K extends keyof InformerHandlers<T>>(event: K, handler: InformerHandlers<T>[K]): this {
    this.#handlers[event].push(handler);
    return this;
  }

  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** Whether the last request succeeded; the copy may be old otherwise. */
  get connected(): boolean {
    return this.#connected;
  }

  get size(): number {
    return this.#store.size;
  }

  get(namespace: string | undefined, name: string): T | undefined {
    return this.#store.get(objectKey(namespace, name));
  }

  /** All objects, or those of one namespace; the order is that of arrival. */
  list(namespace?: string): T[] {
    return namespace === undefined ? this.#store.values() : this.#store.byIndex(namespaceIndex, namespace);
  }

  byIndex(name: string, value: string): T[] {
    return this.#store.byIndex(name, value);
  }

  /**
   * Takes in an object that was read from the server aside of the stream, which may lag behind it. What the stream has
   * already passed (a version at or below the last one seen) is ignored: if it is not in the copy, it was deleted.
   */
  observe(object: T): void {
    const passed: KubeObject = { metadata: { resourceVersion: this.#resourceVersion ?? '0' } };
    if (this.get(object.metadata?.namespace, object.metadata?.name ?? '') === undefined && !isOlder(passed, object))
      return;
    const { transform = dropManagedFields } = this.#options;
    this.#upsert(transform(object));
  }

  /** Follows the server until the signal is aborted; never rejects. */
  async start(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#follow(signal);
      } catch (error) {
        if (signal.aborted) break;
        await this.#recover(error, signal);
      }
    }
    this.#connected = false;
    const object = resourceName(this.#options.gvr);
    this.#rejectSynced(
      new SluiceError({ code: 'cancelled', operation: 'list', object, what: 'the informer was stopped' }),
    );
  }

  async #follow(signal: AbortSignal): Promise<void> {
    if (this.#resourceVersion === undefined) await this.#relist(signal);
    const startedMs = this.#clock.monotonicMs();
    const { client, gvr, namespace, labelSelector, fieldSelector } = this.#options;
    const timeoutSeconds = Math.round(minWatchSeconds * (1 + this.#random()));
    const options = { namespace, labelSelector, fieldSelector, resourceVersion: this.#resourceVersion, timeoutSeconds };
    let events = 0;
    for await (const event of client.watch<T>(gvr, options, signal)) {
      this.#succeeded();
      this.#apply(event);
      events++;
    }
    if (events === 0 && this.#clock.monotonicMs() - startedMs < healthyWatchMs) {
      throw new Error('the server ended the watch at once');
    }
    this.#succeeded();
  }

  async #relist(signal: AbortSignal): Promise<void> {
    const { client, gvr, namespace, labelSelector, fieldSelector, transform = dropManagedFields } = this.#options;
    // No resourceVersion: the server answers with the newest state, never with an older one than we may have seen.
    const pages = client.listPages<T>(gvr, { namespace, labelSelector, fieldSelector }, { signal });
    const seen = new Set<string>();
    let version: string | undefined;
    for await (const { items, metadata, startsAgain } of pages) {
      if (startsAgain) seen.clear();
      for (const object of items) {
        seen.add(keyOf(object));
        this.#upsert(transform(object));
      }
      version = metadata?.resourceVersion;
    }
    // What `observe` took in while the list was under way is newer than the list; the watch will deliver it.
    const listed: KubeObject = { metadata: { resourceVersion: version ?? '0' } };
    for (const key of this.#store.keys()) {
      if (seen.has(key)) continue;
      const last = this.#store.get(key);
      if (last === undefined || !isNewerNumber(last, listed)) this.#remove(key);
    }
    this.#resourceVersion = version ?? '';
    this.#connected = true;
    this.#notePresent();
    if (!this.#hasSynced) {
      this.#hasSynced = true;
      this.#resolveSynced();
    }
  }

  #apply(event: WatchEvent<T>): void {
    const { transform = dropManagedFields } = this.#options;
    const version = event.object.metadata?.resourceVersion;
    if (event.type === 'DELETED') {
      const known = this.#store.get(keyOf(event.object));
      if (known?.metadata?.uid === event.object.metadata?.uid)
        this.#remove(keyOf(event.object), transform(event.object));
    } else if (event.type !== 'BOOKMARK') {
      this.#upsert(transform(event.object));
    }
    if (version !== undefined && version !== '') this.#resourceVersion = version;
  }

  #upsert(object: T): void {
    const key = keyOf(object);
    const old = this.#store.get(key);
    if (old !== undefined && old.metadata?.uid !== object.metadata?.uid) {
      if (isOlder(object, old)) return;
      this.#remove(key);
    } else if (old !== undefined) {
      if (!isOlder(old, object)) return;
      this.#store.set(key, object);
      for (const handler of this.#handlers.update) this.#deliver(() => handler(object, old));
      return;
    }
    this.#store.set(key, object);
    for (const handler of this.#handlers.add) this.#deliver(() => handler(object));
  }

  #remove(key: string, last?: T): void {
    const old = this.#store.get(key);
    if (old === undefined) return;
    this.#store.delete(key);
    for (const handler of this.#handlers.delete) this.#deliver(() => handler(last ?? old));
  }

  #deliver(handle: () => void): void {
    try {
      handle();
    } catch (error) {
      const fields = { resource: resourceName(this.#options.gvr) };
      this.#options.log.error(fields, `informer handler failed: ${formatErrorChain(error)}`);
    }
  }

  #succeeded(): void {
    this.#failures = 0;
    this.#connected = true;
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    this.#connected = false;
    // Any answer but "try again" means that the version does not serve: only a new list tells what is true.
    if (error instanceof KubeError && error.httpStatus < 500 && error.httpStatus !== 429)
      this.#resourceVersion = undefined;
    this.#failures++;
    const pauseMs = this.#backoffMs(error);
    const fields = {
      resource: resourceName(this.#options.gvr),
      failures: this.#failures,
      retryInMs: Math.round(pauseMs),
    };
    if (isNotFound(error)) this.#noteAbsent(fields);
    else
      this.#options.log[isExpired(error) ? 'info' : 'warn'](
        fields,
        `informer lost its stream: ${formatErrorChain(error)}`,
      );
    await this.#clock.sleep(pauseMs, signal).catch(() => undefined);
  }

  /** Ordinary where a definition is optional (Multus', KubeVirt's) or not applied yet, so it is said once. */
  #noteAbsent(fields: object): void {
    this.#options.log[this.#absent ? 'debug' : 'warn'](
      fields,
      'the API server does not serve the resource: its definition is missing; apply it if the feature is wanted',
    );
    this.#absent = true;
    this.#resolveSettled();
  }

  #notePresent(): void {
    if (!this.#absent) return;
    this.#absent = false;
    this.#options.log.info({ resource: resourceName(this.#options.gvr) }, 'the API server serves the resource now');
  }

  /** Doubling, up to half longer at random; the server's own wish if it is longer. */
  #backoffMs(error: unknown): number {
    const base = Math.min(initialBackoffMs * 2 ** (this.#failures - 1), kubeLimits.maxBackoffMs);
    const wishMs = error instanceof KubeError ? (error.retryAfterMs ?? 0) : 0;
    return Math.max(base * (1 + this.#random() / 2), wishMs);
  }

  #random(): number {
    return (this.#options.random ?? Math.random)();
  }
}

function keyOf(object: KubeObject): string {
  return objectKey(object.metadata?.namespace, object.metadata?.name ?? '');
}

/**
 * Whether `a` is of an older version than `b`. Versions are compared as numbers, which clients may do since
 * Kubernetes 1.35 (KEP-5504) and which etcd's revisions always allowed; what is no number is taken as newer.
 */
function isOlder(a: KubeObject, b: KubeObject): boolean {
  const versionA = a.metadata?.resourceVersion ?? '';
  const versionB = b.metadata?.resourceVersion ?? '';
  if (!/^\d+$/.test(versionA) || !/^\d+$/.test(versionB)) return versionA !== versionB;
  return versionA.length !== versionB.length ? versionA.length < versionB.length : versionA < versionB;
}

/** As `isOlder(b, a)`, but false when that cannot be told. */
function isNewerNumber(a: KubeObject, b: KubeObject): boolean {
  const numeric = [a, b].every((object) => /^\d+$/.test(object.metadata?.resourceVersion ?? ''));
  return numeric && isOlder(b, a);
}

function dropManagedFields<T extends KubeObject>(object: T): T {
  if (object.metadata === undefined || !('managedFields' in object.metadata)) return object;
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}
