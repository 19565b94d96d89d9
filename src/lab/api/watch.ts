/** Watches: a stream of JSON lines from a resourceVersion on, through the request's selectors. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { randomInt } from 'node:crypto';
import { encodeStored, type KubeObject } from './json.ts';
import { filterOf, parseVersion, type ObjectFilter } from './list.ts';
import { encodeTable, type IncludeObject, type Representation } from './representation.ts';
import { apiVersionOf, type Resource } from './resource.ts';
import { expired, type ApiError } from './status.ts';
import type { Store, StoredEvent } from './store.ts';
import { serve } from './write.ts';

const bookmarkIntervalMs = 60_000;
/** Without timeoutSeconds a watch ends after 30 to 60 minutes, as in kube-apiserver (--min-request-timeout). */
const minTimeoutSeconds = 1800;
/** A client that lets this much pile up unread is cut off; it will watch again. */
const maxBufferedBytes = 16 * 1024 * 1024;

export interface WatchRequest {
  readonly store: Store;
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly name?: string | undefined;
  readonly query: URLSearchParams;
  readonly form: Representation;
  readonly include: IncludeObject;
  readonly nowMs: () => number;
}

export function serveWatch(watch: WatchRequest, request: IncomingMessage, response: ServerResponse): void {
  const filter = filterOf(watch.resource, watch.query, watch.name);
  const stream = new WatchStream(watch, filter, response);
  const from = watch.query.get('resourceVersion') ?? '';
  const initialEvents = watch.query.get('sendInitialEvents') === 'true';
  const start = from === '' || from === '0' || initialEvents ? undefined : parseVersion(from);
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-cache, private' });
  response.flushHeaders();
  const past = start === undefined ? [] : watch.store.eventsSince(watch.resource.bucket, start);
  if (past === undefined) {
    stream.error(expired(`too old resource version: ${start ?? 0} (${watch.store.oldestResourceVersion})`));
    response.end();
    return;
  }
  if (start === undefined) {
    if (watch.query.get('sendInitialEvents') !== 'false') stream.initial();
    if (initialEvents) stream.bookmark(true);
  }
  for (const event of past) stream.event(event);
  const unsubscribe = watch.store.subscribe((event) => stream.event(event));
  const seconds = Number(watch.query.get('timeoutSeconds') ?? 0) || minTimeoutSeconds + randomInt(minTimeoutSeconds);
  const timeout = setTimeout(() => response.end(), seconds * 1000);
  const bookmarks =
    watch.query.get('allowWatchBookmarks') === 'true'
      ? setInterval(() => stream.bookmark(false), bookmarkIntervalMs)
      : undefined;
  timeout.unref();
  bookmarks?.unref();
  response.once('close', () => {
    unsubscribe();
    clearTimeout(timeout);
    clearInterval(bookmarks);
  });
  request.resume();
}

class WatchStream {
  private readonly watch: WatchRequest;
  private readonly filter: ObjectFilter;
  private readonly response: ServerResponse;
  private tableHeadSent = false;

  constructor(watch: WatchRequest, filter: ObjectFilter, response: ServerResponse) {
    this.watch = watch;
    this.filter = filter;
    this.response = response;
  }

  initial(): void {
    const { store, resource, namespace } = this.watch;
    for (const stored of store.list(resource.bucket, namespace)) {
      const object = serve(resource, stored);
      if (this.filter(object)) this.send('ADDED', object);
    }
  }

  /** An object that begins or ceases to match the selectors is added or deleted for this watch. */
  event(event: StoredEvent): void {
    const { resource, namespace } = this.watch;
    if (event.bucket !== resource.bucket) return;
    if (namespace !== undefined && event.object.metadata.namespace !== namespace) return;
    const object = serve(resource, event.object);
    const matched = event.previous !== undefined && this.filter(serve(resource, event.previous));
    const matches = event.type !== 'DELETED' && this.filter(object);
    if (matches) this.send(matched ? 'MODIFIED' : 'ADDED', object);
    else if (matched) this.send('DELETED', withVersion(object, event.resourceVersion));
  }

  bookmark(endOfInitial: boolean): void {
    const { store, resource } = this.watch;
    const annotations = endOfInitial ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {};
    const object: KubeObject = {
      kind: resource.kind,
      apiVersion: apiVersionOf(resource),
      metadata: {
        name: '',
        resourceVersion: String(store.resourceVersion),
        creationTimestamp: undefined,
        ...annotations,
      },
    };
    const encoded =
      this.watch.form === 'table'
        ? this.table([], { resourceVersion: object.metadata.resourceVersion, ...annotations })
        : JSON.stringify({ ...object, metadata: { ...object.metadata, name: undefined } });
    this.write(`{"type":"BOOKMARK","object":${encoded}}\n`);
  }

  error(error: ApiError): void {
    this.write(`{"type":"ERROR","object":${JSON.stringify(error.toStatus())}}\n`);
  }

  private send(type: string, object: KubeObject): void {
    this.write(`{"type":"${type}","object":${this.encode(object)}}\n`);
  }

  private encode(object: KubeObject): string {
    switch (this.watch.form) {
      case 'object':
        return encodeStored(object);
      case 'metadata':
        return JSON.stringify({
          kind: 'PartialObjectMetadata',
          apiVersion: 'meta.k8s.io/v1',
          metadata: object.metadata,
        });
      case 'table':
        return this.table([object], { resourceVersion: object.metadata.resourceVersion ?? '' });
    }
  }

  /** The columns come with the first event only. */
  private table(objects: readonly KubeObject[], listMeta: Parameters<typeof encodeTable>[4]): string {
    const first = !this.tableHeadSent;
    this.tableHeadSent = true;
    return encodeTable(this.watch.resource, objects, this.watch.include, this.watch.nowMs(), listMeta, first);
  }

  private write(line: string): void {
    if (this.response.writableEnded || this.response.destroyed) return;
    if (this.response.writableLength > maxBufferedBytes) this.response.destroy();
    else this.response.write(line);
  }
}

function withVersion(object: KubeObject, resourceVersion: number): KubeObject {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(resourceVersion) } };
}
