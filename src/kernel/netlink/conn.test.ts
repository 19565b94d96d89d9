/** The conversation with the kernel, with a fake on the other end: what a real kernel does rarely happens here every time. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Errno, isErrno, SyscallError } from '../errno.ts';
import { decodeMessages, encodeMessage, MessageWriter } from './codec.ts';
import { NetlinkConn, type NetlinkRequest, type NetlinkTransport } from './conn.ts';
import { NlMessageType, NlmFlag, Rtm } from './constants.ts';

const request: NetlinkRequest = {
  type: Rtm.getLink,
  flags: 0,
  body: new Uint8Array(16),
  operation: 'list',
  object: 'links',
};
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;

/** Answers each request with the datagrams that `peer` makes of its sequence number. */
class FakeTransport implements NetlinkTransport {
  readonly sent: { type: number; flags: number }[] = [];
  readonly #peer: (sequence: number, round: number) => Uint8Array[];
  #queue: Uint8Array[] = [];

  constructor(peer: (sequence: number, round: number) => Uint8Array[]) {
    this.#peer = peer;
  }

  send(datagram: Uint8Array): void {
    for (const { type, flags, sequence } of decodeMessages(datagram)) {
      this.sent.push({ type, flags });
      this.#queue.push(...this.#peer(sequence, this.sent.length));
    }
  }

  receive(): Uint8Array {
    const next = this.#queue.shift();
    assert.ok(next, 'the connection waits for an answer that never comes');
    return next;
  }

  close(): void {
    this.#queue = [];
  }
}

function link(sequence: number, mark: number, flags: number = NlmFlag.multi): Uint8Array {
  return encodeMessage({ type: Rtm.newLink, flags, sequence, body: Uint8Array.of(mark) });
}

function done(sequence: number, flags: number = NlmFlag.multi): Uint8Array {
  return encodeMessage({ type: NlMessageType.done, flags, sequence, body: new MessageWriter().i32(0).finish() });
}

/** struct nlmsgerr, capped as we ask for it: the errno and the header of the request, then the kernel's words. */
function failure(sequence: number, errno: number, words?: string): Uint8Array {
  const body = new MessageWriter().i32(-errno).u32(16).bytes(new Uint8Array(12));
  if (words !== undefined) body.stringAttribute(1, words);
  const flags = words === undefined ? NLM_F_CAPPED : NLM_F_CAPPED | NLM_F_ACK_TLVS;
  return encodeMessage({ type: NlMessageType.error, flags, sequence, body: body.finish() });
}

function marksOf(messages: readonly { body: Uint8Array }[]): (number | undefined)[] {
  return messages.map((message) => message.body[0]);
}

describe('NetlinkConn', () => {
  it('collects a dump that comes in several datagrams, several messages in each', () => {
    const transport = new FakeTransport((sequence) => [
      Buffer.concat([padded(link(sequence, 1)), link(sequence, 2)]),
      link(sequence, 3),
      done(sequence),
    ]);
    assert.deepEqual(marksOf(new NetlinkConn(transport).dump(request)), [1, 2, 3]);
    assert.deepEqual(transport.sent, [{ type: Rtm.getLink, flags: NlmFlag.request | NlmFlag.dump }]);
  });

  it('reads a dump again that changed while it was read', () => {
    const transport = new FakeTransport((sequence, round) =>
      round < 3
        ? [link(sequence, 9, NlmFlag.multi | NlmFlag.dumpInterrupted), done(sequence)]
        : [link(sequence, 1), done(sequence)],
    );
    assert.deepEqual(marksOf(new NetlinkConn(transport).dump(request)), [1]);
    assert.equal(transport.sent.length, 3);
  });

  it('gives up on a dump that never holds still', () => {
    const transport = new FakeTransport((sequence) => [done(sequence, NlmFlag.multi | NlmFlag.dumpInterrupted)]);
    assert.throws(
      () => new NetlinkConn(transport).dump(request),
      (error: unknown) => isErrno(error, Errno.EINTR) && /kept changing/.test(String(error)),
    );
    assert.equal(transport.sent.length, 8);
  });

  it('drops what is left of an earlier, abandoned request', () => {
    const transport = new FakeTransport((sequence) => [
      link(sequence - 1, 7),
      done(sequence - 1),
      link(sequence, 1),
      done(sequence),
    ]);
    assert.deepEqual(marksOf(new NetlinkConn(transport).dump(request)), [1]);
  });

  it("repeats the kernel's own words beside the errno", () => {
    const transport = new FakeTransport((sequence) => [
      failure(sequence, Errno.EINVAL, 'Device does not allow enslaving'),
    ]);
    assert.throws(
      () => {
        new NetlinkConn(transport).execute({ ...request, operation: 'change link', object: 'ifindex 3' });
      },
      (error: unknown) =>
        error instanceof SyscallError &&
        error.code === 'netlink_failed' &&
        error.errno === Errno.EINVAL &&
        error.message === 'change link ifindex 3: Device does not allow enslaving (EINVAL)',
    );
  });

  it('an acknowledgement is an error message without an error', () => {
    const transport = new FakeTransport((sequence) => [failure(sequence, 0)]);
    new NetlinkConn(transport).execute(request);
    assert.deepEqual(transport.sent, [{ type: Rtm.getLink, flags: NlmFlag.request | NlmFlag.ack }]);
  });

  it('answers undefined only for the errors that mean absence', () => {
    const conn = new NetlinkConn(new FakeTransport((sequence) => [failure(sequence, Errno.ENODEV)]));
    assert.equal(conn.get(request, [Errno.ENODEV]), undefined);
    assert.throws(
      () => conn.get(request, [Errno.ENOENT]),
      (error: unknown) => isErrno(error, Errno.ENODEV),
    );
  });
});

/** Messages within a datagram start on multiples of 4. */
function padded(message: Uint8Array): Uint8Array {
  return Buffer.concat([message, new Uint8Array(-message.length & 3)]);
}
