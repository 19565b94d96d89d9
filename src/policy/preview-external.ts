/** Changed flows between pods and what is no pod: other nodes, and addresses outside the cluster by ipBlock prefix. */

import type { FlowSide } from '../api/agent-api.ts';
import { comparePrefix, formatPrefix, parsePrefix, prefixContains, type IpFamily, type IpPrefix } from '../core/ip.ts';
import type { IdentityId } from './identity.ts';
import { worldIdentity } from './identity.ts';
import { nodeAddresses } from './ipcache.ts';
import { flowsOf, type Scene } from './preview-scene.ts';
import type { PodGroup } from './preview-group.ts';
import type { Flow } from './preview-merge.ts';
import type { Direction } from './node.ts';
import { lookupIdentity } from './simulate.ts';

export function* externalChanges(scene: Scene): Iterable<Flow> {
  const outside = outsideAreas(scene);
  for (const group of scene.affected) {
    for (const direction of ['ingress', 'egress'] as const) {
      yield* nodeChanges(scene, group, direction);
      yield* outsideChanges(scene, group, direction, outside);
    }
  }
}

function* nodeChanges(scene: Scene, group: PodGroup, direction: Direction): Iterable<Flow> {
  for (const node of scene.nodes) {
    const name = node.metadata?.name ?? '';
    // A node always reaches its own pods.
    if (direction === 'ingress' && group.nodes.size === 1 && group.nodes.has(name)) continue;
    const seen = new Set<string>();
    for (const ip of nodeAddresses(node)) {
      if (group.identities[ip.family] === undefined) continue;
      for (const flow of changesWith(scene, group, direction, lookupIdentity(scene.ipcache, ip), {
        kind: 'nodes',
        nodes: [name],
      })) {
        const key = `${flow.change} ${flow.ports}`;
        if (!seen.has(key)) yield flow;
        seen.add(key);
      }
    }
  }
}

/** Addresses that policies tell apart: those in `prefix` and in none of the areas inside it. */
interface Area {
  readonly family: IpFamily;
  readonly prefix: IpPrefix;
  readonly identity: IdentityId;
  /** Index of the smallest area around it. */
  readonly parent: number | undefined;
}

/** All of IPv4 and of IPv6, and every prefix in use; an area comes after the one around it. */
function outsideAreas(scene: Scene): Area[] {
  const texts = new Set(['0.0.0.0/0', '::/0', ...scene.prefixes]);
  const prefixes = [...texts].flatMap((text) => parsePrefix(text) ?? []).sort(comparePrefix);
  return prefixes.map((prefix, index) => ({
    family: prefix.address.family,
    prefix,
    identity: scene.ipcache.get(formatPrefix(prefix)) ?? worldIdentity,
    parent: lastIndexWhere(prefixes.slice(0, index), (outer) => prefixContains(outer, prefix)),
  }));
}

function outsideChanges(scene: Scene, group: PodGroup, direction: Direction, areas: readonly Area[]): Flow[] {
  const changes = areas.map((area) =>
    group.identities[area.family] === undefined
      ? []
      : changesWith(scene, group, direction, area.identity, { kind: 'outside', except: [] }),
  );
  const texts = changes.map((flows) => JSON.stringify(flows));
  // An area that changes as the one around it does is not worth a line.
  const standsOut = (index: number): boolean => {
    const parent = areas[index]?.parent;
    return parent === undefined || texts[parent] !== texts[index];
  };
  const flows = areas.flatMap((area, index) => {
    if (!standsOut(index)) return [];
    const except = areas.flatMap((inner, i) =>
      standsOut(i) && rootOf(areas, i, standsOut) === index ? [formatPrefix(inner.prefix)] : [],
    );
    const side: FlowSide = { kind: 'outside', prefix: formatPrefix(area.prefix), except };
    return (changes[index] ?? []).map((flow) =>
      direction === 'egress' ? { ...flow, to: side } : { ...flow, from: side },
    );
  });
  return joinFamilies(flows, direction === 'egress' ? 'to' : 'from');
}

/** The area that stands out around this one. */
function rootOf(areas: readonly Area[], index: number, standsOut: (index: number) => boolean): number | undefined {
  let parent = areas[index]?.parent;
  while (parent !== undefined && !standsOut(parent)) parent = areas[parent]?.parent;
  return parent;
}

/** The same for all of IPv4 and all of IPv6 is the same for anywhere. */
function joinFamilies(flows: readonly Flow[], side: 'from' | 'to'): Flow[] {
  const prefixOf = (flow: Flow): string | undefined => (flow[side].kind === 'outside' ? flow[side].prefix : undefined);
  const exceptOf = (flow: Flow): readonly string[] => (flow[side].kind === 'outside' ? flow[side].except : []);
  return flows.flatMap((flow) => {
    const like = (other: Flow): boolean => other.change === flow.change && other.ports === flow.ports;
    const twin = (prefix: string): Flow | undefined => flows.find((other) => prefixOf(other) === prefix && like(other));
    if (prefixOf(flow) === '::/0' && twin('0.0.0.0/0') !== undefined) return [];
    const other = prefixOf(flow) === '0.0.0.0/0' ? twin('::/0') : undefined;
    if (other === undefined) return [flow];
    return [{ ...flow, [side]: { kind: 'outside', except: [...exceptOf(flow), ...exceptOf(other)] } }];
  });
}

function changesWith(
  scene: Scene,
  group: PodGroup,
  direction: Direction,
  identity: IdentityId,
  other: FlowSide,
): Flow[] {
  const { before, after } = scene.reach(group);
  const pods = { kind: 'pods', pods: group.pods } as const;
  const sides = direction === 'egress' ? { from: pods, to: other } : { from: other, to: pods };
  return flowsOf(before.ports(direction, identity), after.ports(direction, identity), sides);
}

function lastIndexWhere<T>(list: readonly T[], fits: (one: T) => boolean): number | undefined {
  for (let index = list.length - 1; index >= 0; index--) if (fits(list[index] as T)) return index;
  return undefined;
}
