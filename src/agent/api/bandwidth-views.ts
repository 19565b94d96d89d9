/** Bandwidth limits as the agent's API shows them, with the rate of a short sample. */
import type { BandwidthAnswer, BandwidthInfo } from '../../api/agent-api.ts';
import type { Clock } from '../../core/clock.ts';
import { bandwidthUsage, type BandwidthUsage, type UsageSource } from '../bandwidth-usage.ts';
import type { EndpointRecord } from '../endpoint-store.ts';

/** What bandwidth views read from. */
export interface BandwidthView extends UsageSource {
  /** Sentences: what limits of this node cannot do, because of its kernel. */
  readonly shortfalls: readonly string[];
  readonly sleep: Clock['sleep'];
}

export interface BandwidthQuestion {
  readonly nodeName: string;
  readonly view: BandwidthView;
  readonly records: () => readonly EndpointRecord[];
  /** How long rates are measured; 0: no rates. */
  readonly sampleMs: number;
}

export async function bandwidthAnswer({
  nodeName,
  view,
  records,
  sampleMs,
}: BandwidthQuestion): Promise<BandwidthAnswer> {
  const before = sampleMs > 0 ? bandwidthUsage(records(), view) : [];
  if (sampleMs > 0) await view.sleep(sampleMs);
  const all = records();
  const usage = bandwidthUsage(all, view);
  return {
    node: nodeName,
    shortfalls: view.shortfalls,
    limits: bandwidthInfos(nodeName, usage, before),
    unlimited: all.length - new Set(usage.map(({ record }) => record)).size,
  };
}

/** Sorted by place; with rates where `before` knows the same limit. */
export function bandwidthInfos(
  nodeName: string,
  usage: readonly BandwidthUsage[],
  before: readonly BandwidthUsage[] = [],
): BandwidthInfo[] {
  const earlier = new Map(before.map((one) => [keyOf(one), one]));
  return usage.map((one) => infoOf(nodeName, one, earlier.get(keyOf(one)))).sort(byPlace);
}

function infoOf(node: string, now: BandwidthUsage, before: BandwidthUsage | undefined): BandwidthInfo {
  const { record, direction, limit, state } = now;
  const rateBps = rateBetween(before, now);
  return {
    node,
    pod: { namespace: record.pod.namespace, name: record.pod.name },
    interface: record.ifName,
    direction,
    limitBps: limit.bps,
    source: limit.source,
    ...(state && {
      mechanism: state.mechanism,
      statistics: {
        bytes: Number(state.statistics.sentBytes),
        packets: Number(state.statistics.sentPackets),
        drops: state.statistics.drops,
        backlogBytes: state.statistics.backlogBytes,
        backlogPackets: state.statistics.backlogPackets,
      },
    }),
    ...(rateBps !== undefined && { rateBps }),
  };
}

/** Undefined when the limit was made, or made anew, in between. */
function rateBetween(before: BandwidthUsage | undefined, now: BandwidthUsage): number | undefined {
  if (before?.state === undefined || now.state === undefined) return undefined;
  const bytes = now.state.statistics.sentBytes - before.state.statistics.sentBytes;
  const elapsedMs = now.atMs - before.atMs;
  return bytes < 0n || elapsedMs <= 0 ? undefined : Math.round((Number(bytes) * 8000) / elapsedMs);
}

function keyOf({ record, direction }: BandwidthUsage): string {
  return `${record.endpointId}/${direction}`;
}

function byPlace(a: BandwidthInfo, b: BandwidthInfo): number {
  const [left, right] = [a, b].map(({ pod, interface: name, direction }) =>
    [pod.namespace, pod.name, name, direction].join('/'),
  );
  return (left ?? '') < (right ?? '') ? -1 : 1;
}
