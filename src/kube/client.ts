/**
 * The Kubernetes API, generic over a resource.
 *
 *   const client = createKubeClient(loadKubeConfig({ path }));
 *   const pod = await client.get<Pod>(pods, { namespace: 'demo', name: 'web-1' });
 *
 * Failures are KubeError (an answer that is not 2xx) or SluiceError (no usable answer).
 */

import type { KubeList, KubeObject } from '../api/kubernetes.ts';
import { apiVersionOf, resourceName, resourcePath, type GroupVersionResource } from '../api/resources.ts';
import { SluiceError } from '../core/error.ts';
import type { KubeConfig } from './config.ts';
import { isExpired } from './error.ts';
import { kubeLimits } from './limits.ts';
import { createTransport, type KubeRequest, type Transport, type TransportOptions } from './transport.ts';
import { readWatch, type WatchEvent, type WatchOptions } from './watch.ts';

export interface ObjectRef {
  /** Absent for cluster-scoped resources. */
  readonly namespace?: string | undefined;
  readonly name: string;
}

export interface ListOptions {
  /** Absent: all namespaces. */
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  readonly limit?: number | undefined;
  readonly continue?: string | undefined;
  readonly resourceVersion?: string | undefined;
}

export interface DeleteOptions {
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: 'Foreground' | 'Background' | 'Orphan';
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
}

/** RFC 7386, RFC 6902, and Kubernetes' own, which merges lists by key (built-in kinds only). */
export type PatchType = 'merge' | 'json' | 'strategic';

const patchContentTypes: Readonly<Record<PatchType, string>> = {
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  strategic: 'application/strategic-merge-patch+json',
};

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** "status", "scale", "binding" … */
  readonly subresource?: string | undefined;
  readonly dryRun?: boolean | undefined;
  readonly fieldManager?: string | undefined;
}

export class KubeClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  get<T extends KubeObject>(gvr: GroupVersionResource, ref: ObjectRef, options: CallOptions = {}): Promise<T> {
    return this.#call<T>('GET', 'get', gvr, ref, undefined, options);
  }

  /** Undefined instead of a 404. */
  async find<T extends KubeObject>(
    gvr: GroupVersionResource,
    ref: ObjectRef,
    options: CallOptions = {},
  ): Promise<T | undefined> {
    const list = await this.list<T>(
      gvr,
      { namespace: ref.namespace, fieldSelector: `metadata.name=${ref.name}` },
      options,
    );
    return list.items[0];
  }

  /** One page; items carry apiVersion and kind, which the API leaves out of lists. */
  async list<T extends KubeObject>(
    gvr: GroupVersionResource,
    { namespace, ...query }: ListOptions = {},
    { signal }: CallOptions = {},
  ): Promise<KubeList<T>> {
    const object = namespace === undefined ? resourceName(gvr) : `${resourceName(gvr)} in ${namespace}`;
    const answer = await this.#transport.json({
      method: 'GET',
      path: resourcePath(gvr, at(namespace)),
      query,
      signal,
      operation: 'list',
      object,
    });
    if (!isList<T>(answer)) throw badAnswer('list', object);
    const typed = { apiVersion: apiVersionOf(gvr), kind: gvr.kind };
    return { metadata: answer.metadata ?? {}, items: (answer.items ?? []).map((item) => ({ ...typed, ...item })) };
  }

  /** Every object, as of one resourceVersion. */
  async listAll<T extends KubeObject>(
    gvr: GroupVersionResource,
    options: ListOptions = {},
    call: CallOptions = {},
  ): Promise<KubeList<T>> {
    const items: T[] = [];
    let metadata: KubeList<T>['metadata'] = {};
    for await (const page of this.listPages<T>(gvr, options, call)) {
      if (page.startsAgain) items.length = 0;
      items.push(...page.items);
      metadata = page.metadata ?? {};
    }
    return { metadata, items };
  }

  /**
   * The same page by page, so that nobody need hold all objects whole. When the continue token expires, the list starts again
   * in one piece: what came before may be too old.
   */
  async *listPages<T extends KubeObject>(
    gvr: GroupVersionResource,
    options: ListOptions = {},
    call: CallOptions = {},
  ): AsyncGenerator<KubeList<T> & { readonly startsAgain: boolean }> {
    let token: string | undefined;
    do {
      let page: KubeList<T>;
      try {
        page = await this.list<T>(gvr, { ...options, limit: kubeLimits.pageSize, continue: token }, call);
      } catch (error) {
        if (token === undefined || !isExpired(error)) throw error;
        yield { ...(await this.list<T>(gvr, options, call)), startsAgain: true };
        return;
      }
      yield { ...page, startsAgain: false };
      token = page.metadata?.continue === '' ? undefined : page.metadata?.continue;
    } while (token !== undefined);
  }

  /** The namespace is the object's own. With a subresource, it is made below the object of that name. */
  create<T extends KubeObject>(gvr: GroupVersionResource, object: T, options: CallOptions = {}): Promise<T> {
    const { namespace, name, generateName } = object.metadata ?? {};
    const ref = options.subresource === undefined ? { namespace } : { namespace, name };
    return this.#call<T>(
      'POST',
      'create',
      gvr,
      { ...ref, shownName: name ?? generateName },
      typed(gvr, object, options),
      options,
    );
  }

  /** PUT; the server refuses it with a conflict when the object's resourceVersion is not the newest. */
  replace<T extends KubeObject>(gvr: GroupVersionResource, object: T, options: CallOptions = {}): Promise<T> {
    return this.#call<T>('PUT', 'replace', gvr, refOf(object), typed(gvr, object, options), options);
  }

  replaceStatus<T extends KubeObject>(gvr: GroupVersionResource, object: T, options: CallOptions = {}): Promise<T> {
    return this.replace(gvr, object, { ...options, subresource: 'status' });
  }

  patch<T extends KubeObject>(
    gvr: GroupVersionResource,
    ref: ObjectRef,
    patch: { readonly type: PatchType; readonly body: unknown },
    options: CallOptions = {},
  ): Promise<T> {
    return this.#call<T>('PATCH', 'patch', gvr, ref, patch.body, options, patchContentTypes[patch.type]);
  }

  /** Resolves when the deletion is accepted; finalizers and grace periods may keep the object for a while. */
  async delete(
    gvr: GroupVersionResource,
    ref: ObjectRef,
    deletion: DeleteOptions = {},
    options: CallOptions = {},
  ): Promise<void> {
    const body = { kind: 'DeleteOptions', apiVersion: 'v1', ...deletion };
    await this.#call<KubeObject>('DELETE', 'delete', gvr, ref, body, options);
  }

  /** Changes as they happen, until the server ends the stream or the signal is aborted. */
  async *watch<T extends KubeObject>(
    gvr: GroupVersionResource,
    options: WatchOptions,
    signal?: AbortSignal,
  ): AsyncGenerator<WatchEvent<T>> {
    const { namespace, ...query } = options;
    const request: KubeRequest = {
      method: 'GET',
      path: resourcePath(gvr, at(namespace)),
      query: { ...query, watch: true, allowWatchBookmarks: true },
      signal,
      operation: 'watch',
      object: resourceName(gvr),
    };
    yield* readWatch<T>(await this.#transport.open(request), request);
  }

  /** Any other path: "/version", "/readyz". */
  raw(path: string, signal?: AbortSignal): Promise<unknown> {
    return this.#transport.json({ method: 'GET', path, signal, operation: 'get', object: path });
  }

  /** Closes idle connections. */
  close(): void {
    this.#transport.close();
  }

  async #call<T extends KubeObject>(
    method: KubeRequest['method'],
    operation: string,
    gvr: GroupVersionResource,
    ref: {
      readonly namespace?: string | undefined;
      readonly name?: string | undefined;
      readonly shownName?: string | undefined;
    },
    body: unknown,
    { signal, subresource, dryRun, fieldManager }: CallOptions,
    contentType?: string,
  ): Promise<T> {
    const path = resourcePath(gvr, { ...at(ref.namespace), ...(ref.name === undefined ? {} : { name: ref.name }) });
    const answer = await this.#transport.json({
      method,
      path: subresource === undefined ? path : `${path}/${subresource}`,
      query: { dryRun: dryRun === true ? 'All' : undefined, fieldManager },
      body,
      contentType,
      signal,
      operation: subresource === undefined ? operation : `${operation} ${subresource} of`,
      object: describeRef(gvr, { namespace: ref.namespace, name: ref.name ?? ref.shownName }),
    });
    if (!isObject(answer)) throw badAnswer(operation, describeRef(gvr, ref));
    return answer as T;
  }
}

export function createKubeClient(config: KubeConfig, options: TransportOptions = {}): KubeClient {
  return new KubeClient(createTransport(config, options));
}

/** "Pod demo/web-1". */
export function describeRef(
  gvr: GroupVersionResource,
  ref: { readonly namespace?: string | undefined; readonly name?: string | undefined },
): string {
  const path = [ref.namespace, ref.name].filter((part) => part !== undefined).join('/');
  return `${gvr.kind} ${path}`;
}

function at(namespace: string | undefined): { namespace?: string } {
  return namespace === undefined ? {} : { namespace };
}

function refOf(object: KubeObject): ObjectRef {
  return { namespace: object.metadata?.namespace, name: object.metadata?.name ?? '' };
}

/** The type fields are filled in, except below a subresource, whose kind is its own (Binding, Scale, Eviction). */
function typed<T extends KubeObject>(gvr: GroupVersionResource, object: T, options: CallOptions): T {
  if (options.subresource !== undefined && options.subresource !== 'status') return object;
  return { apiVersion: apiVersionOf(gvr), kind: gvr.kind, ...object };
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isList<T>(value: unknown): value is { metadata?: KubeList<T>['metadata']; items?: readonly T[] | null } {
  if (!isObject(value)) return false;
  const { items } = value as { items?: unknown };
  return items === undefined || items === null || Array.isArray(items);
}

function badAnswer(operation: string, object: string): SluiceError {
  return new SluiceError({ code: 'kube_bad_answer', operation, object, what: 'the answer is not a Kubernetes object' });
}
