/** A watch's stream: one JSON document per line. */

import type { IncomingMessage } from 'node:http';
import { StringDecoder } from 'node:string_decoder';
import type { KubeObject, Status } from '../api/kubernetes.ts';
import { SluiceError } from '../core/error.ts';
import { KubeError } from './error.ts';
import { kubeLimits } from './limits.ts';
import type { KubeRequest } from './transport.ts';

export interface WatchOptions {
  readonly namespace?: string | undefined;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  /** Changes after this version; a version that is too old fails with `kube_expired`. */
  readonly resourceVersion?: string | undefined;
  /** The server ends the stream after this time. */
  readonly timeoutSeconds?: number | undefined;
}

export interface WatchEvent<T extends KubeObject> {
  /** A bookmark's object carries a resourceVersion and nothing else. */
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: T;
}

/** Ends when the server ends the stream; throws KubeError for an ERROR event, `kube_unreachable` when it breaks. */
export async function* readWatch<T extends KubeObject>(
  response: IncomingMessage,
  request: KubeRequest,
): AsyncGenerator<WatchEvent<T>> {
  try {
    for await (const line of readLines(response)) {
      const event = parseEvent<T>(line, request);
      if (event !== undefined) yield event;
    }
  } catch (cause) {
    if (cause instanceof SluiceError) throw cause;
    const code = request.signal?.aborted ? 'cancelled' : 'kube_unreachable';
    throw new SluiceError({
      code,
      operation: request.operation,
      object: request.object,
      what: 'the stream broke off',
      cause,
    });
  } finally {
    response.destroy();
  }
}

async function* readLines(response: IncomingMessage): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  for await (const chunk of response as AsyncIterable<Buffer>) {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > kubeLimits.maxWatchLineBytes)
      throw new Error(`a line of a watch is longer than ${kubeLimits.maxWatchLineBytes} bytes`);
    yield* lines.filter((line) => line !== '');
  }
}

function parseEvent<T extends KubeObject>(line: string, request: KubeRequest): WatchEvent<T> | undefined {
  const event = JSON.parse(line) as { type?: string; object?: unknown };
  switch (event.type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
    case 'BOOKMARK':
      return { type: event.type, object: event.object as T };
    case 'ERROR': {
      const status = event.object as Status;
      throw new KubeError(request.operation, request.object, status.code ?? 500, JSON.stringify(status));
    }
    case undefined:
    default:
      return undefined;
  }
}
