/** What the kernel counted: packets by verdict, and decisions by rule. */
import type { BpfMap } from '../kernel/index.ts';
import {
  type Direction,
  directions,
  endpointIdKey,
  metricsKey,
  metricsValue,
  type Reason,
  reasons,
  ruleCounter,
  ruleCounterKey,
} from './abi.ts';

export interface Counter<R extends Reason = Reason> {
  readonly endpointId: number;
  readonly direction: Direction;
  readonly reason: R;
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** How often a rule decided about a connection: when it was opened, and when it was judged again. */
export interface RuleCounter {
  readonly endpointId: number;
  /** Of the connection. */
  readonly direction: Direction;
  /** 0: no rule allowed it. */
  readonly ruleId: number;
  readonly decisions: bigint;
}

export interface CounterMaps {
  readonly metrics: BpfMap;
  readonly forwarded: BpfMap;
}

/** Counters that are 0 are left out. */
export function readCounters({ metrics, forwarded }: CounterMaps, endpointIds: readonly number[]): Counter[] {
  const passed = endpointIds.flatMap((endpointId) =>
    directions.flatMap((direction): Counter[] => {
      const value = forwarded.lookup(forwardedKey(endpointId, direction));
      const sum = sumOf(value ?? new Uint8Array());
      return sum.packets === 0n ? [] : [{ endpointId, direction, reason: 'forwarded', ...sum }];
    }),
  );
  return [...passed, ...[...metrics.entries()].map(([key, value]) => decodeCounter(key, value))];
}

export function removeCounters({ metrics, forwarded }: CounterMaps, endpointId: number): void {
  for (const direction of directions) {
    const key = forwardedKey(endpointId, direction);
    if (forwarded.lookup(key) !== undefined) forwarded.update(key, new Uint8Array(forwarded.valueLength));
  }
  metrics.deleteBatch(
    directions.flatMap((_, direction) =>
      reasons.map((__, reason) => metricsKey.encode({ endpointId, reason, direction })),
    ),
  );
}

/** Counters of endpoints and rules for which `isLive` is false are removed from the map on the way. */
export function readRuleCounters(map: BpfMap, isLive: (endpointId: number, ruleId: number) => boolean): RuleCounter[] {
  const dead: Uint8Array[] = [];
  const live: RuleCounter[] = [];
  for (const [key, value] of map.entries()) {
    const { endpointId, ruleId, direction } = ruleCounterKey.decode(key);
    const { decisions } = ruleCounter.decode(value);
    if (!isLive(endpointId, ruleId)) dead.push(key);
    else live.push({ endpointId, direction: directionOf(direction), ruleId, decisions });
  }
  map.deleteBatch(dead);
  return live;
}

export function removeRuleCounters(map: BpfMap, endpointId: number, ruleIds: Iterable<number>): void {
  map.deleteBatch(
    [...ruleIds].flatMap((ruleId) =>
      directions.map((_, direction) => ruleCounterKey.encode({ endpointId, ruleId, direction })),
    ),
  );
}

function decodeCounter(keyBytes: Uint8Array, perCpu: Uint8Array): Counter {
  const key = metricsKey.decode(keyBytes);
  const reason = reasons[key.reason];
  if (reason === undefined) throw new RangeError(`counter with reason ${key.reason}`);
  return { endpointId: key.endpointId, direction: directionOf(key.direction), reason, ...sumOf(perCpu) };
}

function forwardedKey(endpointId: number, direction: Direction): Uint8Array {
  return endpointIdKey.encode({ endpointId: endpointId * 2 + directions.indexOf(direction) });
}

function sumOf(perCpu: Uint8Array): { packets: bigint; bytes: bigint } {
  let packets = 0n;
  let bytes = 0n;
  for (let offset = 0; offset < perCpu.length; offset += metricsValue.size) {
    const value = metricsValue.decode(perCpu.subarray(offset));
    packets += value.packets;
    bytes += value.bytes;
  }
  return { packets, bytes };
}

function directionOf(index: number): Direction {
  const direction = directions[index];
  if (direction === undefined) throw new RangeError(`counter with direction ${index}`);
  return direction;
}
