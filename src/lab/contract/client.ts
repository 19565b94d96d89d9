/** The smallest HTTPS client that shows a server's answers as they are: status, headers, JSON, watch lines. */
import { Agent, request as httpsRequest } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { randomBytes } from 'node:crypto';
import type { Json, JsonObject } from '../api/json.ts';

export interface Endpoint {
  readonly url: string;
  readonly caCert: string;
  readonly token: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: JsonObject;
  readonly text: string;
}

export interface RequestOptions {
  readonly body?: Json;
  readonly contentType?: string;
  readonly accept?: string;
  readonly token?: string | undefined;
}

export const mergePatch = 'application/merge-patch+json';
export const strategicPatch = 'application/strategic-merge-patch+json';
export const jsonPatch = 'application/json-patch+json';
export const tableAccept = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';

/** Longer than any server needs; a hang fails the test instead of the run. */
const requestTimeoutMs = 20_000;

export class ContractClient {
  private readonly endpoint: Endpoint;
  private readonly agent: Agent;
  /** A namespace of this run's own. */
  readonly namespace = `contract-${randomBytes(4).toString('hex')}`;

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
    this.agent = new Agent({ ca: endpoint.caCert, keepAlive: true });
  }

  close(): void {
    this.agent.destroy();
  }

  /** "/api/v1/namespaces/OWN/pods" and so on. */
  own(plural: string, groupVersion = 'v1'): string {
    const root = groupVersion.includes('/') ? `/apis/${groupVersion}` : `/api/${groupVersion}`;
    return `${root}/namespaces/${this.namespace}/${plural}`;
  }

  async call(method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
    const response = await this.open(method, path, options);
    const text = await readAll(response);
    const json = (response.headers['content-type'] ?? '').includes('json');
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: json ? (JSON.parse(text) as JsonObject) : {},
      text,
    };
  }

  get(path: string): Promise<Answer> {
    return this.call('GET', path);
  }

  post(path: string, body: Json): Promise<Answer> {
    return this.call('POST', path, { body });
  }

  put(path: string, body: Json): Promise<Answer> {
    return this.call('PUT', path, { body });
  }

  patch(path: string, contentType: string, body: Json): Promise<Answer> {
    return this.call('PATCH', path, { body, contentType });
  }

  delete(path: string, body?: Json): Promise<Answer> {
    return this.call('DELETE', path, body === undefined ? {} : { body });
  }

  /** Reads `count` events (or all until the server ends the stream), then hangs up. */
  async watch(path: string, count: number, options: RequestOptions = {}): Promise<JsonObject[]> {
    const response = await this.open('GET', `${path}${path.includes('?') ? '&' : '?'}watch=true`, options);
    const events: JsonObject[] = [];
    let rest = '';
    for await (const chunk of response as AsyncIterable<Buffer>) {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      events.push(...lines.filter((line) => line !== '').map((line) => JSON.parse(line) as JsonObject));
      if (events.length >= count) break;
    }
    response.destroy();
    return events;
  }

  private open(method: string, path: string, options: RequestOptions): Promise<IncomingMessage> {
    const { token = this.endpoint.token, accept = 'application/json', contentType = 'application/json' } = options;
    const text = options.body === undefined ? undefined : JSON.stringify(options.body);
    return new Promise((resolve, reject) => {
      const request = httpsRequest(
        new URL(path, this.endpoint.url),
        {
          method,
          agent: this.agent,
          headers: {
            authorization: `Bearer ${token}`,
            accept,
            ...(text === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(text) }),
          },
          signal: AbortSignal.timeout(requestTimeoutMs),
        },
        resolve,
      );
      request.on('error', reject);
      request.end(text);
    });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
