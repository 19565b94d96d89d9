/**
 * A few resources of an API server over plain HTTP, whose faults a test commands: for what a real one can not be
 * asked to do at will. For tests only; the lab's API server is the full one.
 */

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { KubeObject, ObjectMeta } from '../api/kubernetes.ts';
import { KubeConfig } from './config.ts';

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: unknown;
}

export interface TestAnswer {
  readonly status?: number;
  readonly headers?: http.OutgoingHttpHeaders;
  readonly body?: unknown;
}

export class TestApi implements AsyncDisposable {
  readonly requests: SeenRequest[] = [];
  /** Decides before anything else; undefined lets the server answer as it would. */
  intercept: (request: SeenRequest) => TestAnswer | 'reset' | undefined = () => undefined;
  readonly #server: http.Server;
  readonly #objects = new Map<string, KubeObject>();
  readonly #watches = new Set<http.ServerResponse>();
  #version = 100;
  /** Watches from an older version are answered with 410. */
  #oldestVersion = 0;
  #history: { readonly version: number; readonly line: string }[] = [];

  private constructor() {
    this.#server = http.createServer((request, response) => void this.#answer(request, response));
  }

  static async start(): Promise<TestApi> {
    const api = new TestApi();
    await new Promise<void>((resolve) => api.#server.listen(0, '127.0.0.1', resolve));
    return api;
  }

  get kubeConfig(): KubeConfig {
    const config = new KubeConfig();
    const { port } = this.#server.address() as AddressInfo;
    config.loadFromClusterAndUser(
      { name: 'test', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
      { name: 'test', token: 'secret' },
    );
    return config;
  }

  get version(): number {
    return this.#version;
  }

  get openWatches(): number {
    return this.#watches.size;
  }

  /** Creates or changes an object; `silently` as if the event had been missed. */
  put(
    name: string,
    metadata: ObjectMeta = {},
    options: { readonly silently?: boolean; readonly namespace?: string } = {},
  ): KubeObject {
    const namespace = options.namespace ?? 'demo';
    const old = this.#objects.get(`${namespace}/${name}`);
    const object: KubeObject = {
      metadata: {
        namespace,
        name,
        uid: old?.metadata?.uid ?? `uid-${this.#version}`,
        ...metadata,
        resourceVersion: String(++this.#version),
      },
    };
    this.#objects.set(`${namespace}/${name}`, object);
    this.#record(old === undefined ? 'ADDED' : 'MODIFIED', object, options.silently);
    return object;
  }

  remove(name: string, options: { readonly silently?: boolean; readonly namespace?: string } = {}): void {
    const key = `${options.namespace ?? 'demo'}/${name}`;
    const old = this.#objects.get(key);
    this.#objects.delete(key);
    const object = { ...old, metadata: { ...old?.metadata, resourceVersion: String(++this.#version) } };
    this.#record('DELETED', object, options.silently);
  }

  /** Forgets all changes so far, as etcd's compaction does. */
  compact(): void {
    this.#oldestVersion = this.#version;
    this.#history = [];
  }

  bookmark(): void {
    this.send({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(++this.#version) } } });
  }

  /** Any line on every watch. */
  send(event: unknown): void {
    for (const watch of this.#watches) watch.write(`${JSON.stringify(event)}\n`);
  }

  endWatches(how: 'end' | 'reset'): void {
    for (const watch of this.#watches) {
      if (how === 'end') watch.end();
      else watch.destroy();
    }
    this.#watches.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #record(type: string, object: KubeObject, silently = false): void {
    if (silently) return;
    const line = JSON.stringify({ type, object });
    this.#history.push({ version: this.#version, line });
    for (const watch of this.#watches) watch.write(`${line}\n`);
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', 'http://api');
    const raw = await text(request);
    const seen: SeenRequest = {
      method: request.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: raw === '' ? undefined : JSON.parse(raw),
    };
    this.requests.push(seen);
    const answer = this.intercept(seen);
    if (answer === 'reset') request.socket.destroy();
    else if (answer !== undefined) sendJson(response, answer);
    else if (url.searchParams.get('watch') === 'true')
      this.#watch(Number(url.searchParams.get('resourceVersion')), response);
    else sendJson(response, this.#list(url.searchParams));
  }

  #list(query: URLSearchParams): TestAnswer {
    const items = [...this.#objects.values()];
    const limit = Number(query.get('limit') ?? items.length);
    const start = Number(query.get('continue') ?? 0);
    const next = start + limit < items.length ? String(start + limit) : '';
    return {
      body: {
        kind: 'List',
        metadata: { resourceVersion: String(this.#version), continue: next },
        items: items.slice(start, start + limit),
      },
    };
  }

  #watch(fromVersion: number, response: http.ServerResponse): void {
    response.writeHead(200, { 'content-type': 'application/json' });
    if (fromVersion < this.#oldestVersion) {
      response.end(`${JSON.stringify({ type: 'ERROR', object: expired })}\n`);
      return;
    }
    response.flushHeaders();
    for (const { version, line } of this.#history) if (version > fromVersion) response.write(`${line}\n`);
    this.#watches.add(response);
    response.on('close', () => this.#watches.delete(response));
  }
}

export const expired = {
  kind: 'Status',
  status: 'Failure',
  reason: 'Expired',
  code: 410,
  message: 'too old resource version',
};

function sendJson(response: http.ServerResponse, { status = 200, headers = {}, body = {} }: TestAnswer): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
}

/** Waits for a condition that another process or socket brings about; fails after 10 s with the description. */
export async function eventually(description: string, condition: () => boolean): Promise<void> {
  const giveUpMs = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > giveUpMs) throw new Error(`did not happen: ${description}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
