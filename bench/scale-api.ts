/**
 * The part of the Kubernetes API that an agent uses, over TLS, from objects that are kept as text: lists in pages, watches,
 * single objects. Lean, so that what is measured is the agent and not the server; it runs in the process that measures, so
 * that a change and what it causes are timed with one clock.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KubeObject } from '../src/api/kubernetes.ts';
import {
  apiVersionOf,
  namespaces,
  networkPolicies,
  nodes,
  pods,
  resourcePath,
  spiderIPPools,
  type GroupVersionResource,
} from '../src/api/resources.ts';
import { createCredentials, formatKubeconfig } from '../src/lab/api/credentials.ts';
import type { ScaleWorld } from './scale-world.ts';

interface Collection {
  readonly gvr: GroupVersionResource;
  readonly objects: Map<string, { readonly namespace: string; text: string }>;
  readonly watches: Set<http.ServerResponse>;
}

export class ScaleApi implements AsyncDisposable {
  readonly kubeConfigPath: string;
  readonly #dir: string;
  readonly #server: https.Server;
  readonly #collections = new Map<string, Collection>();
  #version = 1;

  private constructor(server: https.Server, kubeConfig: (url: string) => string) {
    this.#server = server;
    this.#dir = mkdtempSync(join(tmpdir(), 'sluice-bench-api-'));
    this.kubeConfigPath = join(this.#dir, 'kubeconfig');
    const { port } = server.address() as AddressInfo;
    writeFileSync(this.kubeConfigPath, kubeConfig(`https://127.0.0.1:${port}`), { mode: 0o600 });
    server.on('request', (request, response) => this.#answer(request, response));
  }

  static async start(world: ScaleWorld): Promise<ScaleApi> {
    const { caCert, serverCert, serverKey, token } = await createCredentials(Date.now());
    const server = https.createServer({ key: serverKey, cert: serverCert });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const api = new ScaleApi(server, (url) => formatKubeconfig({ server: url, caCert, token }));
    api.#fill(pods, world.pods);
    api.#fill(namespaces, world.namespaces);
    api.#fill(nodes, world.nodes);
    api.#fill(networkPolicies, world.policies);
    api.#fill(spiderIPPools, []);
    return api;
  }

  /** Bytes of all lists together. */
  get size(): number {
    let bytes = 0;
    for (const { objects } of this.#collections.values()) for (const { text } of objects.values()) bytes += text.length;
    return bytes;
  }

  /** Keeps the object and sends it to every watch. Answers when it was sent (performance.now). */
  put(gvr: GroupVersionResource, object: KubeObject): number {
    const collection = this.#collections.get(resourcePath(gvr));
    if (collection === undefined) throw new RangeError(`no collection of ${gvr.plural}`);
    const text = this.#keep(collection, object);
    const line = `{"type":"MODIFIED","object":${text}}\n`;
    const sentMs = performance.now();
    for (const watch of collection.watches) watch.write(line);
    return sentMs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #fill(gvr: GroupVersionResource, objects: readonly KubeObject[]): void {
    const collection: Collection = { gvr, objects: new Map(), watches: new Set() };
    this.#collections.set(resourcePath(gvr), collection);
    for (const object of objects) this.#keep(collection, object);
  }

  #keep({ gvr, objects }: Collection, object: KubeObject): string {
    const { namespace = '', name = '' } = object.metadata ?? {};
    const metadata = { ...object.metadata, resourceVersion: String(++this.#version) };
    const text = JSON.stringify({ apiVersion: apiVersionOf(gvr), kind: gvr.kind, ...object, metadata });
    objects.set(`${namespace}/${name}`, { namespace, text });
    return text;
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const url = new URL(request.url ?? '/', 'https://localhost');
    const { namespace, name, collection } = this.#resolve(url.pathname);
    if (request.method !== 'GET') {
      // Events that the agent reports.
      request.resume();
      return end(response, 201, '{"kind":"Event","apiVersion":"v1","metadata":{"name":"e"}}');
    }
    if (collection === undefined) return notFound(response);
    if (name !== undefined) {
      const found = collection.objects.get(`${namespace ?? ''}/${name}`);
      return found === undefined ? notFound(response) : end(response, 200, found.text);
    }
    if (url.searchParams.get('watch') === 'true') return this.#watch(collection, request, response);
    this.#list(collection, namespace, url.searchParams, response);
  }

  /** "/api/v1/namespaces/a/pods/b" → the collection of "/api/v1/pods". */
  #resolve(path: string): { namespace?: string; name?: string; collection?: Collection } {
    const scoped = /^(.*)\/namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+))?$/.exec(path);
    const [, root = '', namespace = '', plural = '', name] = scoped ?? [];
    if (scoped !== null) return { namespace, ...(name && { name }), ...this.#collectionAt(`${root}/${plural}`) };
    const whole = this.#collectionAt(path);
    if (whole.collection !== undefined) return whole;
    const slash = path.lastIndexOf('/');
    return { name: path.slice(slash + 1), ...this.#collectionAt(path.slice(0, slash)) };
  }

  #collectionAt(path: string): { collection?: Collection } {
    const collection = this.#collections.get(path);
    return collection === undefined ? {} : { collection };
  }

  #list(collection: Collection, namespace: string | undefined, query: URLSearchParams, response: http.ServerResponse) {
    const limit = Number(query.get('limit') ?? 0) || Infinity;
    const start = Number(query.get('continue') ?? 0);
    const all = [...collection.objects.values()].filter(
      (object) => namespace === undefined || object.namespace === namespace,
    );
    const page = all.slice(start, start + limit);
    const rest = start + page.length < all.length ? `"continue":"${start + page.length}",` : '';
    const metadata = `{${rest}"resourceVersion":"${this.#version}"}`;
    const { gvr } = collection;
    end(
      response,
      200,
      `{"kind":"${gvr.kind}List","apiVersion":"${apiVersionOf(gvr)}","metadata":${metadata},"items":[${page.map(({ text }) => text).join(',')}]}`,
    );
  }

  #watch(collection: Collection, request: http.IncomingMessage, response: http.ServerResponse): void {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    collection.watches.add(response);
    request.on('close', () => collection.watches.delete(response));
  }
}

function end(response: http.ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

function notFound(response: http.ServerResponse): void {
  end(response, 404, '{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}');
}
