/** Puts whole frames on a link (packet(7)). */
import { check } from './errno.ts';
import { ownFd } from './fd.ts';
import { bind, send, socket } from './ffi.ts';
import { RtNetlink } from './netlink/rtnetlink.ts';
import { type NetnsRef, withNetns } from './netns.ts';
import { AF_PACKET, packetAddress, SOCK_CLOEXEC, SOCK_RAW } from './packet-socket.ts';

/** Sends Ethernet frames, header included, out of the interface. */
export function sendFrames(netns: NetnsRef, interfaceName: string, frames: readonly Uint8Array[]): void {
  withNetns(netns, () => {
    using rt = RtNetlink.open();
    const { ifindex } = rt.mustLink(interfaceName);
    // Protocol 0: it receives nothing.
    using fd = ownFd(
      check(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'open packet socket on', interfaceName),
      `packet socket on ${interfaceName}`,
    );
    check(bind(fd.value, packetAddress(ifindex, 0)), 'bind packet socket to', interfaceName);
    for (const frame of frames) check(send(fd.value, frame, 0), 'send frame on', interfaceName);
  });
}
