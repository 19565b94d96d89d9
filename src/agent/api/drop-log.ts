/** The last events of the datapath, named, and those who follow them. Limits by name: src/agent/limits.ts. */
import type { FlowEvent } from '../../api/agent-api.ts';
import { SluiceError } from '../../core/error.ts';
import type { DatapathEvent } from '../../datapath/events.ts';
import { agentLimits } from '../limits.ts';

export interface DropFilter {
  /** "namespace/name": of the protected pod, or of either end. */
  readonly pod?: string | undefined;
  readonly reason?: string | undefined;
  readonly kinds: readonly FlowEvent['kind'][];
}

export interface DropSource {
  readEvents(max: number): readonly DatapathEvent[];
  setEventKinds(kinds: { readonly allow: boolean }): void;
  lostEvents(): bigint;
}

interface Follower {
  readonly filter: DropFilter;
  readonly onEvent: (event: FlowEvent) => void;
}

export class DropLog {
  readonly #source: DropSource;
  readonly #describe: (event: DatapathEvent) => FlowEvent;
  readonly #events: FlowEvent[] = [];
  readonly #followers = new Set<Follower>();
  readonly #lostBefore: bigint;
  /** Runs while somebody follows. */
  #pollTimer: NodeJS.Timeout | undefined;

  constructor(source: DropSource, describe: (event: DatapathEvent) => FlowEvent) {
    this.#source = source;
    this.#describe = describe;
    this.#lostBefore = source.lostEvents();
    source.setEventKinds({ allow: false });
  }

  /** Since this agent started. */
  get lost(): number {
    return Number(this.#source.lostEvents() - this.#lostBefore);
  }

  /** Takes what the kernel has; to be called often. Names are those of this moment: addresses are used again. */
  poll(): void {
    for (const raw of this.#source.readEvents(agentLimits.eventsPerPoll)) {
      const event = this.#describe(raw);
      if (event.kind !== 'allow') this.#keep(event);
      for (const { filter, onEvent } of this.#followers) if (passes(event, filter)) onEvent(event);
    }
  }

  /** Oldest first; the last `limit` of those that pass. New connections are not kept. */
  snapshot(filter: DropFilter, limit: number): FlowEvent[] {
    this.poll();
    const passing = this.#events.filter((event) => passes(event, filter));
    return passing.slice(Math.max(0, passing.length - limit));
  }

  /** Answers how to stop. Throws limit_exceeded when too many follow. */
  follow(filter: DropFilter, onEvent: (event: FlowEvent) => void): () => void {
    if (this.#followers.size >= agentLimits.dropFollowers) {
      throw new SluiceError({
        ...{ code: 'limit_exceeded', operation: 'follow', object: 'drops' },
        what: `${agentLimits.dropFollowers} readers follow them already`,
        remedy: 'end another "sluice drops --follow" on this node',
      });
    }
    const follower = { filter, onEvent };
    this.#followers.add(follower);
    this.#pollTimer ??= setInterval(() => this.poll(), agentLimits.followedEventPollMs).unref();
    this.#tellKinds();
    return () => {
      if (this.#followers.delete(follower)) this.#tellKinds();
      if (this.#followers.size > 0) return;
      clearInterval(this.#pollTimer);
      this.#pollTimer = undefined;
    };
  }

  #keep(event: FlowEvent): void {
    this.#events.push(event);
    // In larger steps, since each moves the whole array.
    if (this.#events.length > agentLimits.dropsKept * 1.25) {
      this.#events.splice(0, this.#events.length - agentLimits.dropsKept);
    }
  }

  /** Every new connection is told only while somebody wants to know. */
  #tellKinds(): void {
    this.#source.setEventKinds({ allow: [...this.#followers].some(({ filter }) => filter.kinds.includes('allow')) });
  }
}

export function passes(event: FlowEvent, { pod, reason, kinds }: DropFilter): boolean {
  if (!kinds.includes(event.kind)) return false;
  if (reason !== undefined && event.reason !== reason) return false;
  if (pod === undefined) return true;
  const names = [event.pod, event.source, event.destination].map((one) => `${one?.namespace ?? ''}/${one?.name ?? ''}`);
  return names.includes(pod);
}
