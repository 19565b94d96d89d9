/** Puts whole frames on a link (packet(7)). */
import { check } from './errno.ts';
import { ownFd } from './fd.ts';
import { bind, send, setsockopt, socket } from './ffi.ts';
import { RtNetlink } from './netlink/rtnetlink.ts';
import { type NetnsRef, withNetns } from './netns.ts';
import { AF_PACKET, PACKET_QDISC_BYPASS, packetAddress, SOCK_CLOEXEC, SOCK_RAW, SOL_PACKET } from './packet-socket.ts';

/**
 * Sends Ethernet frames, header included, out of the interface. `direct`: past qdiscs and the programs of the tc hooks.
 * `claim`: the ethertype that the kernel is told, instead of the one in the frame.
 */
export function sendFrames(
  netns: NetnsRef,
  interfaceName: string,
  frames: readonly Uint8Array[],
  options: { readonly direct?: boolean; readonly claim?: number } = {},
): void {
  withNetns(netns, () => {
    using rt = RtNetlink.open();
    const { ifindex } = rt.mustLink(interfaceName);
    // Protocol 0: it receives nothing.
    using fd = ownFd(
      check(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'open packet socket on', interfaceName),
      `packet socket on ${interfaceName}`,
    );
    if (options.direct === true) {
      const rc = setsockopt(fd.value, SOL_PACKET, PACKET_QDISC_BYPASS, Uint8Array.of(1, 0, 0, 0));
      check(rc, 'set PACKET_QDISC_BYPASS on', interfaceName);
    }
    check(bind(fd.value, packetAddress(ifindex, options.claim ?? 0)), 'bind packet socket to', interfaceName);
    for (const frame of frames) check(send(fd.value, frame, 0), 'send frame on', interfaceName);
  });
}
