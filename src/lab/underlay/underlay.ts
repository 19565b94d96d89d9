/**
 * The lab's physical network: a netns with a bridge ("the switch", also the gateway), and one netns per node whose parent
 * NIC `ens192` is a veth into that bridge. Both ends of every cable are made inside the two namespaces: nothing shows on the host.
 */
import { formatIp, parseIp, type IpAddress } from '../../core/ip.ts';
import { SluiceError } from '../../core/error.ts';
import { RtNetlink } from '../../kernel/netlink/rtnetlink.ts';
import { createNamedNetns, Netns, netnsInode } from '../../kernel/netns.ts';
import { writeSysctl } from '../../kernel/sysctl.ts';

export const parentInterface = 'ens192';
const bridgeName = 'br0';

export const underlayV4 = {
  subnet: '172.51.0.0/16',
  prefixLen: 16,
  gateway: '172.51.0.1',
  firstNode: '172.51.0.11',
} as const;
export const underlayV6 = {
  subnet: 'fd00:51::/64',
  prefixLen: 64,
  gateway: 'fd00:51::1',
  firstNode: 'fd00:51::11',
} as const;
const families = [underlayV4, underlayV6];

/** The walkthrough's pool starts at 172.51.0.100. */
export const maxNodes = 80;

export interface NodeAddresses {
  readonly v4: string;
  readonly v6: string;
}

/** `index` counts from 0. IPv6 addresses continue in hexadecimal: …::11, …::12, … */
export function nodeAddresses(index: number): NodeAddresses {
  return { v4: formatIp(offset(underlayV4.firstNode, index)), v6: formatIp(offset(underlayV6.firstNode, index)) };
}

function offset(first: string, index: number): IpAddress {
  const ip = address(first);
  return { family: ip.family, value: ip.value + BigInt(index) };
}

/** Makes the switch, or completes one that is half made. */
export function ensureSwitch(path: string): void {
  if (netnsInode(path) === undefined) createNamedNetns(path);
  setSysctls(path, false);
  using link = RtNetlink.open(path);
  link.setLink(link.mustLink('lo').ifindex, { up: true });
  if (link.linkByName(bridgeName) === undefined) link.addLink({ name: bridgeName, kind: 'bridge' });
  const bridge = link.mustLink(bridgeName).ifindex;
  for (const { gateway, prefixLen } of families) {
    link.setAddress({ ifindex: bridge, address: address(gateway), prefixLen, noDad: gateway.includes(':') });
  }
  link.setLink(bridge, { up: true });
}

/** Makes a node's netns with its cable to the switch, or completes one that is half made. */
export function ensureNode(switchPath: string, path: string, index: number): void {
  if (netnsInode(path) === undefined) createNamedNetns(path);
  setSysctls(path, true);
  using node = RtNetlink.open(path);
  node.setLink(node.mustLink('lo').ifindex, { up: true });
  if (node.linkByName(parentInterface) === undefined) plugIn(node, switchPath, `port${index + 1}`);
  const nic = node.mustLink(parentInterface).ifindex;
  const own = nodeAddresses(index);
  node.setLink(nic, { up: true });
  for (const [text, { gateway, prefixLen }] of [
    [own.v4, underlayV4],
    [own.v6, underlayV6],
  ] as const) {
    node.setAddress({ ifindex: nic, address: address(text), prefixLen, noDad: text.includes(':') });
    const via = address(gateway);
    node.replaceRoute({ family: via.family, gateway: via, ifindex: nic });
  }
}

function plugIn(node: RtNetlink, switchPath: string, port: string): void {
  using switchNetns = Netns.openPath(switchPath);
  using link = RtNetlink.open(switchNetns);
  // A cable whose node end went away with its netns went away whole; one that is left is of a half-made node.
  const old = link.linkByName(port);
  if (old !== undefined) link.deleteLink(old.ifindex);
  node.addLink({ name: parentInterface, kind: 'veth', peer: { name: port, netnsFd: switchNetns.fd } });
  link.setLink(link.mustLink(port).ifindex, { up: true, masterIfindex: link.mustLink(bridgeName).ifindex });
}

/** Nodes forward between their pods' veths and the wire; addresses are usable at once, without duplicate detection. */
function setSysctls(netns: string, forwarding: boolean): void {
  for (const scope of ['all', 'default']) writeSysctl(netns, `net.ipv6.conf.${scope}.accept_dad`, '0');
  if (!forwarding) return;
  writeSysctl(netns, 'net.ipv4.ip_forward', '1');
  writeSysctl(netns, 'net.ipv6.conf.all.forwarding', '1');
}

function address(text: string): IpAddress {
  const ip = parseIp(text);
  if (ip !== undefined) return ip;
  throw new SluiceError({ code: 'internal', operation: 'parse', object: text, what: 'not an address' });
}
