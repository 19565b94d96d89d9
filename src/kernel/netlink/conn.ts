/** One rtnetlink conversation: requests are answered in order, synchronously, on the calling thread. */
import { check, Errno, SyscallError } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import { bind, recv, send, setsockopt, socket } from '../ffi.ts';
import { type NetnsRef, withNetns } from '../netns.ts';
import { SluiceError } from '../../core/error.ts';
import { decodeMessages, encodeMessage, MessageReader, type NetlinkMessage } from './codec.ts';
import { NlMessageType, NlmFlag } from './constants.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0x80000;
const NETLINK_ROUTE = 0;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_TRUNC = 0x20;

const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;

/** The kernel fills dump datagrams up to 32 KiB when the reader offers that much (net/netlink/af_netlink.c). */
const receiveBufferLength = 64 * 1024;
/** The kernel answers at once; this only keeps a bug from hanging the process. */
const receiveTimeoutSeconds = 10n;
/** A dump that something else keeps changing is read again this often before giving up. */
const maxDumpAttempts = 8;

/** Sends and receives datagrams; tests put a fake here. */
export interface NetlinkTransport {
  send(datagram: Uint8Array): void;
  /** Blocks for the next datagram. */
  receive(): Uint8Array;
  close(): void;
}

export interface NetlinkRequest {
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
  /** For errors: what is attempted ("add link") on what ("veth0"). */
  readonly operation: string;
  readonly object: string;
}

export class NetlinkConn implements Disposable {
  readonly #transport: NetlinkTransport;
  #sequence = 0;

  constructor(transport: NetlinkTransport) {
    this.#transport = transport;
  }

  /** A socket in `netns` (default: the calling thread's); it stays there whatever the thread does later. */
  static open(netns?: NetnsRef): NetlinkConn {
    const transport = netns === undefined ? openTransport() : withNetns(netns, openTransport);
    return new NetlinkConn(transport);
  }

  /** A change: returns when the kernel has acknowledged it. */
  execute(request: NetlinkRequest): void {
    this.#send(request, NlmFlag.request | NlmFlag.ack | request.flags);
    for (;;) {
      for (const message of this.#receive()) {
        if (message.type === NlMessageType.error) {
          throwIfError(message, request);
          return;
        }
      }
    }
  }

  /** A question about one object; undefined when the kernel answers with `notFoundErrnos`. */
  get(request: NetlinkRequest, notFoundErrnos: readonly number[]): NetlinkMessage | undefined {
    this.#send(request, NlmFlag.request | NlmFlag.ack | request.flags);
    let answer: NetlinkMessage | undefined;
    for (;;) {
      for (const message of this.#receive()) {
        if (message.type === NlMessageType.error) {
          const errno = errnoOf(message);
          if (errno !== 0 && notFoundErrnos.includes(errno)) return undefined;
          throwIfError(message, request);
          return answer;
        }
        answer ??= message;
      }
    }
  }

  /** A consistent list: a dump that changed while it was read (NLM_F_DUMP_INTR) is read again. */
  dump(request: NetlinkRequest): NetlinkMessage[] {
    for (let attempt = 1; ; attempt++) {
      const { messages, interrupted } = this.#dumpOnce(request);
      if (!interrupted) return messages;
      if (attempt === maxDumpAttempts) {
        throw new SyscallError({
          operation: request.operation,
          object: request.object,
          errno: Errno.EINTR,
          reason: 'the list kept changing while it was read',
        });
      }
    }
  }

  close(): void {
    this.#transport.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #dumpOnce(request: NetlinkRequest): { messages: NetlinkMessage[]; interrupted: boolean } {
    this.#send(request, NlmFlag.request | NlmFlag.dump | request.flags);
    const messages: NetlinkMessage[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive()) {
        interrupted ||= (message.flags & NlmFlag.dumpInterrupted) !== 0;
        if (message.type === NlMessageType.error) throwIfError(message, request);
        if (message.type === NlMessageType.done) {
          throwIfError(message, request);
          return { messages, interrupted };
        }
        messages.push(message);
      }
    }
  }

  #send(request: NetlinkRequest, flags: number): void {
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.#transport.send(encodeMessage({ type: request.type, flags, sequence: this.#sequence, body: request.body }));
  }

  /** Messages that answer the present request; leftovers of an abandoned one are dropped. */
  #receive(): NetlinkMessage[] {
    return decodeMessages(this.#transport.receive()).filter(
      (message) => message.sequence === this.#sequence && message.type !== NlMessageType.noop,
    );
  }
}

function errnoOf(message: NetlinkMessage): number {
  return -new MessageReader(message.body).i32();
}

function throwIfError(message: NetlinkMessage, request: NetlinkRequest): void {
  if (message.body.length < 4) return;
  const errno = errnoOf(message);
  if (errno === 0) return;
  const reason = extendedReason(message);
  const code = errno === Errno.EPERM ? 'permission_denied' : 'netlink_failed';
  throw new SyscallError({ code, operation: request.operation, object: request.object, errno, reason });
}

/** The kernel's own words (extended ACK), when it has any. */
function extendedReason(message: NetlinkMessage): string | undefined {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return undefined;
  const reader = new MessageReader(message.body);
  reader.skip(4);
  if (message.type === NlMessageType.error) {
    const embeddedLength = reader.u32();
    // The header of the request always comes back; its payload only when the kernel did not cap it.
    reader.skip((message.flags & NLM_F_CAPPED) !== 0 ? 12 : ((embeddedLength + 3) & ~3) - 4);
  }
  return reader.attributes().string(NLMSGERR_ATTR_MSG);
}

function openTransport(): SocketTransport {
  const fd = check(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), 'open', 'rtnetlink socket');
  const transport = new SocketTransport(ownFd(fd, 'rtnetlink socket'));
  try {
    transport.configure();
  } catch (error) {
    transport.close();
    throw error;
  }
  return transport;
}

class SocketTransport implements NetlinkTransport {
  readonly #fd: OwnedFd;
  readonly #buffer = new Uint8Array(receiveBufferLength);

  constructor(fd: OwnedFd) {
    this.#fd = fd;
  }

  configure(): void {
    const fd = this.#fd.value;
    const one = new Uint8Array(new Uint32Array([1]).buffer);
    check(bind(fd, new Uint8Array(new Uint16Array([AF_NETLINK, 0, 0, 0, 0, 0]).buffer)), 'bind', 'rtnetlink socket');
    const timeout = new Uint8Array(new BigInt64Array([receiveTimeoutSeconds, 0n]).buffer);
    check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout), 'set receive timeout of', 'rtnetlink socket');
    // Absent before 4.12 and 4.20; without them errors are only less talkative and dumps less filtered.
    for (const option of [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK])
      setsockopt(fd, SOL_NETLINK, option, one);
  }

  send(datagram: Uint8Array): void {
    check(send(this.#fd.value, datagram, 0), 'send to', 'rtnetlink');
  }

  receive(): Uint8Array {
    for (;;) {
      const length = recv(this.#fd.value, this.#buffer, MSG_TRUNC);
      if (length === -Errno.EINTR) continue;
      if (length === -Errno.EAGAIN) {
        throw new SluiceError({
          code: 'timeout',
          operation: 'receive from',
          object: 'rtnetlink',
          what: `no answer within ${receiveTimeoutSeconds} s`,
        });
      }
      check(length, 'receive from', 'rtnetlink');
      if (length > this.#buffer.length) {
        throw new SluiceError({
          code: 'internal',
          operation: 'receive from',
          object: 'rtnetlink',
          what: `a datagram of ${length} bytes does not fit`,
        });
      }
      return this.#buffer.slice(0, length);
    }
  }

  close(): void {
    this.#fd.close();
  }
}
