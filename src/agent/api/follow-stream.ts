/** Events as lines of JSON for one reader. One that is too slow misses events and is told how many; nobody else waits. */
import { Readable } from 'node:stream';
import type { DropsLine, FlowEvent } from '../../api/agent-api.ts';
import { agentLimits } from '../limits.ts';

export class FollowStream extends Readable {
  readonly #queue: string[] = [];
  readonly #stop: () => void;
  readonly #heartbeat: NodeJS.Timeout;
  #skipped = 0;
  #wanted = false;

  /** `start` is called once and answers how to stop; what it throws is the caller's. */
  constructor(start: (onEvent: (event: FlowEvent) => void) => () => void) {
    super();
    this.#stop = start((event) => this.#add({ event }));
    // A reader that is gone shows only when something is written to it.
    this.#heartbeat = setInterval(() => this.#add({}), agentLimits.dropHeartbeatMs);
    this.#heartbeat.unref();
    this.#add({});
  }

  override _read(): void {
    this.#wanted = true;
    this.#flush();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearInterval(this.#heartbeat);
    this.#stop();
    done(error);
  }

  #add(line: DropsLine): void {
    if (this.#queue.length >= agentLimits.dropQueue) {
      if (line.event !== undefined) this.#skipped++;
      return;
    }
    if (this.#skipped > 0) {
      this.#queue.push(`${JSON.stringify({ skipped: this.#skipped } satisfies DropsLine)}\n`);
      this.#skipped = 0;
    }
    this.#queue.push(`${JSON.stringify(line)}\n`);
    this.#flush();
  }

  #flush(): void {
    while (this.#wanted) {
      const line = this.#queue.shift();
      if (line === undefined) return;
      this.#wanted = this.push(line);
    }
  }
}
