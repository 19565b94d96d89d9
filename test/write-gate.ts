/**
 * Stands before an API server. Of each subject it lets the first writes through and keeps the n-th: before it reaches the server,
 * or its answer when it took effect. Whoever writes can so be killed at exactly that step.
 */
import { createServer, type Server } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestApiServer } from '../src/lab/api/testing.ts';

export interface Step {
  /** From 1. */
  readonly write: number;
  readonly when: 'before' | 'after';
}

/** Whose write it is; undefined: nobody's, and it passes. */
export type SubjectOf = (path: string) => string | undefined;

export class WriteGate {
  readonly #server: Server;
  readonly #subjectOf: SubjectOf;
  readonly #api: () => TestApiServer;
  /** By subject; of others all passes. */
  #steps: ReadonlyMap<string, Step> = new Map();
  /** Since `hold`. */
  readonly #writes = new Map<string, number>();
  readonly #standing = new Set<string>();
  readonly #kept: ServerResponse[] = [];

  static async open(api: () => TestApiServer, subjectOf: SubjectOf): Promise<WriteGate> {
    const gate = new WriteGate(api, subjectOf);
    await new Promise<void>((resolve) => gate.#server.listen(0, '127.0.0.1', resolve));
    return gate;
  }

  private constructor(api: () => TestApiServer, subjectOf: SubjectOf) {
    [this.#api, this.#subjectOf] = [api, subjectOf];
    const { serverKey: key, serverCert: cert } = api().credentials;
    this.#server = createServer({ key, cert }, (request, response) => this.#serve(request, response));
    // Watches stay open for as long as their client wants.
    this.#server.requestTimeout = 0;
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Counts from here on, and keeps each subject's write at its step and all that it sends after that. */
  hold(steps: ReadonlyMap<string, Step>): void {
    this.release();
    this.#steps = steps;
  }

  /** Subjects at their step. */
  get standing(): ReadonlySet<string> {
    return this.#standing;
  }

  /** Everything passes. What was kept is never answered. */
  release(): void {
    this.#steps = new Map();
    this.#writes.clear();
    this.#standing.clear();
    for (const response of this.#kept.splice(0)) response.destroy();
  }

  close(): Promise<void> {
    this.release();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    return closed;
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { handler } = this.#api().server;
    const path = (request.url ?? '').split('?')[0] ?? '';
    const subject = request.method === 'GET' ? undefined : this.#subjectOf(path);
    const step = this.#steps.get(subject ?? '');
    if (subject === undefined || step === undefined) return handler(request, response);
    const number = (this.#writes.get(subject) ?? 0) + 1;
    this.#writes.set(subject, number);
    if (number < step.write) return handler(request, response);
    this.#kept.push(response);
    if (number > step.write) return;
    const stand = (): void => void this.#standing.add(subject);
    if (step.when === 'before') return stand();
    // The server answers into nothing: the write took effect, and its writer does not know.
    response.end = () => {
      stand();
      return response;
    };
    handler(request, response);
  }
}
