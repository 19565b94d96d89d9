/** Requests to agents, and what their answers mean. How a request gets there is the transport's. */
import { request, type IncomingMessage } from 'node:http';
import type { ApiError } from '../api/agent-api.ts';
import { errorCodes, SluiceError, type ErrorCode } from '../core/error.ts';

export interface AgentRequest {
  readonly method?: 'GET' | 'POST';
  /** With its query. */
  readonly path: string;
  readonly body?: unknown;
}

export interface AgentTransport {
  /** How the agent is called in errors: a node's name, or the socket's path. */
  readonly name: string;
  ask(asked: AgentRequest): Promise<{ readonly status: number; readonly text: string }>;
  /** Parts of an endless answer as they come; ends when the signal is aborted. A refusal is thrown. */
  follow(path: string, signal: AbortSignal): AsyncIterable<string>;
}

/** The answer's JSON. Throws agent_unavailable when nobody answers, else the agent's own error. */
export async function askAgent<T>(agent: AgentTransport, asked: AgentRequest): Promise<T> {
  const { status, text } = await agent.ask(asked);
  if (status !== 200) throw refusal(agent.name, text);
  return JSON.parse(text) as T;
}

/** The lines of an endless answer, as values. */
export async function* followAgent<T>(agent: AgentTransport, path: string, signal: AbortSignal): AsyncIterable<T> {
  let rest = '';
  for await (const chunk of agent.follow(path, signal)) {
    const lines = `${rest}${chunk}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') yield JSON.parse(line) as T;
  }
}

const answerTimeoutMs = 30_000;

/** An agent of this machine. */
export function unixAgent(name: string, socketPath: string): AgentTransport {
  return {
    name,
    async ask(asked) {
      const response = await open(socketPath, asked, AbortSignal.timeout(answerTimeoutMs));
      return { status: response.statusCode ?? 0, text: await textOf(response) };
    },
    async *follow(path, signal) {
      const response = await open(socketPath, { path }, signal);
      if (response.statusCode !== 200) throw refusal(name, await textOf(response));
      response.setEncoding('utf8');
      try {
        for await (const chunk of response) yield chunk as string;
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

function open(
  socketPath: string,
  { method = 'GET', path, body }: AgentRequest,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const call = request({ socketPath, path, method, headers, signal }, resolve);
    call.on('error', (error) => reject(unavailable(socketPath, error)));
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

export function refusal(agent: string, text: string): SluiceError {
  const { code, message, remedy } = parseError(text);
  return new SluiceError({
    code: Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : 'internal',
    operation: 'ask',
    object: agent,
    what: message,
    remedy,
  });
}

function parseError(text: string): ApiError {
  try {
    return JSON.parse(text) as ApiError;
  } catch {
    return { code: 'internal', message: text };
  }
}

function unavailable(socketPath: string, cause: Error): SluiceError {
  const { code = '' } = cause as NodeJS.ErrnoException;
  const whats: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such socket',
    ECONNREFUSED: 'nobody listens: the agent does not run',
    EACCES: 'no permission: only root may ask the agent',
  };
  const denied = code === 'EACCES';
  return new SluiceError({
    code: denied ? 'permission_denied' : 'agent_unavailable',
    operation: 'ask the agent at',
    object: socketPath,
    what: whats[code] ?? 'it does not answer',
    remedy: denied ? 'run it as root' : 'run this on a node of the cluster, or name --agent SOCKET or --lab DIR',
    cause: whats[code] === undefined ? cause : undefined,
  });
}
