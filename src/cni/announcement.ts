/**
 * Tells the link who has an address now, so that neighbours that knew its last owner do not send to that one's link
 * address until their cache expires (up to a minute, seen with a reused IPv6 address). Main plugins announce IPv4 at most.
 */
import type { IpAddress } from '../core/ip.ts';
import { sendFrames } from '../kernel/packet-send.ts';
import { parseMac } from '../kernel/netlink/link.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { arpRequest, neighbourAdvertisement } from './link-frames.ts';

/** Sends one announcement for each address out of the interface. Nothing is sent where nobody resolves addresses (ipvlan l3, a link that is down). */
export function announce(netns: string, interfaceName: string, addresses: readonly IpAddress[]): void {
  using netlink = RtNetlink.open(netns);
  const link = netlink.mustLink(interfaceName);
  if (!link.up || link.mac === '' || (link.ipvlanMode !== undefined && link.ipvlanMode !== 'l2')) return;
  const mac = parseMac(link.mac);
  const frames = addresses.map((address) =>
    address.family === 4 ? arpRequest(mac, address, address) : neighbourAdvertisement(mac, address),
  );
  sendFrames(netns, interfaceName, frames);
}
