/**
 * The kubelet's HTTP server on a unix socket, which the API server proxies to:
 *   GET /containerLogs/NAMESPACE/POD/CONTAINER?follow&tailLines&sinceSeconds&sinceTime&timestamps&previous&limitBytes
 *   GET /exec/NAMESPACE/POD/CONTAINER?command=…&stdin&stdout&stderr&tty, and /attach/…, upgraded to a WebSocket
 */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { Logger } from '../../core/log.ts';
import { readLog } from './container-log.ts';
import { runExec, type ExecTarget } from './exec.ts';
import type { PodWorker } from './pod-worker.ts';

export const channelProtocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const;

export interface StreamServerOptions {
  readonly socketPath: string;
  readonly findPod: (namespace: string, name: string) => PodWorker | undefined;
  readonly log: Logger;
}

interface Target {
  readonly verb: string;
  readonly worker: PodWorker;
  readonly container: string;
  readonly query: URLSearchParams;
}

class BadRequest extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export class StreamServer {
  readonly #options: StreamServerOptions;
  readonly #http: Server;
  readonly #webSockets: WebSocketServer;

  constructor(options: StreamServerOptions) {
    this.#options = options;
    this.#http = createServer((request, response) => void this.#serve(request, response));
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.#webSockets = new WebSocketServer({
      noServer: true,
      handleProtocols: (offered) => channelProtocols.find((protocol) => offered.has(protocol)) ?? false,
    });
  }

  listen(): Promise<void> {
    rmSync(this.#options.socketPath, { force: true });
    return new Promise((resolve, reject) => {
      this.#http.once('error', reject);
      this.#http.listen(this.#options.socketPath, () => {
        chmodSync(this.#options.socketPath, 0o600);
        resolve();
      });
    });
  }

  close(): void {
    this.#http.close();
    this.#http.closeAllConnections();
    for (const client of this.#webSockets.clients) client.terminate();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (request.url === '/healthz') {
        response.end('ok');
        return;
      }
      const target = this.#resolve(request);
      if (target.verb !== 'containerLogs')
        throw new BadRequest(400, `${target.verb} needs a WebSocket upgrade (${channelProtocols.join(', ')})`);
      await sendLog(target, response);
    } catch (error) {
      const status = error instanceof BadRequest ? error.status : 500;
      if (!response.headersSent) response.writeHead(status, { 'content-type': 'text/plain' });
      response.end(error instanceof Error ? error.message : String(error));
    }
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    let target: Target;
    try {
      target = this.#resolve(request);
      if (target.verb !== 'exec' && target.verb !== 'attach')
        throw new BadRequest(404, `nothing to upgrade at ${request.url ?? ''}`);
      if (target.worker.runtime.isLogComplete(target.container))
        throw new BadRequest(400, `container ${target.container} is not running`);
    } catch (error) {
      const status = error instanceof BadRequest ? error.status : 500;
      const text = error instanceof Error ? error.message : String(error);
      socket.end(
        `HTTP/1.1 ${status} Error\r\ncontent-type: text/plain\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
      );
      return;
    }
    this.#webSockets.handleUpgrade(request, socket, head, (webSocket) =>
      runExec(webSocket, execTarget(target), this.#options.log),
    );
  }

  /** /VERB/NAMESPACE/POD/CONTAINER; without a container, the pod's first. */
  #resolve(request: IncomingMessage): Target {
    const url = new URL(request.url ?? '/', 'http://kubelet');
    const [verb = '', namespace = '', name = '', named] = url.pathname.split('/').slice(1).map(decodeURIComponent);
    if (!['containerLogs', 'exec', 'attach'].includes(verb)) throw new BadRequest(404, `no such path: ${url.pathname}`);
    const worker = this.#options.findPod(namespace, name);
    const pod = worker?.pod;
    if (worker === undefined || pod === undefined) throw new BadRequest(404, `pod "${name}" is not on this node`);
    const known = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map((each) => each.name);
    const container =
      named === undefined || named === '' ? (url.searchParams.get('container') ?? known[0] ?? '') : named;
    if (!known.includes(container)) throw new BadRequest(400, `container ${container} is not valid for pod ${name}`);
    return { verb, worker, container, query: url.searchParams };
  }
}

function execTarget({ verb, worker, container, query }: Target): ExecTarget {
  const record = worker.runtime.record.containers[container];
  const flag = (name: string): boolean => ['true', '1'].includes(query.get(name) ?? '');
  return {
    // Attaching to the command itself would need its terminal; what it prints is in the log.
    command:
      verb === 'attach'
        ? ['tail', '-n', '0', '-F', worker.runtime.logPath(container, record?.attempt ?? 0)]
        : query.getAll('command'),
    enter: verb === 'attach' ? [] : worker.runtime.enter(container),
    cgroup: worker.runtime.containerCgroup(container).path,
    env: record?.env ?? {},
    workingDir: record?.workingDir,
    stdin: flag('stdin'),
    stdout: flag('stdout'),
    stderr: flag('stderr'),
    tty: flag('tty'),
  };
}

async function sendLog({ worker, container, query }: Target, response: ServerResponse): Promise<void> {
  const flag = (name: string): boolean => ['true', '1'].includes(query.get(name) ?? '');
  const number = (name: string): number | undefined => (query.has(name) ? Number(query.get(name)) : undefined);
  const { runtime } = worker;
  const record = runtime.record.containers[container];
  if (record === undefined)
    throw new BadRequest(
      400,
      `container "${container}" in pod "${runtime.record.name}" is waiting to start: ContainerCreating`,
    );
  const previous = flag('previous');
  if (previous && record.last === undefined)
    throw new BadRequest(400, `previous terminated container "${container}" in pod "${runtime.record.name}" not found`);
  const attempt = previous ? (record.last?.attempt ?? 0) : record.attempt;
  const since = number('sinceSeconds');
  const sinceTime = query.get('sinceTime');
  const abort = new AbortController();
  response.on('close', () => abort.abort());
  response.writeHead(200, { 'content-type': 'text/plain' });
  response.flushHeaders();
  await readLog(
    runtime.logPath(container, attempt),
    {
      follow: flag('follow') && !previous,
      timestamps: flag('timestamps'),
      tailLines: number('tailLines'),
      sinceMs: since !== undefined ? Date.now() - since * 1000 : sinceTime === null ? undefined : Date.parse(sinceTime),
      limitBytes: number('limitBytes'),
    },
    (text) => response.write(text),
    () => runtime.isLogComplete(container) || runtime.record.containers[container]?.attempt !== attempt,
    abort.signal,
  );
  response.end();
}
