/** The pair of interfaces by which a pod and its node reach each other. */
import { randomBytes } from 'node:crypto';
import { cniErrorCodes } from '../api/cni.ts';
import type { Link } from '../kernel/netlink/link.ts';
import type { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import type { Netns } from '../kernel/netns.ts';
import type { CoordinatorConfig } from './coordinator-config.ts';
import { podVethName, type Role } from './coordinator-role.ts';
import { CniError } from './error.ts';

export interface Door {
  readonly pod: Link;
  readonly host: Link;
}

/** `veth` and 11 characters of the container's id: 15, the longest name there is. */
export function hostVethName(containerId: string): string {
  return `veth${containerId.slice(0, 11)}`;
}

export interface DoorPlace {
  readonly pod: RtNetlink;
  readonly host: RtNetlink;
  readonly netns: Netns;
  readonly containerId: string;
}

/** Made for the first interface in underlay mode; what the others use is there already. */
export function ensureDoor(role: Role, place: DoorPlace, config: CoordinatorConfig): Door {
  if (role.mode === 'underlay' && role.isFirst) return ensureVeth(place, config);
  const door = findDoor(role, place);
  if (door !== undefined) return door;
  throw new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `${role.door} of container ${place.containerId} does not lead to the node: it is no half of a veth pair whose other half is there`,
    role.mode === 'overlay'
      ? 'overlay mode needs a default network that joins pod and node by a veth pair (bridge, ptp, Calico, Cilium …)'
      : 'delete the pod, so that it is attached anew',
  );
}

export function findDoor(role: Pick<Role, 'door'>, { pod, host }: Pick<DoorPlace, 'pod' | 'host'>): Door | undefined {
  const inPod = pod.linkByName(role.door);
  if (inPod?.kind !== 'veth' || inPod.parentIfindex === undefined) return undefined;
  const onHost = host.linkByIndex(inPod.parentIfindex);
  if (onHost?.kind !== 'veth' || onHost.parentIfindex !== inPod.ifindex) return undefined;
  return { pod: inPod, host: onHost };
}

/** A repeated ADD finds the pair it made; half of a pair, or another's, is replaced. */
function ensureVeth({ pod, host, netns, containerId }: DoorPlace, config: CoordinatorConfig): Door {
  const name = hostVethName(containerId);
  const inPod = pod.linkByName(podVethName);
  const onHost = host.linkByName(name);
  if (inPod !== undefined && onHost !== undefined && inPod.parentIfindex === onHost.ifindex)
    return { pod: inPod, host: onHost };
  if (onHost !== undefined) host.deleteLink(onHost.ifindex);
  const left = pod.linkByName(podVethName);
  if (left !== undefined) pod.deleteLink(left.ifindex);
  // Explicit MAC addresses: udev would give others to links that come without, after the neighbour entries are set.
  const peer = { name: podVethName, mac: randomMac(), mtu: config.vethMtu, netnsFd: netns.fd };
  host.addLink({ kind: 'veth', name, mac: randomMac(), mtu: config.vethMtu, peer });
  return { pod: pod.mustLink(podVethName), host: host.mustLink(name) };
}

/** Locally administered, unicast. */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}
