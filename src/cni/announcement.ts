/**
 * Tells the link who has an address now, so that neighbours that knew its last owner do not send to that one's link
 * address until their cache expires (up to a minute, seen with a reused IPv6 address). Main plugins announce IPv4 at most.
 */
import { ipToBytes, type IpAddress } from '../core/ip.ts';
import { sendFrames } from '../kernel/packet-send.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';

export const ETH_P_ARP = 0x0806;
export const ETH_P_IPV6 = 0x86dd;
const IPPROTO_ICMPV6 = 58;

/** Sends one announcement for each address out of the interface. Nothing is sent where nobody resolves addresses (ipvlan l3, a link that is down). */
export function announce(netns: string, interfaceName: string, addresses: readonly IpAddress[]): void {
  using netlink = RtNetlink.open(netns);
  const link = netlink.mustLink(interfaceName);
  if (!link.up || link.mac === '' || (link.ipvlanMode !== undefined && link.ipvlanMode !== 'l2')) return;
  const mac = Uint8Array.from(link.mac.split(':'), (byte) => Number.parseInt(byte, 16));
  sendFrames(
    netns,
    interfaceName,
    addresses.map((address) => announcementFrame(mac, address)),
  );
}

/** The Ethernet frame: for IPv4 an ARP announcement (RFC 5227 §2.3), for IPv6 an unsolicited advertisement (RFC 4861 §7.2.6). */
export function announcementFrame(mac: Uint8Array, address: IpAddress): Uint8Array {
  return address.family === 4 ? arpAnnouncement(mac, address) : neighbourAdvertisement(mac, address);
}

function arpAnnouncement(mac: Uint8Array, address: IpAddress): Uint8Array {
  const ip = ipToBytes(address);
  const broadcast = new Uint8Array(6).fill(0xff);
  // Ethernet, IPv4, 6 and 4 bytes, request; sender and target address are the same.
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...ip, 0, 0, 0, 0, 0, 0, ...ip];
  return Uint8Array.from([...broadcast, ...mac, ...bigEndian16(ETH_P_ARP), ...arp]);
}

function neighbourAdvertisement(mac: Uint8Array, address: IpAddress): Uint8Array {
  const source = ipToBytes(address);
  const allNodes = Uint8Array.from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  // Type 136, the override flag, the target, and the option "target link-layer address" (1 unit of 8 bytes).
  const message = Uint8Array.from([136, 0, 0, 0, 0x20, 0, 0, 0, ...source, 2, 1, ...mac]);
  const group = [0x33, 0x33, 0, 0, 0, 1]; // RFC 2464 §7
  return Uint8Array.from([...group, ...mac, ...bigEndian16(ETH_P_IPV6), ...icmpv6Packet(source, allNodes, message)]);
}

/** The IPv6 packet of a neighbour discovery message; the checksum is filled in. */
export function icmpv6Packet(source: Uint8Array, destination: Uint8Array, message: Uint8Array): Uint8Array {
  const pseudo = [...source, ...destination, 0, 0, 0, message.length, 0, 0, 0, IPPROTO_ICMPV6];
  const checksum = bigEndian16(internetChecksum(Uint8Array.from([...pseudo, ...message])));
  const header = [0x60, 0, 0, 0, 0, message.length, IPPROTO_ICMPV6, 255, ...source, ...destination];
  return Uint8Array.from([...header, ...message.subarray(0, 2), ...checksum, ...message.subarray(4)]);
}

/** RFC 1071, of an even number of bytes. */
function internetChecksum(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let sum = 0;
  for (let offset = 0; offset < bytes.length; offset += 2) sum += view.getUint16(offset);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export function bigEndian16(value: number): [number, number] {
  return [value >>> 8, value & 0xff];
}
