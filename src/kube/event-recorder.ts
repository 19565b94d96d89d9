/**
 * Kubernetes events about objects, as `kubectl describe` shows them.
 *
 * The same event (object, type, reason, message) is written once and counted after that. Writing is behind the
 * caller's back and one at a time; while a write is under way, repetitions only add to the count. An event that
 * cannot be written is logged: the work it tells of must not wait for it.
 */

import { createHash } from 'node:crypto';
import type { Event, KubeObject, ObjectReference } from '../api/kubernetes.ts';
import { apiVersionOf, events, type GroupVersionResource } from '../api/resources.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from './client.ts';
import { isAlreadyExists, isNotFound } from './error.ts';
import { kubeLimits } from './limits.ts';
import { timestamp } from '../core/timestamp.ts';

export interface EventRecorderOptions {
  readonly client: KubeClient;
  /** "sluice-agent": shown in the From column. */
  readonly component: string;
  /** The node, for components that run on each. */
  readonly host?: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** 0 ≤ x < 1. */
  readonly random?: (() => number) | undefined;
}

export interface EventNote {
  readonly about: ObjectReference;
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, for machines: "FailedCreatePodSandBox". */
  readonly reason: string;
  readonly message: string;
  /** Every node would say the same of the object: they write one event together, not one each. */
  readonly shared?: boolean;
}

interface Series {
  readonly note: EventNote;
  /** The event's name once it is written. */
  name: string | undefined;
  firstMs: number;
  lastMs: number;
  count: number;
  unwritten: boolean;
}

export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #series = new Map<string, Series>();
  #writing: Promise<void> | undefined;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
  }

  /** Returns at once. */
  record(note: EventNote): void {
    const nowMs = this.#options.clock.nowMs();
    const key = JSON.stringify([
      note.about.kind,
      note.about.namespace,
      note.about.name,
      note.about.uid,
      note.about.fieldPath,
      note.type,
      note.reason,
      note.message,
    ]);
    const series = this.#series.get(key) ?? {
      note,
      name: undefined,
      firstMs: nowMs,
      lastMs: nowMs,
      count: 0,
      unwritten: false,
    };
    series.count++;
    series.lastMs = nowMs;
    series.unwritten = true;
    this.#series.delete(key);
    this.#series.set(key, series);
    this.#forgetOldest();
    this.#writing ??= this.#writeAll().finally(() => (this.#writing = undefined));
  }

  /** Resolves when everything recorded so far is written or given up. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  #forgetOldest(): void {
    if (this.#series.size <= kubeLimits.maxEventSeries) return;
    for (const key of this.#series.keys()) {
      this.#series.delete(key);
      return;
    }
  }

  async #writeAll(): Promise<void> {
    for (;;) {
      const next = [...this.#series.values()].find((series) => series.unwritten);
      if (next === undefined) return;
      next.unwritten = false;
      try {
        await this.#write(next);
      } catch (error) {
        const { about, reason, message } = next.note;
        const fields = { about: `${about.kind} ${about.namespace ?? ''}/${about.name}`, reason, message };
        this.#options.log.warn(fields, `event not written: ${formatErrorChain(error)}`);
      }
    }
  }

  async #write(series: Series): Promise<void> {
    const { client } = this.#options;
    const namespace = namespaceFor(series.note.about);
    const seen = { lastTimestamp: timestamp(series.lastMs) };
    // How often all nodes together have seen it, nobody counts.
    const counted = series.note.shared === true ? seen : { ...seen, count: series.count };
    if (series.name !== undefined) {
      try {
        await client.patch(events, { namespace, name: series.name }, { type: 'merge', body: counted });
        return;
      } catch (error) {
        // The server keeps events for an hour; a later one starts a new count.
        if (!isNotFound(error)) throw error;
        series.count = 1;
        series.firstMs = series.lastMs;
      }
    }
    const name = `${series.note.about.name ?? 'unknown'}.${this.#suffix(series.note)}`;
    try {
      await client.create<Event>(events, this.#event(series, namespace, name));
    } catch (error) {
      if (series.note.shared !== true || !isAlreadyExists(error)) throw error;
      await client.patch(events, { namespace, name }, { type: 'merge', body: seen });
    }
    series.name = name;
  }

  /** Of a shared event: the same on every node. */
  #suffix({ about, type, reason, message, shared }: EventNote): string {
    if (shared === true) {
      const text = JSON.stringify([about.kind, about.uid, type, reason, message]);
      return createHash('sha256').update(text).digest('hex').slice(0, 16);
    }
    const random = Math.floor(this.#random() * 0x1_0000);
    return `${this.#options.clock.nowMs().toString(16)}${random.toString(16).padStart(4, '0')}`;
  }

  #event(series: Series, namespace: string, name: string): Event {
    const { component } = this.#options;
    const { about, type, reason, message, shared } = series.note;
    const host = shared === true ? undefined : this.#options.host;
    return {
      metadata: { namespace, name },
      involvedObject: about,
      type,
      reason,
      message:
        message.length > kubeLimits.maxEventMessageLength
          ? `${message.slice(0, kubeLimits.maxEventMessageLength - 1)}…`
          : message,
      source: host === undefined ? { component } : { component, host },
      reportingComponent: component,
      reportingInstance: host ?? '',
      count: series.count,
      firstTimestamp: timestamp(series.firstMs),
      lastTimestamp: timestamp(series.lastMs),
    };
  }

  #random(): number {
    return (this.#options.random ?? Math.random)();
  }
}

/** What an event says it is about. */
export function referenceTo(
  gvr: Pick<GroupVersionResource, 'group' | 'version' | 'kind'>,
  object: KubeObject,
): ObjectReference {
  const { namespace, name, uid, resourceVersion } = object.metadata ?? {};
  return { apiVersion: apiVersionOf(gvr), kind: gvr.kind, namespace, name, uid, resourceVersion };
}

/** Events about cluster-scoped objects live in "default". */
function namespaceFor(about: ObjectReference): string {
  return about.namespace === undefined || about.namespace === '' ? 'default' : about.namespace;
}
