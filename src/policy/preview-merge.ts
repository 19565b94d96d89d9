/** Few lines for many flows: what differs in one side only becomes one flow. */

import type { FlowChange, FlowSide } from '../api/agent-api.ts';

export type Flow = FlowChange;

/** First the destinations of each source are put together, then the sources that so became equal. Denials come first. */
export function mergeFlows(flows: Iterable<Flow>): Flow[] {
  const merged = mergeSide(mergeSide([...flows], 'to'), 'from');
  return merged.sort((a, b) => (a.change === b.change ? 0 : a.change === 'deny' ? -1 : 1));
}

function mergeSide(flows: readonly Flow[], side: 'from' | 'to'): Flow[] {
  const merged = new Map<string, Flow>();
  for (const flow of flows) {
    const key = JSON.stringify({ ...flow, [side]: flow[side].kind === 'outside' ? flow[side] : flow[side].kind });
    const known = merged.get(key);
    merged.set(key, known === undefined ? flow : { ...known, [side]: union(known[side], flow[side]) });
  }
  return [...merged.values()];
}

function union(a: FlowSide, b: FlowSide): FlowSide {
  if (a.kind === 'pods' && b.kind === 'pods') return { kind: 'pods', pods: sorted([...a.pods, ...b.pods]) };
  if (a.kind === 'nodes' && b.kind === 'nodes') return { kind: 'nodes', nodes: sorted([...a.nodes, ...b.nodes]) };
  return a;
}

function sorted(names: readonly string[]): string[] {
  return [...new Set(names)].sort();
}
