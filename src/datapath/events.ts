/** What the programs tell about verdicts, one by one: bpf/events.h. */
import type { IpAddress } from '../core/ip.ts';
import { RingBufferReader } from '../kernel/index.ts';
import {
  configFlag,
  decodeAddress,
  type Direction,
  directions,
  type EventKind,
  eventKinds,
  eventLosses,
  eventStruct,
  type Reason,
  reasons,
} from './abi.ts';
import type { DatapathMaps } from './maps.ts';

export interface DatapathEvent {
  /** CLOCK_MONOTONIC, as process.hrtime.bigint() reads it. */
  readonly timeNs: bigint;
  readonly endpointId: number;
  /** The rule that decided; 0 when none did. */
  readonly ruleId: number;
  /** Of the remote side; 0 when the packet has no readable address. */
  readonly identity: number;
  /** Of the frame, in bytes. */
  readonly length: number;
  /** The packet's; undefined when it is not IP. */
  readonly source: IpAddress | undefined;
  readonly destination: IpAddress | undefined;
  /** Ping has its identifier in one of them. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly protocol: number;
  readonly direction: Direction;
  /** `drop`: dropped. `audit`: let through by audit mode. `allow`: a new connection. */
  readonly kind: EventKind;
  readonly reason: Reason;
}

/** Reads the ring buffer; its pages are mapped when the first event is asked for. */
export class EventReader implements Disposable {
  readonly #maps: DatapathMaps;
  #ring: RingBufferReader | undefined;

  constructor(maps: DatapathMaps) {
    this.#maps = maps;
  }

  read(max: number): DatapathEvent[] {
    this.#ring ??= new RingBufferReader(this.#maps.byName.events);
    return this.#ring.read(max).map(decodeEvent);
  }

  lost(): bigint {
    const perCpu = this.#maps.byName.event_losses.lookup(new Uint8Array(4)) ?? new Uint8Array();
    let lost = 0n;
    for (let offset = 0; offset < perCpu.length; offset += eventLosses.size) {
      const { overBudget, bufferFull } = eventLosses.decode(perCpu.subarray(offset));
      lost += overBudget + bufferFull;
    }
    return lost;
  }

  setKinds({ allow }: { readonly allow: boolean }): void {
    const { flags } = this.#maps.readConfig();
    const wanted = allow ? flags | configFlag.eventAllow : flags & ~configFlag.eventAllow;
    if (wanted !== flags) this.#maps.writeConfig({ flags: wanted });
  }

  [Symbol.dispose](): void {
    this.#ring?.[Symbol.dispose]();
    this.#ring = undefined;
  }
}

function decodeEvent(bytes: Uint8Array): DatapathEvent {
  const { family, source, destination, direction, kind, reason, ...rest } = eventStruct.decode(bytes);
  const addresses = family === 4 || family === 6;
  return {
    ...rest,
    source: addresses ? decodeAddress(source, family) : undefined,
    destination: addresses ? decodeAddress(destination, family) : undefined,
    direction: nameOf(directions, direction, 'direction'),
    kind: nameOf(eventKinds, kind, 'kind'),
    reason: nameOf(reasons, reason, 'reason'),
  };
}

function nameOf<T>(names: readonly T[], index: number, what: string): T {
  const name = names[index];
  if (name === undefined) throw new RangeError(`event with ${what} ${index}`);
  return name;
}
