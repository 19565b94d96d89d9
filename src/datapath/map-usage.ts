/** How full the maps are, and what to do about it. */
import { possibleCpus } from '../kernel/index.ts';
import type { DatapathMaps, MapName } from './maps.ts';

export interface MapUsage {
  readonly map: MapName;
  /** In conntrack: connections that are alive. */
  readonly entries: number;
  readonly maxEntries: number;
  readonly full: boolean;
  /** What an operator can do when it is full. */
  readonly remedy: string;
}

/** The other maps (docs/reference/limits.md) are never full: what they forget is asked for again, or was no longer of use. */
export const mapRemedies = {
  endpoints: 'schedule fewer pods on the node',
  policy:
    'let policies select fewer peers, or list fewer separate ports; or raise --map-size policy=N and restart the agent',
  ipcache: 'use fewer separate ipBlock prefixes; or raise --map-size ipcache=N and restart the agent',
  conntrack:
    'raise --map-size conntrack=N and restart the agent: connections that were not used for the longest time are forgotten, and their next packet is judged as that of a new one',
  metrics: 'schedule fewer pods on the node: packets are judged, but no longer counted',
  rule_counters: 'let fewer rules select each pod: decisions are made, but no longer counted',
} as const satisfies Partial<Record<MapName, string>>;

/**
 * The kernel forgets the first connections before all places are taken: each CPU keeps up to 128 of them for itself
 * (LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c), and some are to be free when it looks for more.
 */
function connectionsWithRoom(places: number): number {
  return Math.max(places / 2, Math.min(places * 0.9, places - 128 * (possibleCpus() + 1)));
}

export type CountedMap = keyof typeof mapRemedies;

/** `entries`: undefined for what has not been counted yet, which is left out. */
export function mapUsage(
  maps: DatapathMaps,
  entries: Readonly<Record<CountedMap, number | undefined>>,
): readonly MapUsage[] {
  return (Object.keys(mapRemedies) as CountedMap[]).flatMap((map) => {
    const used = entries[map];
    if (used === undefined) return [];
    const size = maps.byName[map].spec.maxEntries;
    // 0 is no endpoint id; in the ipcache one place stays free (IpcacheMap.capacity).
    const maxEntries = map === 'endpoints' || map === 'ipcache' ? size - 1 : size;
    const full = used >= (map === 'conntrack' ? connectionsWithRoom(maxEntries) : maxEntries);
    return [{ map, entries: used, maxEntries, full, remedy: mapRemedies[map] }];
  });
}
