/** How full the maps are, and what to do about it. */
import type { DatapathMaps, MapName } from './maps.ts';

export interface MapUsage {
  readonly map: MapName;
  readonly entries: number;
  readonly maxEntries: number;
  readonly full: boolean;
  /** What an operator can do when it is full. */
  readonly remedy: string;
}

/** Maps that the kernel empties by itself (conntrack, fragments, event_budgets) are never full; docs/reference/limits.md. */
export const mapRemedies = {
  endpoints: 'schedule fewer pods on the node',
  policy:
    'let policies select fewer peers, or list fewer separate ports; or raise --map-size policy=N and restart the agent',
  ipcache: 'use fewer separate ipBlock prefixes; or raise --map-size ipcache=N and restart the agent',
  metrics: 'schedule fewer pods on the node: packets are judged, but no longer counted',
  rule_counters: 'let fewer rules select each pod: decisions are made, but no longer counted',
} as const satisfies Partial<Record<MapName, string>>;

export type CountedMap = keyof typeof mapRemedies;

export function mapUsage(maps: DatapathMaps, entries: Readonly<Record<CountedMap, number>>): MapUsage[] {
  return (Object.keys(mapRemedies) as CountedMap[]).map((map) => {
    const size = maps.byName[map].spec.maxEntries;
    // 0 is no endpoint id; in the ipcache one place stays free (IpcacheMap.capacity).
    const maxEntries = map === 'endpoints' || map === 'ipcache' ? size - 1 : size;
    return { map, entries: entries[map], maxEntries, full: entries[map] >= maxEntries, remedy: mapRemedies[map] };
  });
}
