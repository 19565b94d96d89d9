/** What limited interfaces use of their limits, as their qdiscs count it. */
import type { LimitState } from '../datapath/shaper.ts';
import { bandwidthDirections, type BandwidthDirection } from './bandwidth-rate.ts';
import type { BandwidthLimit } from './bandwidth-sources.ts';
import type { EndpointRecord } from './endpoint-store.ts';

/** One limited direction of an interface. */
export interface BandwidthUsage {
  readonly record: EndpointRecord;
  readonly direction: BandwidthDirection;
  readonly limit: BandwidthLimit;
  /** When it was read, on the clock that was given. */
  readonly atMs: number;
  /** Undefined while the kernel does not have the limit: it is put back with the next look. */
  readonly state: LimitState | undefined;
}

export interface UsageSource {
  readonly read: (place: {
    readonly netns: string;
    readonly interfaceName: string;
  }) => Readonly<Record<BandwidthDirection, LimitState | undefined>>;
  readonly monotonicMs: () => number;
}

/** Takes about a millisecond for each limited endpoint. */
export function bandwidthUsage(records: readonly EndpointRecord[], source: UsageSource): BandwidthUsage[] {
  return records.flatMap((record) => {
    const { limits = {}, netns, ifName: interfaceName } = record;
    const limited = bandwidthDirections.flatMap((direction) => {
      const limit = limits[direction];
      return limit === undefined ? [] : [{ direction, limit }];
    });
    if (limited.length === 0) return [];
    const states = readSafely(source, { netns, interfaceName });
    const atMs = source.monotonicMs();
    return limited.map(({ direction, limit }) => ({ record, direction, limit, atMs, state: states?.[direction] }));
  });
}

function readSafely(
  source: UsageSource,
  place: Parameters<UsageSource['read']>[0],
): ReturnType<UsageSource['read']> | undefined {
  try {
    return source.read(place);
  } catch {
    return undefined; // the pod is just ending
  }
}
