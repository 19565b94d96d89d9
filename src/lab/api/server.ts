/**
 * The embedded Kubernetes API server: TLS, bearer tokens, discovery and resources over node's own HTTP.
 * docs/reference/lab-api.md is the list of what it offers.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { systemClock, type Clock } from '../../core/clock.ts';
import { silentLogger, type Logger } from '../../core/log.ts';
import { Admission } from './admission.ts';
import { attributesOf, authorize, type Requester } from './authorizer.ts';
import * as discovery from './discovery.ts';
import { expireEvents, seedObjects } from './housekeeping.ts';
import type { JsonObject } from './json.ts';
import { kubeletRoutes, kubeletTarget, proxyUpgrade, type KubeletSocket } from './kubelet-proxy.ts';
import { openapiDocument, openapiIndex } from './openapi.ts';
import { parseResourcePath } from './path.ts';
import { Registry } from './registry.ts';
import { sendDocument, serveResource, type Exchange, type RequestParts } from './requests.ts';
import { ApiError, badRequest, internalError, pathNotFound } from './status.ts';
import type { Store } from './store.ts';
import { Sweeper } from './sweep.ts';
import { getObject } from './write.ts';

export interface ApiToken {
  readonly token: string;
  readonly user: string;
  readonly groups?: readonly string[];
}

export interface ApiServerOptions {
  readonly store: Store;
  /** PEM. */
  readonly tls: { readonly key: string; readonly cert: string };
  readonly tokens: readonly ApiToken[];
  /** The unix socket of a node's kubelet, for exec, attach, port-forward and logs. */
  readonly kubeletSocket?: KubeletSocket;
  readonly log?: Logger;
  readonly clock?: Clock;
}

export interface ApiServer {
  /** For a server of the caller's own, beside listen() and listenFd(). */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  /** May be called several times; port 0 picks a free one. Returns the port. */
  listen(host: string, port: number): Promise<number>;
  /** Serves on a listening socket made elsewhere, for instance in another network namespace. */
  listenFd(fd: number): Promise<void>;
  close(): Promise<void>;
  /** https URL of the first address listened on. */
  readonly url: string;
}

const eventExpiryIntervalMs = 60_000;

export function createApiServer(options: ApiServerOptions): ApiServer {
  return new EmbeddedApiServer(options);
}

class EmbeddedApiServer implements ApiServer {
  private readonly options: ApiServerOptions;
  private readonly log: Logger;
  private readonly parts: RequestParts;
  private readonly sweeper: Sweeper;
  private readonly servers: Server[] = [];
  private readonly sockets = new Set<Socket>();
  private readonly expiry: NodeJS.Timeout;
  private firstUrl = '';

  constructor(options: ApiServerOptions) {
    this.options = options;
    this.log = options.log ?? silentLogger;
    const clock = options.clock ?? systemClock;
    const { store } = options;
    this.parts = {
      store,
      clock,
      registry: new Registry(store),
      admission: new Admission(store, this.log),
      kubeletSocket: options.kubeletSocket ?? (() => undefined),
    };
    seedObjects(store, clock.nowMs());
    this.sweeper = new Sweeper(this.parts, this.log);
    this.expiry = setInterval(() => expireEvents(store, clock.nowMs()), eventExpiryIntervalMs);
    this.expiry.unref();
  }

  get url(): string {
    return this.firstUrl;
  }

  readonly handler = (request: IncomingMessage, response: ServerResponse): void => {
    this.serve(request, response).catch((error: unknown) => this.fail(request, response, error));
  };

  async listen(host: string, port: number): Promise<number> {
    const server = this.newServer();
    await started(server, () => server.listen(port, host));
    const bound = (server.address() as AddressInfo).port;
    if (this.firstUrl === '') this.firstUrl = `https://${host.includes(':') ? `[${host}]` : host}:${bound}`;
    return bound;
  }

  async listenFd(fd: number): Promise<void> {
    const server = this.newServer();
    await started(server, () => server.listen({ fd }));
  }

  async close(): Promise<void> {
    clearInterval(this.expiry);
    this.sweeper.close();
    const closed = this.servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const socket of this.sockets) socket.destroy();
    await Promise.all(closed);
    this.options.store.close();
  }

  private newServer(): Server {
    const server = createServer(
      { ...this.options.tls, minVersion: 'TLSv1.2', ALPNProtocols: ['http/1.1'] },
      this.handler,
    );
    // Watches and followed logs stay open for as long as their client wants.
    server.requestTimeout = 0;
    server.keepAliveTimeout = 120_000;
    // Not "secureConnection": close() would wait for ever for a client whose handshake it overtakes.
    server.on('connection', (socket: Socket) => this.track(socket));
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      this.upgrade(request, socket, head).catch((error: unknown) =>
        refuseUpgrade(socket, this.asApiError(request, error)),
      );
    });
    this.servers.push(server);
    return server;
  }

  private track(socket: Socket): void {
    this.sockets.add(socket);
    socket.once('close', () => this.sockets.delete(socket));
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'https://api');
    if (healthPaths.has(url.pathname)) {
      response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end('ok');
      return;
    }
    const exchange: Exchange = { request, response, url, ...this.requesterOf(request) };
    const document = this.document(request, url);
    if (document === undefined) await serveResource(this.parts, exchange);
    else sendDocument(exchange, document, contentTypeOf(document));
  }

  /** The answers that are not about objects. */
  private document(request: IncomingMessage, url: URL): JsonObject | undefined {
    const { registry } = this.parts;
    const [first = '', second, third, fourth] = url.pathname.split('/').filter((part) => part !== '');
    const wantsAggregated = /v=v2;[^,]*as=APIGroupDiscoveryList/.test(request.headers.accept ?? '');
    if (first === 'version') return { ...discovery.versionInfo };
    if (first === 'api' && second === undefined)
      return wantsAggregated ? discovery.aggregated(registry, true) : discovery.coreVersions();
    if (first === 'apis' && second === undefined)
      return wantsAggregated ? discovery.aggregated(registry, false) : discovery.groupList(registry);
    if (first === 'api' && third === undefined) return found(discovery.resourceList(registry, '', second ?? ''));
    if (first === 'apis' && third === undefined) return found(discovery.group(registry, second ?? ''));
    if (first === 'apis' && fourth === undefined)
      return found(discovery.resourceList(registry, second ?? '', third ?? ''));
    if (first === 'openapi') return this.openapi(url);
    return undefined;
  }

  private openapi(url: URL): JsonObject {
    const parts = url.pathname
      .split('/')
      .filter((part) => part !== '')
      .slice(1);
    if (parts[0] !== 'v3') throw pathNotFound();
    const { registry } = this.parts;
    if (parts.length === 1) return openapiIndex(registry);
    const [, kind, a = '', b = ''] = parts;
    return found(kind === 'api' ? openapiDocument(registry, '', a) : openapiDocument(registry, a, b));
  }

  private requesterOf(request: IncomingMessage): Requester {
    const { user, groups = [] } = this.authenticate(request);
    return { user, groups: [...groups, 'system:authenticated'] };
  }

  private authenticate(request: IncomingMessage): ApiToken {
    const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    const hash = digest(given);
    // Every token is compared, in constant time.
    const matching = this.options.tokens.filter((known) => timingSafeEqual(digest(known.token), hash));
    const [first] = matching;
    if (first === undefined) throw new ApiError(401, 'Unauthorized', 'Unauthorized');
    return first;
  }

  private async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const requester = this.requesterOf(request);
    const url = new URL(request.url ?? '/', 'https://api');
    const path = parseResourcePath(url.pathname);
    if (path?.plural !== 'pods' || path.group !== '' || path.name === undefined || !(path.subresource in kubeletRoutes))
      throw pathNotFound();
    authorize(this.options.store, requester, attributesOf('POST', path, url.searchParams));
    const protocol = (request.headers.upgrade ?? '').toLowerCase();
    if (protocol !== 'websocket') {
      throw badRequest(
        `unable to upgrade to "${protocol}": this API server streams over WebSocket only (kubectl 1.31 or newer, or KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)`,
      );
    }
    const resource = found(this.parts.registry.find('', 'v1', 'pods'));
    const pod = getObject(this.parts.store, {
      resource,
      namespace: path.namespace,
      name: path.name,
      subresource: path.subresource,
    });
    const target = found(kubeletTarget(pod, path.subresource, url.searchParams, this.parts.kubeletSocket));
    await proxyUpgrade(target, request, socket, head);
  }

  private fail(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const failure = this.asApiError(request, error);
    if (failure.message.includes(' is forbidden: User ')) this.log.warn({ why: failure.message }, 'forbidden');
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const text = JSON.stringify(failure.toStatus());
    response.writeHead(failure.httpCode, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-cache, private',
      ...(failure.httpCode === 401 ? { 'www-authenticate': 'Bearer' } : {}),
      ...(request.complete ? {} : { connection: 'close' }),
    });
    response.end(text);
  }

  private asApiError(request: IncomingMessage, error: unknown): ApiError {
    if (error instanceof ApiError) return error;
    this.log.error({ err: error, method: request.method, url: request.url }, 'API request failed');
    return internalError(error instanceof Error ? error.message : String(error));
  }
}

const healthPaths = new Set(['/healthz', '/livez', '/readyz']);

/** Clients tell aggregated discovery by the content type alone. */
function contentTypeOf(document: JsonObject): string {
  return document.kind === 'APIGroupDiscoveryList'
    ? 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'
    : 'application/json';
}

function found<T>(value: T | undefined): T {
  if (value === undefined) throw pathNotFound();
  return value;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function started(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    listen();
  });
}

function refuseUpgrade(socket: Duplex, error: ApiError): void {
  const body = JSON.stringify(error.toStatus());
  const head = [
    `HTTP/1.1 ${error.httpCode} ${STATUS_CODES[error.httpCode] ?? ''}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ];
  socket.on('error', () => undefined);
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
