/** The unix socket on which the CNI executables (shim/) call: one request per connection, root only. */
import { mkdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { cniErrorCodes } from '../api/cni.ts';
import { CniError } from '../cni/error.ts';
import { errorAnswer, invokePlugin, toCniError, type Invocation, type PluginTable } from '../cni/invoke.ts';
import { configVersionOf } from '../cni/request.ts';
import { decodeWireRequest, encodeWireAnswer, wireAccepted, type WireAnswer, type WireRequest } from '../cni/wire.ts';
import { agentLimits } from './limits.ts';
import { KeyedQueue } from './keyed-queue.ts';
import { listenPrivately, removeStaleSocket } from './unix-socket.ts';

export interface CniServerOptions {
  readonly socketPath: string;
  readonly plugins: PluginTable;
  /** Told about every call that was answered; never throws. */
  readonly onAnswered: (wire: WireRequest, invocation: Invocation, durationMs: number) => void;
  /** Instead of agentLimits, for tests. */
  readonly limits?: { readonly [name in keyof typeof agentLimits]?: number };
}

export class CniServer {
  readonly #options: CniServerOptions;
  readonly #limits: { [name in keyof typeof agentLimits]: number };
  readonly #queue: KeyedQueue;
  readonly #server: Server;
  readonly #idle = new Set<Socket>();
  readonly #running = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  /** Listens with mode 0600. Throws SluiceError already_exists while another agent answers on the socket. */
  static async listen(options: CniServerOptions): Promise<CniServer> {
    const server = new CniServer(options);
    mkdirSync(dirname(options.socketPath), { recursive: true, mode: 0o755 });
    await removeStaleSocket(options.socketPath, '--cni-socket');
    await listenPrivately(server.#server, options.socketPath);
    return server;
  }

  private constructor(options: CniServerOptions) {
    this.#options = options;
    this.#limits = { ...agentLimits, ...options.limits };
    this.#queue = new KeyedQueue({ concurrency: this.#limits.cniConcurrency, waiting: this.#limits.cniQueue });
    // Half-open: the client shuts its side down to say that stdin ended, and still reads.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#onConnection(socket));
  }

  /** Takes no new calls, lets running ones finish within `graceMs`, then aborts them. */
  async stop(graceMs: number = this.#limits.stopGraceMs): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#idle) socket.destroy();
    const timer = setTimeout(() => this.#stop.abort(new Error('the agent stops')), graceMs);
    await Promise.allSettled(this.#running);
    clearTimeout(timer);
    await closed;
  }

  #onConnection(socket: Socket): void {
    const chunks: Buffer[] = [];
    let length = 0;
    this.#idle.add(socket);
    socket.setTimeout(this.#limits.cniRequestReadMs, () => socket.destroy());
    socket.on('error', () => socket.destroy()); // the runtime gave up; the operation itself goes on
    socket.on('close', () => this.#idle.delete(socket));
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      length += chunk.length;
      if (length > this.#limits.cniRequestBytes) this.#refuse(socket);
    });
    socket.on('end', () => {
      if (!this.#idle.delete(socket)) return;
      socket.setTimeout(0);
      const call = this.#serve(socket, Buffer.concat(chunks)).finally(() => this.#running.delete(call));
      this.#running.add(call);
    });
  }

  #refuse(socket: Socket): void {
    this.#idle.delete(socket);
    socket.removeAllListeners('data');
    const what = new CniError(
      cniErrorCodes.decodingFailure,
      `the request is larger than ${this.#limits.cniRequestBytes} bytes`,
    );
    socket.end(encodeWireAnswer(errorAnswer(what, undefined)), () => socket.destroy());
  }

  async #serve(socket: Socket, bytes: Buffer): Promise<void> {
    const started = performance.now();
    let wire: WireRequest;
    try {
      wire = decodeWireRequest(bytes);
    } catch (error) {
      socket.end(encodeWireAnswer(errorAnswer(toCniError(error), undefined)));
      return;
    }
    socket.write(wireAccepted);
    const invocation = await this.#answerInTime(wire);
    if (!socket.destroyed) socket.end(encodeWireAnswer(invocation.answer));
    this.#options.onAnswered(wire, invocation, performance.now() - started);
  }

  /**
   * One operation per container at a time ("The container runtime must not invoke parallel operations for the same
   * container", but a runtime that lost patience does). A plugin that overruns its deadline is answered for, and keeps
   * the container's turn until it has really ended.
   */
  async #answerInTime(wire: WireRequest): Promise<Invocation> {
    const key = wire.environment['CNI_CONTAINERID'] ?? '';
    const signal = AbortSignal.any([AbortSignal.timeout(this.#limits.cniOperationMs), this.#stop.signal]);
    const aborted = new Promise<Invocation>((resolve) =>
      signal.addEventListener('abort', () => resolve(timedOut(wire)), { once: true }),
    );
    const run = this.#queue.run(key, () => invokePlugin(wire, this.#options.plugins, signal));
    return Promise.race([run ?? Promise.resolve(busy(wire)), aborted]);
  }
}

function timedOut(wire: WireRequest): Invocation {
  const message = `${wire.plugin} ${wire.environment['CNI_COMMAND'] ?? ''}: given up, the operation took too long`;
  return failed(
    wire,
    new CniError(cniErrorCodes.tryAgainLater, message, 'see the log of the sluice agent on this node'),
  );
}

function busy(wire: WireRequest): Invocation {
  return failed(
    wire,
    new CniError(cniErrorCodes.tryAgainLater, 'too many CNI operations wait', 'the runtime tries again'),
  );
}

function failed(wire: WireRequest, error: CniError): Invocation {
  const answer: WireAnswer = errorAnswer(error, configVersionOf(wire.stdin));
  return { answer, error };
}
