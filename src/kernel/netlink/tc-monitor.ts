/**
 * Tells in which network namespaces qdiscs or filters change, at once (rtnetlink(7), RTNLGRP_TC). One socket hears of all
 * namespaces that have a number in its own (NETLINK_LISTEN_ALL_NSID, kernel 4.2). Changes of tcx links and of the socket's own
 * namespace are not told.
 */
import { writeSync } from 'node:fs';
import { check, Errno } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import { bind, eventfd, pollReadable, recvmsg, setsockopt, socket } from '../ffi.ts';
import type { Netns } from '../netns.ts';
import { RtNetlink } from './rtnetlink.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const EFD_NONBLOCK = SOCK_NONBLOCK;
const EFD_CLOEXEC = SOCK_CLOEXEC;
const NETLINK_ROUTE = 0;
/** The bit of RTNLGRP_TC. */
const RTMGRP_TC = 8;
const SOL_NETLINK = 270;
const NETLINK_LISTEN_ALL_NSID = 8;
/** struct cmsghdr, and the number that follows it. */
const cmsgLength = 16 + 8;

export class TcMonitor implements Disposable {
  readonly #socket: OwnedFd;
  readonly #waker: OwnedFd;
  readonly #rtnetlink: RtNetlink;
  readonly #datagram = new Uint8Array(64 * 1024);
  readonly #control = new Uint8Array(new ArrayBuffer(cmsgLength * 2));

  private constructor(monitor: OwnedFd, waker: OwnedFd, rtnetlink: RtNetlink) {
    this.#socket = monitor;
    this.#waker = waker;
    this.#rtnetlink = rtnetlink;
  }

  /** In the calling thread's network namespace. */
  static open(): TcMonitor {
    const what = 'traffic control monitor';
    const flags = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const monitor = ownFd(check(socket(AF_NETLINK, flags, NETLINK_ROUTE), 'open', what), what);
    try {
      const address = new Uint8Array(new Uint32Array([AF_NETLINK, 0, RTMGRP_TC]).buffer);
      check(bind(monitor.value, address), 'bind', what);
      const one = new Uint8Array(new Uint32Array([1]).buffer);
      check(setsockopt(monitor.value, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, one), 'configure', what);
      const waker = ownFd(check(eventfd(EFD_NONBLOCK | EFD_CLOEXEC), 'open', 'eventfd'), 'eventfd');
      return new TcMonitor(monitor, waker, RtNetlink.open());
    } catch (error) {
      monitor.close();
      throw error;
    }
  }

  /** Changes in `netns` are told from now on, under this number; undefined for the monitor's own namespace. */
  watch(netns: Netns): number | undefined {
    return this.#rtnetlink.numberNetns(netns);
  }

  /** Resolves when there is something to read, or after a time; at once after `wake`. */
  wait(timeoutMs: number): Promise<void> {
    return pollReadable([this.#socket.value, this.#waker.value], timeoutMs);
  }

  /** For good: there is no waiting after it. */
  wake(): void {
    writeSync(this.#waker.value, new Uint8Array(new BigUint64Array([1n]).buffer));
  }

  /** Numbers of the namespaces in which something changed since the last call; undefined when the kernel could not keep them all. */
  changed(): ReadonlySet<number> | undefined {
    const numbers = new Set<number>();
    let overflown = false;
    for (;;) {
      const received = recvmsg(this.#socket.value, this.#datagram, this.#control, 0);
      if (typeof received === 'number') {
        if (received === -Errno.EINTR) continue;
        if (received === -Errno.EAGAIN) return overflown ? undefined : numbers;
        if (received !== -Errno.ENOBUFS) check(received, 'receive from', 'traffic control monitor');
        overflown = true;
        continue;
      }
      const number = numberIn(this.#control.subarray(0, received.controlLength));
      if (number !== undefined) numbers.add(number);
    }
  }

  close(): void {
    this.#socket.close();
    this.#waker.close();
    this.#rtnetlink.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Undefined: of the socket's own namespace. */
function numberIn(control: Uint8Array): number | undefined {
  if (control.length < cmsgLength - 4) return undefined;
  const view = new DataView(control.buffer, control.byteOffset, control.length);
  const isNumber = view.getInt32(8, true) === SOL_NETLINK && view.getInt32(12, true) === NETLINK_LISTEN_ALL_NSID;
  return isNumber ? view.getInt32(16, true) : undefined;
}
