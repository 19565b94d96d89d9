/** Ethernet frames that ask for the owner of an address, or tell it. Pure. */
import { ipToBytes, type IpAddress } from '../core/ip.ts';

export const ETH_P_ARP = 0x0806;
export const ETH_P_IPV6 = 0x86dd;
const IPPROTO_ICMPV6 = 58;

/** Without a source it is a probe (RFC 5227 §2.1.1), with the target itself as source an announcement (§2.3). */
export function arpRequest(mac: Uint8Array, source: IpAddress | undefined, target: IpAddress): Uint8Array {
  const broadcast = new Uint8Array(6).fill(0xff);
  const sender = source === undefined ? [0, 0, 0, 0] : ipToBytes(source);
  // Ethernet, IPv4, 6 and 4 bytes, request.
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...sender, 0, 0, 0, 0, 0, 0, ...ipToBytes(target)];
  return Uint8Array.from([...broadcast, ...mac, ...bigEndian16(ETH_P_ARP), ...arp]);
}

/** To the solicited-node group (RFC 4861 §4.3). Without a source as duplicate address detection sends it: without the option. */
export function neighbourSolicitation(mac: Uint8Array, source: IpAddress | undefined, target: IpAddress): Uint8Array {
  const bytes = ipToBytes(target);
  const low = bytes.subarray(13);
  const group = Uint8Array.from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...low]);
  const option = source === undefined ? [] : [1, 1, ...mac];
  const message = Uint8Array.from([135, 0, 0, 0, 0, 0, 0, 0, ...bytes, ...option]);
  const packet = icmpv6Packet(source === undefined ? new Uint8Array(16) : ipToBytes(source), group, message);
  return Uint8Array.from([0x33, 0x33, 0xff, ...low, ...mac, ...bigEndian16(ETH_P_IPV6), ...packet]);
}

/** To everybody, unasked (RFC 4861 §7.2.6). */
export function neighbourAdvertisement(mac: Uint8Array, address: IpAddress): Uint8Array {
  const source = ipToBytes(address);
  const allNodes = Uint8Array.from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  // Type 136, the override flag, the target, and the option "target link-layer address" (1 unit of 8 bytes).
  const message = Uint8Array.from([136, 0, 0, 0, 0x20, 0, 0, 0, ...source, 2, 1, ...mac]);
  const group = [0x33, 0x33, 0, 0, 0, 1]; // RFC 2464 §7
  return Uint8Array.from([...group, ...mac, ...bigEndian16(ETH_P_IPV6), ...icmpv6Packet(source, allNodes, message)]);
}

/** The IPv6 packet of a neighbour discovery message; the checksum is filled in. */
function icmpv6Packet(source: Uint8Array, destination: Uint8Array, message: Uint8Array): Uint8Array {
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

function bigEndian16(value: number): [number, number] {
  return [value >>> 8, value & 0xff];
}
