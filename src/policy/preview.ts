/**
 * What a change of policies would change, before it is applied: every pod-to-pod and external flow whose verdict differs,
 * and every connection that the kernel remembers. Both sides of a flow count: opening an egress that the destination's
 * ingress denies changes nothing.
 *
 * Pods that no policy can tell apart are one group, so the work grows with groups and not with pods.
 */

import type { ConnectionChange, IsolationChange, ObjectName, PreviewAnswer } from '../api/agent-api.ts';
import type { IpAddress, IpFamily } from '../core/ip.ts';
import { AddressBook } from './address-book.ts';
import { portSetOf } from './judge.ts';
import type { Direction } from './node.ts';
import { type PortSet, protocolName } from './port-set.ts';
import { externalChanges } from './preview-external.ts';
import type { PodGroup } from './preview-group.ts';
import { mergeFlows, type Flow } from './preview-merge.ts';
import { flowsOf, Scene, type PolicyChange, type PreviewWorld } from './preview-scene.ts';
import { lookupIdentity } from './simulate.ts';

/** As conntrack has it. */
export interface KnownConnection {
  /** The pod whose agent asks. */
  readonly pod: ObjectName;
  /** Of the packet that opened it. */
  readonly direction: Direction;
  readonly local: IpAddress;
  readonly remote: IpAddress;
  readonly localPort: number;
  readonly remotePort: number;
  readonly protocol: number;
}

export type Preview = Omit<PreviewAnswer, 'node' | 'connections' | 'connectionsExamined'> & {
  readonly connections: readonly (Omit<ConnectionChange, 'node' | 'rule'> & { readonly index: number })[];
};

/** More changed flows than anyone reads are counted only. */
export const maxPreviewFlows = 1_000;

export function preview(
  world: PreviewWorld,
  change: PolicyChange,
  connections: readonly KnownConnection[] = [],
): Preview {
  const scene = new Scene(world, change);
  const flows = mergeFlows([...podChanges(scene), ...externalChanges(scene)]);
  return {
    policies: scene.policyChanges,
    diagnostics: scene.diagnostics,
    isolation: isolationChanges(scene),
    flows: flows.slice(0, maxPreviewFlows),
    flowsOmitted: Math.max(0, flows.length - maxPreviewFlows),
    connections: connectionChanges(scene, world, connections),
  };
}

function* podChanges(scene: Scene): Iterable<Flow> {
  const affected = new Set(scene.affected);
  for (const from of scene.groups) {
    for (const to of affected.has(from) ? scene.groups : scene.affected) {
      // One pod alone has no other of its group to talk to.
      if (from === to && from.pods.length === 1) continue;
      const flows = ([4, 6] as const).flatMap((family) => pairChanges(scene, from, to, family));
      yield* withoutEqualFamilies(flows, from, to);
    }
  }
}

function pairChanges(scene: Scene, from: PodGroup, to: PodGroup, family: IpFamily): Flow[] {
  const [source, destination] = [from.identities[family], to.identities[family]];
  if (source === undefined || destination === undefined) return [];
  const [sending, receiving] = [scene.reach(from), scene.reach(to)];
  const passing = (when: 'before' | 'after'): PortSet =>
    sending[when].ports('egress', destination).intersect(receiving[when].ports('ingress', source));
  const sides = { from: { kind: 'pods', pods: from.pods }, to: { kind: 'pods', pods: to.pods }, family } as const;
  return flowsOf(passing('before'), passing('after'), sides);
}

/** What holds for every family that both sides have needs no family. */
function withoutEqualFamilies(flows: readonly Flow[], from: PodGroup, to: PodGroup): Flow[] {
  const families = ([4, 6] as const).filter(
    (one) => from.identities[one] !== undefined && to.identities[one] !== undefined,
  );
  const same = (a: Flow, b: Flow): boolean => a.change === b.change && a.ports === b.ports;
  return flows.flatMap((flow) => {
    if (!families.every((family) => flows.some((one) => one.family === family && same(one, flow)))) return [flow];
    const { family, ...rest } = flow;
    return family === families[0] ? [rest] : [];
  });
}

function isolationChanges(scene: Scene): IsolationChange[] {
  return (['ingress', 'egress'] as const).flatMap((direction) =>
    [true, false].flatMap((isolated) => {
      const changed = scene.affected.filter((group) => {
        const { before, after } = scene.reach(group);
        return before.isolated[direction] !== isolated && after.isolated[direction] === isolated;
      });
      const pods = changed.flatMap((group) => group.pods).sort();
      return pods.length === 0 ? [] : [{ pods, direction, isolated }];
    }),
  );
}

function connectionChanges(
  scene: Scene,
  world: PreviewWorld,
  connections: readonly KnownConnection[],
): Preview['connections'] {
  const groups = new Map(scene.affected.flatMap((group) => group.pods.map((pod) => [pod, group] as const)));
  const book = new AddressBook(world.pods, world.nodes);
  return connections.flatMap((connection, index) => {
    const group = groups.get(`${connection.pod.namespace}/${connection.pod.name}`);
    if (group === undefined || isOwnNode(book, connection)) return [];
    const { before, after } = scene.reach(group);
    const { direction, protocol, local, remote, localPort, remotePort } = connection;
    const identity = lookupIdentity(scene.ipcache, remote);
    const asked = portSetOf({ protocol, port: direction === 'egress' ? remotePort : localPort });
    const [was, is] = [before, after].map((reach) => reach.ports(direction, identity).covers(asked));
    if (was === is) return [];
    const [own, other] = [book.partyAt(local), book.partyAt(remote)];
    const [from, to] = direction === 'egress' ? [own, other] : [other, own];
    const [sourcePort, destinationPort] = direction === 'egress' ? [localPort, remotePort] : [remotePort, localPort];
    const change = is === true ? ('allow' as const) : ('deny' as const);
    return [{ index, change, direction, from, to, protocol: protocolName(protocol), sourcePort, destinationPort }];
  });
}

function isOwnNode(book: AddressBook, { direction, local, remote }: KnownConnection): boolean {
  const node = book.nodeAt(remote)?.metadata?.name;
  return direction === 'ingress' && node !== undefined && book.podAt(local)?.spec?.nodeName === node;
}
