/**
 * What a container without a command does: answers on its declared ports with the pod's name, in HTTP when asked in HTTP.
 * The sockets are made in the pod's netns and served from the kubelet's process: a process per pod would cost 40 MB each.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer as createTcpServer, type Server as TcpServer, type Socket } from 'node:net';
import { formatErrorChain } from '../../core/error.ts';
import type { Logger } from '../../core/log.ts';
import { bindUdp, listenTcp } from '../../kernel/listen.ts';
import type { ContainerPort } from './pod-api.ts';

const httpStart = /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT) /;
const endOfHttpHeader = '\r\n\r\n';
/** A longer request header is answered as if it had ended. */
const maxHttpHeaderBytes = 64 << 10;

export interface PortServerOptions {
  /** Path of the netns to serve in. */
  readonly netns: string;
  readonly podName: string;
  readonly ports: readonly ContainerPort[];
  readonly log: Logger;
}

export class PortServer {
  readonly #tcp: TcpServer[] = [];
  readonly #udp: UdpSocket[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #options: PortServerOptions;

  /** Opens every port, or none: throws when one is taken. */
  constructor(options: PortServerOptions) {
    this.#options = options;
    try {
      for (const port of options.ports) {
        if (port.protocol === 'UDP') this.#udp.push(this.#serveUdp(port.containerPort));
        else if (port.protocol !== 'SCTP') this.#tcp.push(this.#serveTcp(port.containerPort));
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    for (const server of this.#tcp) server.close();
    for (const socket of this.#sockets) socket.destroy();
    for (const socket of this.#udp) socket.close();
  }

  #serveTcp(port: number): TcpServer {
    const server = createTcpServer({ allowHalfOpen: true }, (socket) => this.#answer(socket));
    server.on('error', (error) =>
      this.#options.log.warn({ port }, `serving a port failed: ${formatErrorChain(error)}`),
    );
    server.listen({ fd: listenTcp(this.#options.netns, '::', port).fd });
    return server;
  }

  #answer(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    const name = `${this.#options.podName}\n`;
    const onEnd = (): void => void socket.end(name);
    socket.once('end', onEnd);
    socket.once('data', (first: Buffer) => {
      socket.off('end', onEnd);
      if (httpStart.test(first.subarray(0, 10).toString('latin1'))) {
        this.#answerHttp(socket, first);
        return;
      }
      socket.write(name);
      socket.on('data', () => socket.write(name));
      socket.on('end', () => socket.end());
    });
  }

  /** One answer, then the connection ends: node:http would parse more than is asked for here. */
  #answerHttp(socket: Socket, first: Buffer): void {
    let header = first.toString('latin1');
    const answer = (): void => {
      const body = `${this.#options.podName}\n`;
      const lines = [
        'HTTP/1.1 200 OK',
        'Content-Type: text/plain',
        `Content-Length: ${Buffer.byteLength(body)}`,
        'Connection: close',
      ];
      socket.end(`${lines.join('\r\n')}${endOfHttpHeader}${header.startsWith('HEAD ') ? '' : body}`);
    };
    const isComplete = (): boolean => header.includes(endOfHttpHeader) || header.length > maxHttpHeaderBytes;
    if (isComplete()) {
      answer();
      return;
    }
    const onData = (more: Buffer): void => {
      header += more.toString('latin1');
      if (!isComplete()) return;
      socket.off('data', onData);
      socket.resume();
      answer();
    };
    socket.on('data', onData);
    socket.once('end', () => socket.end());
  }

  #serveUdp(port: number): UdpSocket {
    const socket = createSocket('udp6');
    socket.on('message', (_, from) => socket.send(`${this.#options.podName}\n`, from.port, from.address));
    socket.on('error', (error) =>
      this.#options.log.warn({ port }, `serving a port failed: ${formatErrorChain(error)}`),
    );
    socket.bind({ fd: bindUdp(this.#options.netns, '::', port).fd });
    return socket;
  }
}
