/** Datagrams in several fragments and their events, with real packets between two network namespaces. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { RtNetlink } from '../kernel/index.ts';
import { sendFrames } from '../kernel/packet-send.ts';
import { Datapath, type EndpointPolicy } from './datapath.ts';
import { ip } from './packets.ts';
import { address, mustPrefix, TestBpffs, TestPair, TestStack, whyNoKernelTests } from './test-bed.ts';

const endpointId = 42;
const peerIdentity = 300;
const reason = whyNoKernelTests();

/** Ping with a payload of three fragments. */
function pingLarge(pair: TestPair, from: 'pod' | 'peer', to: string): boolean {
  try {
    const args = ['-q', '-n', '-c', '2', '-i', '0.2', '-W', '1', '-s', '4000', to];
    execFileSync('nsenter', [`--net=${pair[from]}`, 'ping', ...args], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe('fragments, with real packets', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let pair: TestPair;
  let datapath: Datapath;

  beforeEach(() => {
    stack = new TestStack();
    const bpffs = stack.use(new TestBpffs());
    pair = stack.use(new TestPair('veth'));
    datapath = stack.use(Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 8192 } }));
    datapath.updateIpcache({
      upsert: [
        [mustPrefix(`${address.peer4}/32`), peerIdentity],
        [mustPrefix(`${address.peer6}/128`), peerIdentity],
      ],
      remove: [],
    });
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
  });
  afterEach(() => stack[Symbol.dispose]());

  const peer = { identity: peerIdentity, ruleId: 777, action: 'allow' } as const;
  const egressOnly: EndpointPolicy = {
    isolated: { ingress: true, egress: true },
    entries: [{ direction: 'egress', ...peer, protocol: 0, port: 0, portPrefixLen: 0 }],
  };
  const packets = (direction: 'ingress' | 'egress', why: string): number =>
    Number(
      datapath.counters().find((counter) => counter.direction === direction && counter.reason === why)?.packets ?? 0,
    );

  for (const family of [4, 6] as const) {
    it(`IPv${family}: a large ping is judged as a whole, replies included, and each drop is told`, () => {
      datapath.setEventKinds({ allow: true });
      datapath.setPolicy(endpointId, egressOnly);
      assert.ok(pingLarge(pair, 'pod', address[`peer${family}`]), 'allowed: request and reply, three fragments each');
      assert.equal(packets('ingress', 'fragment_unknown'), 0);
      const allowed = datapath.readEvents().filter(({ kind }) => kind === 'allow');
      assert.deepEqual(
        allowed.filter(({ direction }) => direction === 'egress').map(({ ruleId }) => ruleId),
        [777],
        'one connection, one event',
      );
      assert.ok(!pingLarge(pair, 'peer', address[`pod${family}`]), 'denied in the other direction');
      const dropped = datapath.readEvents().filter(({ kind }) => kind === 'drop');
      assert.equal(dropped.filter((event) => event.reason === 'policy').length, 2, 'first fragments');
      assert.equal(dropped.filter((event) => event.reason === 'fragment_unknown').length, 4, 'later fragments');
      assert.ok(dropped.every(({ identity, direction }) => identity === peerIdentity && direction === 'ingress'));
      datapath.setPolicy(endpointId, { ...egressOnly, audit: true });
      assert.ok(pingLarge(pair, 'peer', address[`pod${family}`]), 'audit lets it through');
      const audited = datapath.readEvents().filter(({ kind }) => kind === 'audit');
      assert.equal(audited.length, 1, 'and tells the connection once');
      assert.ok(packets('ingress', 'audit') >= 6 && packets('egress', 'audit') >= 6, 'and counts every packet');
    });

    it(`IPv${family}: a reply arrives whole whose fragments come last one first; what nobody asked for does not`, async () => {
      datapath.setPolicy(endpointId, egressOnly);
      using socket = await UdpSocket.open(pair.pod, family);
      const reply = (id: number, from = 53): Uint8Array[] => replyFragments(pair, family, id, from).reverse();
      sendFrames(pair.peer, pair.interfaceName, reply(1));
      await socket.silence();
      assert.equal(packets('ingress', 'policy') + packets('ingress', 'fragment_unknown'), 3, 'nobody was asked yet');
      socket.ask(address[`peer${family}`], 53);
      await waitUntil(() => datapath.connections(1).length > 0);
      sendFrames(pair.peer, pair.interfaceName, reply(2));
      assert.equal(await socket.received(), replySize);
      sendFrames(pair.peer, pair.interfaceName, reply(3, 54));
      await socket.silence();
      assert.equal(
        packets('ingress', 'policy'),
        2,
        'from another port: the first fragment is dropped, the rest is of no use',
      );
    });

    it(`IPv${family}: of two first fragments each is judged by its own port, and what follows goes with the last`, async () => {
      datapath.setPolicy(endpointId, {
        isolated: { ingress: true, egress: true },
        entries: [{ direction: 'ingress', ...peer, protocol: 17, port: ownPort, portPrefixLen: 16 }],
      });
      using open = await UdpSocket.open(pair.pod, family);
      using closed = await UdpSocket.open(pair.pod, family, closedPort);
      const mixed = (id: number, order: readonly (readonly [toPort: number, part: number])[]): void => {
        const frames = order.map(([toPort, part]) => replyFragments(pair, family, id, 53, toPort)[part]);
        sendFrames(
          pair.peer,
          pair.interfaceName,
          frames.filter((frame) => frame !== undefined),
        );
      };
      mixed(1, [[closedPort, 0], [ownPort, 0], [ownPort, 1], [ownPort, 2]]); // prettier-ignore
      assert.equal(await open.received(), replySize, 'the refused one never reached the reassembly');
      mixed(2, [[ownPort, 0], [closedPort, 0], [ownPort, 1], [ownPort, 2]]); // prettier-ignore
      mixed(3, [[ownPort, 1], [ownPort, 2], [closedPort, 0]]); // prettier-ignore
      await open.silence();
      await closed.silence();
      assert.equal(packets('ingress', 'policy'), 3);
      assert.equal(packets('ingress', 'fragment_unknown'), 2, 'what followed a refused one');
    });
  }
});

const replySize = 3000;
const ownPort = 4000;
const closedPort = 4001;

/** A datagram from the peer to the pod's socket in three fragments, in order. */
function replyFragments(pair: TestPair, family: 4 | 6, id: number, fromPort: number, toPort = ownPort): Uint8Array[] {
  const [from, to] = [address[`peer${family}`], address[`pod${family}`]];
  const datagram = new Uint8Array(8 + replySize);
  const view = new DataView(datagram.buffer);
  view.setUint16(0, fromPort);
  view.setUint16(2, toPort);
  view.setUint16(4, datagram.length);
  // RFC 768 lets IPv4 go without a checksum, RFC 8200 section 8.1 does not.
  const pseudo = ip(from, to, 17, new Uint8Array()).subarray(14 + 8, 14 + 40);
  if (family === 6)
    view.setUint16(6, checksum(Buffer.concat([pseudo, Uint8Array.of(0, 17), datagram.subarray(4, 6), datagram])));
  return [0, 1200, 2400].map((offset) => {
    const payload = datagram.subarray(offset, offset + 1200);
    const frame = ip(from, to, 17, payload, { fragment: { offset, more: offset < 2400, id } });
    using netlink = RtNetlink.open(pair.pod);
    frame.set(Buffer.from((netlink.mustLink(pair.interfaceName).mac ?? '').replaceAll(':', ''), 'hex'));
    if (family === 4) new DataView(frame.buffer, frame.byteOffset).setUint16(24, checksum(frame.subarray(14, 34)));
    return frame;
  });
}

/** RFC 1071. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** In the pod, in a process of its own: sends when told to, and tells the sizes of what comes. */
class UdpSocket implements Disposable {
  static async open(netns: string, family: 4 | 6, port = ownPort): Promise<UdpSocket> {
    const script = `
      const socket = require('node:dgram').createSocket('udp${family}');
      socket.on('message', (message) => console.log(message.length));
      socket.bind(${port}, () => console.log('ready'));
      process.stdin.on('data', (chunk) => {
        const [host, port] = chunk.toString().trim().split(' ');
        socket.send('?', Number(port), host);
      });
      process.stdin.on('end', () => process.exit(0));`;
    const child = spawn('nsenter', [`--net=${netns}`, process.execPath, '-e', script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    return new UdpSocket(child);
  }

  readonly #child: ReturnType<typeof spawn>;
  #output = '';

  private constructor(child: ReturnType<typeof spawn>) {
    this.#child = child;
    child.stdout?.on('data', (chunk: Buffer) => (this.#output += chunk.toString()));
  }

  ask(host: string, port: number): void {
    this.#child.stdin?.write(`${host} ${port}\n`);
  }

  async received(): Promise<number> {
    await waitUntil(() => this.#output.endsWith('\n'));
    const size = Number(this.#output);
    this.#output = '';
    return size;
  }

  /** Fails when anything comes within some time. */
  async silence(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(this.#output, '');
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}

async function waitUntil(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition();) {
    if (Date.now() > deadline) assert.fail('not within 10 s');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
