/** Sockets in another network namespace: for Node servers (`server.listen({ fd: listenTcp(…) })`), and SCTP, which Node lacks. */
import { ipToBytes, parseIp } from '../core/ip.ts';
import { SluiceError } from '../core/error.ts';
import { check, Errno } from './errno.ts';
import { ownFd } from './fd.ts';
import { bind, connect, getsockname, listen, setsockopt, socket } from './ffi.ts';
import { type NetnsRef, withNetns } from './netns.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_SNDTIMEO = 21;
const IPPROTO_IPV6 = 41;
const IPPROTO_SCTP = 132;
const IPV6_V6ONLY = 26;
const backlog = 511;

export interface BoundSocket {
  /** The caller's: a Node server that listens on it closes it. */
  readonly fd: number;
  /** The port the kernel chose when 0 was asked for. */
  readonly port: number;
}

/** A listening TCP socket in `netns` on `host` (an IP address; `::` takes IPv4 too) and `port` (0: any free one). */
export function listenTcp(netns: NetnsRef, host: string, port: number): BoundSocket {
  return withNetns(netns, () => openSocket(host, port, SOCK_STREAM));
}

/** A bound UDP socket in `netns`; the same rules as {@link listenTcp}. */
export function bindUdp(netns: NetnsRef, host: string, port: number): BoundSocket {
  return withNetns(netns, () => openSocket(host, port, SOCK_DGRAM));
}

/**
 * A listening one-to-one SCTP socket (RFC 6458 §4) in `netns`; the same rules as {@link listenTcp}. Throws
 * EPROTONOSUPPORT where the kernel has no SCTP.
 */
export function listenSctp(netns: NetnsRef, host: string, port: number): BoundSocket {
  return withNetns(netns, () => openSocket(host, port, SOCK_STREAM, IPPROTO_SCTP));
}

/**
 * Whether an SCTP association to `to` comes up within the time: false when nothing answers, true when it does, be it
 * with an abort. Blocks the process; both ends may be in it, since the handshake is the kernel's.
 */
export function sctpAnswers(netns: NetnsRef, from: string, to: string, port: number, timeoutMs: number): boolean {
  return withNetns(netns, () => {
    const { family, bytes } = mustIp(from);
    const object = `${to} port ${port}`;
    using fd = ownFd(
      check(socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP), 'open socket for', object),
      object,
    );
    check(bind(fd.value, socketAddress(family, bytes, 0)), 'bind to', from);
    check(setsockopt(fd.value, SOL_SOCKET, SO_SNDTIMEO, timeval(timeoutMs)), 'configure socket for', object);
    const rc = connect(fd.value, socketAddress(family, mustIp(to).bytes, port));
    // The time is up while the kernel still tries.
    if (rc === -Errno.EINPROGRESS || rc === -Errno.EAGAIN || rc === -Errno.ETIMEDOUT) return false;
    if (rc !== -Errno.ECONNREFUSED) check(rc, 'connect to', object);
    return true;
  });
}

function openSocket(host: string, port: number, type: number, protocol = 0): BoundSocket {
  const object = `${host} port ${port}`;
  const { family, bytes } = mustIp(host);
  const flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
  using fd = ownFd(check(socket(family, type | flags, protocol), 'open socket for', object), object);
  check(setsockopt(fd.value, SOL_SOCKET, SO_REUSEADDR, one()), 'configure socket for', object);
  if (family === AF_INET6)
    check(setsockopt(fd.value, IPPROTO_IPV6, IPV6_V6ONLY, new Uint8Array(4)), 'configure socket for', object);
  check(bind(fd.value, socketAddress(family, bytes, port)), 'bind to', object);
  if (type === SOCK_STREAM) check(listen(fd.value, backlog), 'listen on', object);
  const bound = new Uint8Array(28);
  check(getsockname(fd.value, bound), 'read address of', object);
  return { port: new DataView(bound.buffer).getUint16(2, false), fd: fd.release() };
}

function mustIp(host: string): { family: number; bytes: Uint8Array } {
  const ip = parseIp(host);
  if (ip !== undefined) return { family: ip.family === 4 ? AF_INET : AF_INET6, bytes: ipToBytes(ip) };
  throw new SluiceError({
    code: 'invalid_argument',
    operation: 'use',
    object: host,
    what: 'the host must be an IP address',
  });
}

/** struct timeval of a 64-bit machine. */
function timeval(ms: number): Uint8Array {
  return new Uint8Array(BigInt64Array.of(BigInt(Math.floor(ms / 1000)), BigInt((ms % 1000) * 1000)).buffer);
}

/** struct sockaddr_in, sockaddr_in6: family in host order, port in network order. */
function socketAddress(family: number, address: Uint8Array, port: number): Uint8Array {
  const bytes = new Uint8Array(family === AF_INET ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, port, false);
  bytes.set(address, family === AF_INET ? 4 : 8);
  return bytes;
}

function one(): Uint8Array {
  return new Uint8Array(new Uint32Array([1]).buffer);
}
