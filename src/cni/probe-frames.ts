/** Ethernet frames that ask for the owner of an address. Pure. */
import { ipToBytes, type IpAddress } from '../core/ip.ts';
import { bigEndian16, ETH_P_ARP, ETH_P_IPV6, icmpv6Packet } from './announcement.ts';

/** Without a source it is a probe (RFC 5227 §2.1.1). */
export function arpRequest(mac: Uint8Array, source: IpAddress | undefined, target: IpAddress): Uint8Array {
  const broadcast = new Uint8Array(6).fill(0xff);
  const sender = source === undefined ? [0, 0, 0, 0] : ipToBytes(source);
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
