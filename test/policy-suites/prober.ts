/** One process in a pod's netns that opens connections on request. */

import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface ProbeRequest {
  readonly address: string;
  readonly port: number;
  readonly protocol: 'TCP' | 'UDP';
  /** What the server must answer. */
  readonly expect: string;
  readonly timeoutMs: number;
}

/** "reached", "timeout", "refused" or "error: …". */
export type ProbeOutcome = string;

export class Prober implements Disposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (outcomes: readonly ProbeOutcome[]) => void>();
  #failed: Error | undefined;
  #nextId = 1;

  /** `netns` is a path. The process ends with ours: its standard input closes. */
  constructor(netns: string) {
    const script = fileURLToPath(new URL('prober.mjs', import.meta.url));
    this.#child = spawn('nsenter', [`--net=${netns}`, process.execPath, script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.on('exit', (code) => (this.#failed = new Error(`the prober in ${netns} ended with status ${code}`)));
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const { id, outcomes } = JSON.parse(line) as { id: number; outcomes: ProbeOutcome[] };
      this.#waiting.get(id)?.(outcomes);
      this.#waiting.delete(id);
    });
  }

  /** All at once; the outcomes in the order of the probes. */
  probe(probes: readonly ProbeRequest[]): Promise<readonly ProbeOutcome[]> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const patienceMs = 30_000 + Math.max(0, ...probes.map(({ timeoutMs }) => timeoutMs));
      const timer = setTimeout(() => reject(this.#failed ?? new Error('the prober does not answer')), patienceMs);
      this.#waiting.set(id, (outcomes) => {
        clearTimeout(timer);
        resolve(outcomes);
      });
      this.#child.stdin?.write(`${JSON.stringify({ id, probes })}\n`);
    });
  }

  [Symbol.dispose](): void {
    this.#child.stdin?.end();
  }
}
