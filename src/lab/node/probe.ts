/** Readiness, liveness and startup probes, run from inside the pod's namespaces. */
import { execFile } from 'node:child_process';
import type { ProbeSpec } from './pod-api.ts';

export interface ProbeTarget {
  /** Runs a command in the container; resolves with its exit status. */
  readonly exec: (command: readonly string[], timeoutMs: number) => Promise<number>;
  /** The nsenter prefix for the pod's netns alone. */
  readonly enterNetns: readonly string[];
  readonly resolvePort: (port: number | string) => number;
}

/** True on success; a probe that cannot be run failed. */
export async function runProbe(probe: ProbeSpec, target: ProbeTarget): Promise<boolean> {
  const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000;
  try {
    if (probe.exec !== undefined) return (await target.exec(probe.exec.command, timeoutMs)) === 0;
    if (probe.tcpSocket !== undefined) {
      return await curl(target, timeoutMs, [
        '--connect-only',
        `telnet://127.0.0.1:${target.resolvePort(probe.tcpSocket.port)}`,
      ]);
    }
    if (probe.httpGet !== undefined) {
      const { port, path = '/', httpHeaders = [] } = probe.httpGet;
      const url = `http://127.0.0.1:${target.resolvePort(port)}${path.startsWith('/') ? path : `/${path}`}`;
      return await curl(target, timeoutMs, [
        '--fail',
        ...httpHeaders.flatMap(({ name, value }) => ['-H', `${name}: ${value}`]),
        url,
      ]);
    }
    return true;
  } catch {
    return false;
  }
}

/** A socket that connects in another netns is more than Node offers; curl entered there does both kinds. */
function curl(target: ProbeTarget, timeoutMs: number, args: readonly string[]): Promise<boolean> {
  const [file = 'curl', ...rest] = [
    ...target.enterNetns,
    'curl',
    '-s',
    '-o',
    '/dev/null',
    '--max-time',
    String(timeoutMs / 1000),
    ...args,
  ];
  return new Promise((resolve) => {
    execFile(file, rest, { timeout: timeoutMs + 2000, killSignal: 'SIGKILL' }, (error) => resolve(error === null));
  });
}

/** One probe's schedule and verdict: flips after successThreshold or failureThreshold results in a row. */
export class ProbeLoop {
  readonly #probe: ProbeSpec;
  readonly #onChange: (ok: boolean) => void;
  readonly #run: () => Promise<boolean>;
  #timer: NodeJS.Timeout | undefined;
  #row = 0;
  #lastResult: boolean | undefined;
  #verdict: boolean | undefined;
  #stopped = false;

  constructor(probe: ProbeSpec, run: () => Promise<boolean>, onChange: (ok: boolean) => void) {
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
    const ok = await this.#run();
    if (this.#stopped) return;
    this.#row = ok === this.#lastResult ? this.#row + 1 : 1;
    this.#lastResult = ok;
    const threshold = ok ? (this.#probe.successThreshold ?? 1) : (this.#probe.failureThreshold ?? 3);
    if (this.#row >= threshold && this.#verdict !== ok) {
      this.#verdict = ok;
      this.#onChange(ok);
    }
    this.#schedule((this.#probe.periodSeconds ?? 10) * 1000);
  }
}
