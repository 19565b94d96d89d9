/** Sees every frame of one link, in both directions: what is on the wire, not what a program says is (packet(7)). */
import { check, Errno } from './errno.ts';
import { ownFd, type OwnedFd } from './fd.ts';
import { bind, pollOne, recv, socket } from './ffi.ts';
import { RtNetlink } from './netlink/rtnetlink.ts';
import { type NetnsRef, withNetns } from './netns.ts';
import { AF_PACKET, packetAddress, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './packet-socket.ts';

const ETH_P_ALL = 0x0003;
const POLLIN = 1;
/** GSO frames are up to 64 KiB and some headers. */
const frameLength = 68 * 1024;

export class PacketCapture implements Disposable {
  readonly #fd: OwnedFd;
  readonly #buffer = new Uint8Array(frameLength);

  private constructor(fd: OwnedFd) {
    this.#fd = fd;
  }

  /** Captures from now on; the kernel buffers some hundred frames between two calls of {@link drain}. */
  static open(netns: NetnsRef, interfaceName: string): PacketCapture {
    return withNetns(netns, () => {
      using rt = RtNetlink.open();
      const { ifindex } = rt.mustLink(interfaceName);
      const fd = ownFd(
        check(
          socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, ETH_P_ALL << 8),
          'open capture on',
          interfaceName,
        ),
        `capture on ${interfaceName}`,
      );
      check(bind(fd.value, packetAddress(ifindex, ETH_P_ALL)), 'bind capture to', interfaceName);
      return new PacketCapture(fd);
    });
  }

  /** The frames since the last call; waits up to `waitMs` for the first. */
  drain(waitMs = 0): Uint8Array[] {
    const frames: Uint8Array[] = [];
    if ((pollOne(this.#fd.value, POLLIN, waitMs) & POLLIN) === 0) return frames;
    for (;;) {
      const length = recv(this.#fd.value, this.#buffer, 0);
      if (length === -Errno.EAGAIN) return frames;
      if (length === -Errno.EINTR) continue;
      check(length, 'receive from', 'packet capture');
      frames.push(this.#buffer.slice(0, length));
    }
  }

  close(): void {
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
