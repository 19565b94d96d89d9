/** HTTP to one API server: TLS and credentials from the kubeconfig, connections kept alive. */

import http from 'node:http';
import https from 'node:https';
import { text } from 'node:stream/consumers';
import { SluiceError } from '../core/error.ts';
import type { KubeConfig } from './config.ts';
import { KubeError } from './error.ts';
import { kubeLimits } from './limits.ts';

export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Absolute path without the server, such as "/api/v1/pods". */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>> | undefined;
  readonly body?: unknown;
  readonly contentType?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What the request is for, as error messages name it: "list", "pods". */
  readonly operation: string;
  readonly object: string;
}

export interface Transport {
  /** The answer's body, unread; rejects with a SluiceError for anything but 2xx. */
  open(request: KubeRequest): Promise<http.IncomingMessage>;
  /** The parsed answer. */
  json(request: KubeRequest): Promise<unknown>;
  close(): void;
}

export interface TransportOptions {
  /** The server's `Warning` headers (RFC 9111 §5.5), text only. */
  readonly onWarning?: (warning: string) => void;
  /** Time to the answer's first byte, and for `json` between bytes. */
  readonly timeoutMs?: number;
  readonly userAgent?: string;
}

/** Half of client-go's dial keep-alive: a dead peer is noticed within a minute and a half. */
const tcpKeepAliveMs = 15_000;

export function createTransport(config: KubeConfig, options: TransportOptions = {}): Transport {
  const server = config.getCurrentCluster()?.server;
  if (server === undefined) {
    throw new SluiceError({ code: 'kube_config', operation: 'use', object: 'kubeconfig', what: 'it names no cluster' });
  }
  const agents = createAgentCache();

  async function open(request: KubeRequest): Promise<http.IncomingMessage> {
    const credentials: https.RequestOptions = {};
    await config.applyToHTTPSOptions(credentials);
    const agent = agents.reuse(credentials);
    const response = await send(urlOf(server ?? '', request), request, { ...credentials, agent }, options);
    for (const warning of warningsOf(response)) options.onWarning?.(warning);
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    const body = await text(response).catch(() => '');
    throw new KubeError(request.operation, request.object, status, body, response.headers['retry-after']);
  }

  async function json(request: KubeRequest): Promise<unknown> {
    const body = await readAll(await open(request), request);
    try {
      return JSON.parse(body);
    } catch (cause) {
      throw failure(request, 'kube_bad_answer', 'the answer is not JSON', cause);
    }
  }

  return { open, json, close: agents.close };
}

interface AgentCache {
  readonly reuse: (options: https.RequestOptions) => http.Agent | undefined;
  readonly close: () => void;
}

/**
 * KubeConfig makes a new agent for every call. The first one of a kind is kept, so that connections are reused,
 * until the credentials that make it different (a rotated client certificate) change.
 */
function createAgentCache(): AgentCache {
  let kept: { readonly key: string; readonly agent: http.Agent } | undefined;
  return {
    reuse(options) {
      if (!(options.agent instanceof http.Agent)) return undefined;
      const { ca, cert, key, passphrase, pfx, servername, rejectUnauthorized } = options;
      const identity = JSON.stringify([ca, cert, key, passphrase, pfx, servername, rejectUnauthorized].map(String));
      if (kept?.key !== identity) {
        const agent: http.Agent & { keepAlive?: boolean } = options.agent;
        agent.keepAlive = true;
        kept = { key: identity, agent };
      }
      return kept.agent;
    },
    close: () => kept?.agent.destroy(),
  };
}

function urlOf(server: string, request: KubeRequest): URL {
  const url = new URL(server.replace(/\/$/, '') + request.path);
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  return url;
}

async function send(
  url: URL,
  request: KubeRequest,
  tls: https.RequestOptions,
  options: TransportOptions,
): Promise<http.IncomingMessage> {
  const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
  const headers: http.OutgoingHttpHeaders = {
    ...(tls.headers as http.OutgoingHttpHeaders | undefined),
    accept: 'application/json',
    'user-agent': options.userAgent ?? 'sluice',
  };
  if (body !== undefined) {
    headers['content-type'] = request.contentType ?? 'application/json';
    headers['content-length'] = body.length;
  }
  for (let attempt = 1; ; attempt++) {
    try {
      return await sendOnce(url, { ...tls, method: request.method, headers, signal: request.signal }, body, options);
    } catch (cause) {
      // An idle connection may be closed by the server while the request is on its way.
      if (attempt === 1 && isRepeatable(request.method) && isReusedSocketReset(cause)) continue;
      if (request.signal?.aborted) throw failure(request, 'cancelled', 'the request was stopped', cause);
      throw failure(request, 'kube_unreachable', `no answer from ${url.origin}`, unwrap(cause));
    }
  }
}

/** Twice is as once: a PUT names the resourceVersion it replaces, and answers 409 the second time. */
function isRepeatable(method: KubeRequest['method']): boolean {
  return method === 'GET' || method === 'PUT' || method === 'DELETE';
}

class SendError extends Error {
  readonly reusedSocket: boolean;
  constructor(cause: unknown, reusedSocket: boolean) {
    super('send', { cause });
    this.reusedSocket = reusedSocket;
  }
}

function isReusedSocketReset(error: unknown): boolean {
  if (!(error instanceof SendError) || !error.reusedSocket) return false;
  const code = (error.cause as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ECONNRESET' || code === 'EPIPE';
}

function unwrap(error: unknown): unknown {
  return error instanceof SendError ? error.cause : error;
}

function sendOnce(
  url: URL,
  options: https.RequestOptions,
  body: Buffer | undefined,
  { timeoutMs = kubeLimits.requestTimeoutMs }: TransportOptions,
): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const client = url.protocol === 'http:' ? http : https;
    const request = client.request(url, options);
    const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    request.on('socket', (socket) => socket.setKeepAlive(true, tcpKeepAliveMs));
    request.on('error', (error) => {
      clearTimeout(timer);
      reject(new SendError(error, request.reusedSocket));
    });
    request.on('response', (response) => {
      clearTimeout(timer);
      resolve(response);
    });
    request.end(body);
  });
}

async function readAll(response: http.IncomingMessage, request: KubeRequest): Promise<string> {
  try {
    return await text(response);
  } catch (cause) {
    throw failure(request, request.signal?.aborted ? 'cancelled' : 'kube_unreachable', 'the answer broke off', cause);
  }
}

/** `299 - "text"`; several may share a header line. */
function warningsOf(response: http.IncomingMessage): string[] {
  const header = response.headers.warning;
  if (header === undefined) return [];
  return [...header.matchAll(/\d{3} \S+ "((?:[^"\\]|\\.)*)"/g)].map((match) =>
    (match[1] ?? '').replace(/\\(.)/g, '$1'),
  );
}

function failure(
  request: KubeRequest,
  code: 'kube_unreachable' | 'kube_bad_answer' | 'cancelled',
  what: string,
  cause: unknown,
): SluiceError {
  return new SluiceError({ code, operation: request.operation, object: request.object, what, cause });
}
