/**
 * What the shim (shim/) and the agent say to each other over the unix socket, one call per connection:
 *
 *   request   "SLUICE/1 <plugin>\n"  ("CNI_<NAME>=<value>\0")*  "\0"  <stdin to EOF>     then the write side is shut down
 *   answer    "\n"* "<exit status> <length of stdout in bytes>\n"  <stdout>
 *
 * The agent sends an empty line as soon as it has the request ("accepted, working on it"): with nothing after 8 s the shim
 * takes the agent for dead, with it it waits for the answer.
 */
import { cniErrorCodes } from '../api/cni.ts';
import { CniError } from './error.ts';

export const wireProtocol = 'SLUICE/1';

/** Sent as soon as a request is accepted. */
export const wireAccepted = Buffer.from('\n');

export interface WireRequest {
  readonly plugin: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly stdin: string;
}

export interface WireAnswer {
  readonly exitStatus: number;
  readonly stdout: string;
}

/** Throws CniError 6 when the bytes are not a request. */
export function decodeWireRequest(bytes: Buffer): WireRequest {
  const lineEnd = bytes.indexOf('\n');
  const [protocol, plugin, ...rest] = bytes.toString('latin1', 0, Math.max(lineEnd, 0)).split(' ');
  if (protocol !== wireProtocol || plugin === undefined || plugin === '' || rest.length > 0) {
    throw malformed(`the first line is not "${wireProtocol} <plugin>"`);
  }
  const environment: Record<string, string> = {};
  let at = lineEnd + 1;
  for (;;) {
    const end = bytes.indexOf(0, at);
    if (end < 0) throw malformed('the environment is not terminated');
    const entry = bytes.toString('utf8', at, end);
    at = end + 1;
    if (entry === '') break;
    const equals = entry.indexOf('=');
    if (equals <= 0) throw malformed('an environment entry has no name');
    environment[entry.slice(0, equals)] = entry.slice(equals + 1);
  }
  return { plugin, environment, stdin: bytes.toString('utf8', at) };
}

/** The client's side, for tests and for callers without the shim. */
export function encodeWireRequest(request: WireRequest): Buffer {
  const entries = Object.entries(request.environment).map(([name, value]) => `${name}=${value}\0`);
  return Buffer.from(`${wireProtocol} ${request.plugin}\n${entries.join('')}\0${request.stdin}`, 'utf8');
}

export function encodeWireAnswer(answer: WireAnswer): Buffer {
  const body = Buffer.from(answer.stdout, 'utf8');
  return Buffer.concat([Buffer.from(`${answer.exitStatus} ${body.length}\n`, 'latin1'), body]);
}

export function decodeWireAnswer(bytes: Buffer): WireAnswer {
  const match = /^\n*([0-9]{1,3}) ([0-9]{1,9})\n/.exec(bytes.toString('latin1', 0, 64));
  const body = bytes.subarray(match?.[0].length ?? 0);
  if (match === null || body.length !== Number(match[2]))
    throw malformed('the answer has no status line or is cut short');
  return { exitStatus: Number(match[1]), stdout: body.toString('utf8') };
}

function malformed(what: string): CniError {
  return new CniError(
    cniErrorCodes.decodingFailure,
    `malformed request: ${what}`,
    'the CNI executable and the agent are of different releases; install both from one release',
  );
}
