/** A datapath event with names instead of numbers. */
import type { FlowEvent, ObjectName, RuleName } from '../../api/agent-api.ts';
import type { DatapathEvent } from '../../datapath/events.ts';
import type { AddressBook } from '../../policy/address-book.ts';
import { protocolName } from '../../policy/port-set.ts';
import type { EndpointRecord } from '../endpoint-store.ts';

export interface EventNames {
  readonly node: string;
  readonly book: () => AddressBook;
  readonly ruleOf: (id: number) => RuleName;
  readonly endpoints: () => readonly EndpointRecord[];
  /** CLOCK_MONOTONIC in nanoseconds, the clock of the kernel's events. */
  readonly monotonicNs: () => bigint;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
}

const icmp = [1, 58];

/** Remembers the pods of endpoints that are gone: their last packets are told after them. */
export class EventNamer {
  readonly #names: EventNames;
  readonly #pods = new Map<number, ObjectName>();

  constructor(names: EventNames) {
    this.#names = names;
  }

  describe(event: DatapathEvent): FlowEvent {
    const { source, destination, protocol, sourcePort, destinationPort } = event;
    const book = this.#names.book();
    const pod = this.#podOf(event.endpointId);
    return {
      time: this.#timeOf(event.timeNs),
      node: this.#names.node,
      kind: event.kind,
      reason: event.reason,
      direction: event.direction,
      rule: this.#names.ruleOf(event.ruleId),
      ...(pod && { pod }),
      ...(source && { source: book.partyAt(source) }),
      ...(destination && { destination: book.partyAt(destination) }),
      protocol: source === undefined ? 'not IP' : protocolName(protocol),
      ...(source !== undefined && !icmp.includes(protocol) ? { sourcePort, destinationPort } : {}),
      length: event.length,
      identity: event.identity,
    };
  }

  #podOf(endpointId: number): ObjectName | undefined {
    const record = this.#names.endpoints().find((one) => one.endpointId === endpointId);
    if (record === undefined) return this.#pods.get(endpointId);
    const { namespace, name } = record.pod;
    this.#pods.delete(endpointId);
    this.#pods.set(endpointId, { namespace, name });
    const [oldest] = this.#pods.keys();
    if (this.#pods.size > 1_024 && oldest !== undefined) this.#pods.delete(oldest);
    return { namespace, name };
  }

  #timeOf(timeNs: bigint): string {
    const agoMs = Number(this.#names.monotonicNs() - timeNs) / 1e6;
    return new Date(this.#names.nowMs() - Math.max(0, agoMs)).toISOString();
  }
}
