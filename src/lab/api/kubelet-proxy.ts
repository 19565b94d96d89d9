/** exec, attach, port-forward and logs: handed on to the kubelet's unix socket of the pod's node. */
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { objectsAt, stringAt, type KubeObject } from './json.ts';
import { badRequest, internalError, type ApiError } from './status.ts';

export type KubeletSocket = (nodeName: string) => string | undefined;

/** The subresources that go to the kubelet, and where. */
export const kubeletRoutes: Readonly<Record<string, string>> = {
  exec: 'exec',
  attach: 'attach',
  portforward: 'portForward',
  log: 'containerLogs',
};

/** The request's target on the kubelet; undefined when the pod has no node yet. */
export interface KubeletTarget {
  readonly socketPath: string;
  readonly path: string;
}

export function kubeletTarget(
  pod: KubeObject,
  route: string,
  query: URLSearchParams,
  sockets: KubeletSocket,
): KubeletTarget | undefined {
  const nodeName = stringAt(pod, 'spec', 'nodeName') ?? '';
  const name = `${pod.metadata.namespace ?? ''}/${pod.metadata.name}`;
  if (nodeName === '') {
    if (route === 'log') return undefined;
    throw badRequest(`pod ${pod.metadata.name} does not have a host assigned`);
  }
  const socketPath = sockets(nodeName);
  if (socketPath === undefined) throw internalError(`no kubelet is known for node ${nodeName}`);
  const rest = new URLSearchParams(query);
  rest.delete('container');
  const text = rest.toString();
  const tail = text === '' ? '' : `?${text}`;
  if (route === 'portforward') return { socketPath, path: `/portForward/${name}${tail}` };
  return {
    socketPath,
    path: `/${kubeletRoutes[route] ?? route}/${name}/${containerOf(pod, query.get('container') ?? '')}${tail}`,
  };
}

function containerOf(pod: KubeObject, wanted: string): string {
  const names = ['containers', 'initContainers', 'ephemeralContainers'].flatMap((list) =>
    objectsAt(pod, 'spec', list).map((container) => stringAt(container, 'name') ?? ''),
  );
  if (wanted !== '') {
    if (names.includes(wanted)) return wanted;
    throw badRequest(`container ${wanted} is not valid for pod ${pod.metadata.name}`);
  }
  const main = objectsAt(pod, 'spec', 'containers').map((container) => stringAt(container, 'name') ?? '');
  const annotated = pod.metadata.annotations?.['kubectl.kubernetes.io/default-container'] ?? '';
  if (main.includes(annotated)) return annotated;
  if (main.length === 1) return main[0] ?? '';
  throw badRequest(
    `a container name must be specified for pod ${pod.metadata.name}, choose one of: [${main.join(' ')}]`,
  );
}

/** Logs: an ordinary answer, streamed through. */
export function proxyRequest(target: KubeletTarget, request: IncomingMessage, response: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    const upstream = httpRequest(
      {
        socketPath: target.socketPath,
        path: target.path,
        method: request.method ?? 'GET',
        headers: { host: 'kubelet' },
      },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, {
          'content-type': answer.headers['content-type'] ?? 'text/plain',
          'cache-control': 'no-cache, private',
        });
        response.flushHeaders();
        answer.pipe(response);
        answer.on('end', resolve);
        answer.on('error', () => response.destroy());
      },
    );
    upstream.on('error', (error) => {
      if (response.headersSent) response.destroy();
      else reject(kubeletError(error));
    });
    response.on('close', () => {
      upstream.destroy();
      resolve();
    });
    upstream.end();
  });
}

function kubeletError(error: Error): ApiError {
  return internalError(`error dialing backend: ${error.message}`);
}

/** Hop-by-hop and credential headers stay here. */
const withheld = new Set(['authorization', 'host']);

/** Upgrades (WebSocket): the kubelet answers the handshake, then bytes flow both ways untouched. */
export function proxyUpgrade(
  target: KubeletTarget,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !withheld.has(name)));
  return new Promise((resolve, reject) => {
    const upstream = httpRequest({
      socketPath: target.socketPath,
      path: target.path,
      method: request.method ?? 'GET',
      headers: { ...headers, host: 'kubelet' },
    });
    upstream.on('upgrade', (answer, peer, peerHead) => {
      socket.write(rawHead(answer));
      if (peerHead.length > 0) socket.write(peerHead);
      if (head.length > 0) peer.write(head);
      join(socket, peer);
      resolve();
    });
    upstream.on('response', (answer) => {
      socket.write(rawHead(answer, { connection: 'close' }));
      answer.pipe(socket);
      answer.on('end', resolve);
    });
    upstream.on('error', (error) => reject(kubeletError(error)));
    socket.on('error', () => upstream.destroy());
    upstream.end();
  });
}

function join(client: Duplex, kubelet: Duplex): void {
  client.pipe(kubelet);
  kubelet.pipe(client);
  const endBoth = (): void => {
    client.destroy();
    kubelet.destroy();
  };
  for (const side of [client, kubelet]) {
    side.on('error', endBoth);
    side.on('close', endBoth);
  }
}

function rawHead(answer: IncomingMessage, extra: Readonly<Record<string, string>> = {}): string {
  const lines = [`HTTP/1.1 ${answer.statusCode ?? 502} ${answer.statusMessage ?? ''}`];
  const skip = new Set(Object.keys(extra).concat('transfer-encoding'));
  for (let index = 0; index < answer.rawHeaders.length; index += 2) {
    const name = answer.rawHeaders[index] ?? '';
    if (!skip.has(name.toLowerCase())) lines.push(`${name}: ${answer.rawHeaders[index + 1] ?? ''}`);
  }
  for (const [name, value] of Object.entries(extra)) lines.push(`${name}: ${value}`);
  return `${lines.join('\r\n')}\r\n\r\n`;
}
