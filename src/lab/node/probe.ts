/** Readiness, liveness and startup probes: from the node to the pod's address, as kubelet's. */
import { request } from 'node:http';
import { request as secureRequest } from 'node:https';
import { connect } from 'node:net';
import type { Probe } from './pod-api.ts';

export interface ProbeTarget {
  /** Runs a command in the container; resolves with its exit status. */
  readonly exec: (command: readonly string[], timeoutMs: number) => Promise<number>;
  readonly podIp: string;
  readonly resolvePort: (port: number | string) => number;
}

/** Why the probe failed, in kubelet's words, or undefined when it succeeded. A probe that cannot be run failed. */
export async function runProbe(probe: Probe, target: ProbeTarget): Promise<string | undefined> {
  const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000;
  try {
    if (probe.exec !== undefined) {
      const status = await target.exec(probe.exec.command, timeoutMs);
      return status === 0 ? undefined : `command terminated with exit code ${status}`;
    }
    if (probe.tcpSocket !== undefined) {
      return await dial(probe.tcpSocket.host ?? target.podIp, target.resolvePort(probe.tcpSocket.port), timeoutMs);
    }
    return probe.httpGet === undefined ? undefined : await get(probe.httpGet, target, timeoutMs);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function dial(host: string, port: number, timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (failure: string | undefined): void => {
      socket.destroy();
      resolve(failure);
    };
    socket.setTimeout(timeoutMs, () => end(`dial tcp ${host}:${port}: i/o timeout`));
    socket.on('error', (error) => end(`dial tcp ${host}:${port}: ${error.message}`));
    socket.on('connect', () => end(undefined));
  });
}

/** Any status from 200 to 399 is a success; certificates are not checked, as kubelet does not. */
function get(
  { scheme = 'HTTP', host, port, path = '/', httpHeaders = [] }: NonNullable<Probe['httpGet']>,
  target: ProbeTarget,
  timeoutMs: number,
): Promise<string | undefined> {
  const where = { host: host ?? target.podIp, port: target.resolvePort(port) };
  const headers = Object.fromEntries(httpHeaders.map(({ name, value }) => [name, value]));
  const options = {
    ...where,
    path: path.startsWith('/') ? path : `/${path}`,
    headers: { 'User-Agent': 'kube-probe/sluice-lab', ...headers },
    agent: false,
    rejectUnauthorized: false,
    signal: AbortSignal.timeout(timeoutMs),
  };
  return new Promise((resolve) => {
    const url = `${scheme.toLowerCase()}://${where.host}:${where.port}${options.path}`;
    const call = (scheme === 'HTTPS' ? secureRequest : request)(options, (response) => {
      const { statusCode = 0 } = response;
      response.destroy();
      resolve(statusCode >= 200 && statusCode < 400 ? undefined : `HTTP probe failed with statuscode: ${statusCode}`);
    });
    call.on('error', (error) => resolve(`Get "${url}": ${error.message}`));
    call.end();
  });
}

/** One probe's schedule and verdict: flips after successThreshold or failureThreshold results in a row. */
export class ProbeLoop {
  readonly #probe: Probe;
  readonly #onChange: (ok: boolean, failure: string) => void;
  readonly #run: () => Promise<string | undefined>;
  #timer: NodeJS.Timeout | undefined;
  #row = 0;
  #lastResult: boolean | undefined;
  #verdict: boolean | undefined;
  #stopped = false;

  constructor(probe: Probe, run: () => Promise<string | undefined>, onChange: (ok: boolean, failure: string) => void) {
    this.#probe = probe;
    this.#run = run;
    this.#onChange = onChange;
    this.#schedule((probe.initialDelaySeconds ?? 0) * 1000);
  }

  /** Undefined until a threshold was reached for the first time. */
  get verdict(): boolean | undefined {
    return this.#verdict;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.#once(), delayMs);
  }

  async #once(): Promise<void> {
    const failure = await this.#run();
    if (this.#stopped) return;
    const ok = failure === undefined;
    this.#row = ok === this.#lastResult ? this.#row + 1 : 1;
    this.#lastResult = ok;
    const threshold = ok ? (this.#probe.successThreshold ?? 1) : (this.#probe.failureThreshold ?? 3);
    if (this.#row >= threshold && this.#verdict !== ok) {
      this.#verdict = ok;
      this.#onChange(ok, failure ?? '');
    }
    this.#schedule((this.#probe.periodSeconds ?? 10) * 1000);
  }
}
