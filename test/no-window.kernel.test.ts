/**
 * No moment at which a forbidden packet passes or an allowed one is lost: real packets, counted on the wire beside the
 * pod, not asked of the pod. The datapath alone; test/agent-no-window.kernel.test.ts has the agent's part.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Datapath, type DatapathOptions, type EndpointPolicy, type PolicyEntry } from '../src/datapath/datapath.ts';
import { address, mustPrefix, TestBpffs, TestPair, TestStack, whyNoKernelTests } from '../src/datapath/test-bed.ts';
import { BpfLink, BpfProgram, haveTcx, ProgramType, RtNetlink, tcHandle, withNetns } from '../src/kernel/index.ts';
import { PacketCapture } from '../src/kernel/packet-capture.ts';
import { answerMs, framesOf, pause, slowness, sourceText, Traffic } from './traffic.ts';

const endpointId = 42;
const peerIdentity = 300;
const port = 4711;
const open: EndpointPolicy = { isolated: { ingress: false, egress: false }, entries: [] };
const closed: EndpointPolicy = { isolated: { ingress: true, egress: true }, entries: [] };
const allow = (direction: 'ingress' | 'egress', identity = peerIdentity, ruleId = 7): PolicyEntry => ({
  ...{ direction, identity, ruleId, protocol: 0, port: 0, portPrefixLen: 0, action: 'allow' },
});
/** Lets the connection be opened by the pod, or by the peer; their packets the other way are replies. */
const toPeer: EndpointPolicy = { isolated: { ingress: true, egress: true }, entries: [allow('egress')] };

const reason = whyNoKernelTests();
const noTcx = reason === undefined && !haveTcx() ? 'this kernel has no tcx (6.6)' : false;

describe('no window', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let bpffs: TestBpffs;
  let pair: TestPair;

  beforeEach(() => {
    stack = new TestStack();
    bpffs = stack.use(new TestBpffs());
    pair = stack.use(new TestPair('veth'));
  });
  afterEach(() => stack[Symbol.dispose]());

  const directory = (): string => join(bpffs.path, 'sluice');
  const opened = (options: Partial<DatapathOptions> = {}): Datapath => {
    const datapath = stack.use(Datapath.open({ bpffsDir: directory(), limits: { conntrack: 8192 }, ...options }));
    datapath.updateIpcache({
      upsert: [
        [mustPrefix('10.0.0.20/32'), peerIdentity],
        [mustPrefix('fd00::20/128'), peerIdentity],
      ],
      remove: [],
    });
    return datapath;
  };
  const attach = (datapath: Datapath): void => datapath.attach({ endpointId, netns: pair.pod, interfaceName: 'eth0' });
  const problems = (datapath: Datapath): string[] =>
    datapath.checkEndpoint(endpointId, pair.pod, 'eth0').map((finding) => finding.problem);
  const capturePeer = (): PacketCapture => stack.use(PacketCapture.open(pair.peer, 'eth0'));
  const startTraffic = async (...args: Parameters<typeof Traffic.start>): Promise<Traffic> =>
    stack.use(await Traffic.start(...args));

  for (const family of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      it(`IPv${family}: a new deny stops a running ${protocol} flow at its next packet, a new allow lets it go on`, async () => {
        const [pod, peer] = [address[`pod${family}`], address[`peer${family}`]];
        const fromPod = { protocol, port, source: sourceText(pod) };
        const datapath = opened();
        attach(datapath);
        datapath.setPolicy(endpointId, toPeer);
        await startTraffic(pair.peer, 'echo', peer, port);
        await startTraffic(pair.pod, protocol === 'tcp' ? 'tcp-stream' : 'udp-ask', peer, port);
        const capture = capturePeer();
        assert.ok((await untilFrames(capture, fromPod, 10_000)) > 0, 'the flow runs');

        datapath.setPolicy(endpointId, closed);
        await pause(2); // what passed the hook before the change is on the other side by now
        capture.drain();
        await pause(800);
        assert.equal(framesOf(capture.drain(), fromPod).length, 0, 'not one packet after the change');

        datapath.setPolicy(endpointId, toPeer);
        // The next try: of UDP after the answer's time, of TCP when its retransmission timer says so.
        const seen = await untilFrames(capture, fromPod, 2 * answerMs + 4_000);
        assert.ok(seen > 0, 'a retry passes at once');
      });
    }
  }

  it('swaps policies 1,000 times under traffic that both allow and loses nothing', async () => {
    const datapath = opened();
    attach(datapath);
    datapath.setPolicy(endpointId, toPeer);
    await startTraffic(pair.peer, 'echo', '::', port);
    const flows = await Promise.all([
      startTraffic(pair.pod, 'udp-ask', address.peer4, port),
      startTraffic(pair.pod, 'udp-ask', address.peer6, port),
    ]);
    const stream = await startTraffic(pair.pod, 'tcp-stream', address.peer4, port);
    for (let i = 0; i < 1_000; i++) {
      const entries = [allow('egress', peerIdentity, i), allow('ingress', 400 + (i % 7)), allow('egress', 500 + i)];
      datapath.setPolicy(endpointId, { isolated: { ingress: i % 2 === 0, egress: i % 3 !== 0 }, entries });
      await pause(1);
    }
    for (const flow of flows) {
      const count = await flow.stop();
      assert.ok(count.answered > 500 / slowness, JSON.stringify(count));
      assert.deepEqual([count.lost, count.errors], [0, 0], JSON.stringify(count));
    }
    const count = await stream.stop();
    assert.ok(count.answered > 0 && count.errors === 0, JSON.stringify(count));
    const drops = datapath.dropCounters().filter((drop) => drop.reason === 'policy' && drop.direction === 'egress');
    assert.deepEqual(drops, []);
  });

  it('swaps policies 1,000 times under traffic that both forbid and passes nothing', async () => {
    const datapath = opened();
    attach(datapath);
    datapath.setPolicy(endpointId, closed);
    await startTraffic(pair.peer, 'echo', '::', port);
    await startTraffic(pair.pod, 'echo', '::', port + 1);
    const captures = [capturePeer(), stack.use(PacketCapture.open(pair.pod, 'eth0'))] as const;
    const flows = await Promise.all([
      startTraffic(pair.pod, 'udp-fire', address.peer4, port),
      startTraffic(pair.pod, 'udp-fire', address.peer6, port),
      startTraffic(pair.peer, 'udp-fire', address.pod4, port + 1),
    ]);
    let leaked = 0;
    for (let i = 0; i < 1_000; i++) {
      const entries = [allow('egress', 400 + i), allow('ingress', 400 + (i % 7)), allow('ingress', 900)];
      datapath.setPolicy(endpointId, { isolated: { ingress: true, egress: true }, entries: entries.slice(i % 3) });
      const frames = captures[0].drain();
      leaked += framesOf(frames, { protocol: 'udp', port }).length;
      leaked += framesOf(frames, { protocol: 'udp', port: port + 1, source: address.pod4 }).length;
      await pause(1);
    }
    assert.equal(leaked, 0);
    assert.ok(framesOf(captures[1].drain(), { protocol: 'udp', port: port + 1 }).length > 0, 'the peer did send');
    for (const flow of flows) assert.ok((await flow.stop()).sent > 200 / slowness);
    const drops = datapath.dropCounters().filter((drop) => drop.reason === 'policy');
    for (const direction of ['ingress', 'egress']) {
      assert.ok(Number(drops.find((drop) => drop.direction === direction)?.packets ?? 0n) > 200 / slowness, direction);
    }
  });

  it('a wiped bpffs opens nothing while the process lives, and gets its names back', { skip: noTcx }, async () => {
    const datapath = opened();
    attach(datapath);
    datapath.setPolicy(endpointId, closed);
    const capture = capturePeer();
    await startTraffic(pair.pod, 'udp-fire', address.peer4, port);
    rmSync(directory(), { recursive: true });
    await pause(500); // the kernel lets go of links from a work queue
    assert.equal(framesOf(capture.drain(), { protocol: 'udp', port }).length, 0);
    assert.deepEqual(problems(datapath), []);
    const restored = datapath.restorePins(new Map([[endpointId, ['eth0']]]));
    assert.equal(restored.filter((path) => path.includes(`/endpoint/${endpointId}/`)).length, 4, restored.join());
    assert.ok(restored.includes(join(directory(), 'policy')));
    assert.deepEqual(datapath.restorePins(new Map([[endpointId, ['eth0']]])), []);
    datapath.close();
    const next = opened();
    assert.equal(next.endpoints()[0]?.programmed, true, 'the next process finds the policy');
    assert.deepEqual(problems(next), []);
    await pause(200);
    assert.equal(framesOf(capture.drain(), { protocol: 'udp', port }).length, 0);
  });

  it('maps wiped while nobody ran: programs over the old maps are replaced, closed until programmed', async () => {
    const first = opened();
    attach(first);
    first.setPolicy(endpointId, open);
    first.close();
    for (const name of ['endpoints', 'policy', 'ipcache', 'conntrack', 'config']) rmSync(join(directory(), name));
    const second = opened();
    assert.notDeepEqual(problems(second), []);
    attach(second);
    assert.deepEqual(problems(second), ['not_programmed']);
    assert.ok(!pair.ping('pod', address.peer4), 'closed, since nobody knows its policy');
    second.setPolicy(endpointId, toPeer);
    assert.ok(pair.ping('pod', address.peer4), 'the programs follow the new maps');
  });

  it('a program that somebody puts before ours on the tcx hook is outrun again', { skip: noTcx }, () => {
    const datapath = opened();
    attach(datapath);
    datapath.setPolicy(endpointId, closed);
    using pass = program(0); // TCX_PASS: those behind it are not asked
    using _foreign = attachForeign(pair.pod, pass);
    assert.ok(pair.ping('pod', address.peer4), 'the intruder does skip us');
    assert.deepEqual(problems(datapath), ['not_first', 'not_first']);
    attach(datapath);
    assert.deepEqual(problems(datapath), []);
    assert.ok(!pair.ping('pod', address.peer4));
    datapath.close();
    assert.deepEqual(problems(opened()), [], 'what is pinned is the link in front');
  });

  it('moves to the front without a gap', { skip: noTcx }, async () => {
    const datapath = opened();
    attach(datapath);
    datapath.setPolicy(endpointId, closed);
    const capture = capturePeer();
    const flow = await startTraffic(pair.pod, 'udp-fire', address.peer4, port);
    for (let i = 0; i < 50; i++) {
      using next = program(-1); // TCX_NEXT: harmless, but in front
      using _foreign = attachForeign(pair.pod, next);
      assert.deepEqual(problems(datapath), ['not_first', 'not_first']);
      attach(datapath);
      assert.deepEqual(problems(datapath), []);
      await pause(5);
    }
    assert.equal(framesOf(capture.drain(), { protocol: 'udp', port }).length, 0);
    assert.ok((await flow.stop()).sent > 100 / slowness);
  });

  it('clsact: a filter before ours, ours removed, or another kind in its place: all put back', () => {
    const datapath = opened({ mechanism: 'clsact' });
    attach(datapath);
    datapath.setPolicy(endpointId, closed);
    using netlink = RtNetlink.open(pair.pod);
    const { ifindex } = netlink.mustLink('eth0');
    const place = { ifindex, parent: tcHandle.clsactEgress, priority: 1 };
    using pass = program(0);
    netlink.addFilter({ ...place, handle: 9, options: { kind: 'bpf', programFd: pass.fd, name: 'intruder' } });
    assert.deepEqual(problems(datapath), ['not_first']);
    attach(datapath);
    assert.deepEqual(problems(datapath), []);
    assert.equal(netlink.filters(ifindex, tcHandle.clsactEgress).filter((filter) => filter.handle !== 0).length, 1);
    netlink.deleteFilters(ifindex, tcHandle.clsactEgress, 1);
    netlink.addFilter({ ...place, handle: 0, options: { kind: 'u32', redirectToIfindex: ifindex } });
    assert.deepEqual(problems(datapath), ['hook_missing']);
    attach(datapath);
    assert.deepEqual(problems(datapath), []);
    assert.ok(!pair.ping('pod', address.peer4));
  });

  it('clsact: detaching takes the filters along', () => {
    const datapath = opened({ mechanism: 'clsact' });
    attach(datapath);
    datapath.setPolicy(endpointId, closed);
    assert.ok(!pair.ping('pod', address.peer4));
    datapath.detachEndpoint(endpointId, [{ netns: pair.pod, interfaceName: 'eth0' }]);
    assert.ok(pair.ping('pod', address.peer4));
  });
});

/** `r0 = value; exit`. */
function program(value: number): BpfProgram {
  const instructions = new Uint8Array(16);
  instructions.set([0xb7, 0, 0, 0]);
  new DataView(instructions.buffer).setInt32(4, value, true);
  instructions[8] = 0x95;
  return BpfProgram.load({ name: 'intruder', type: ProgramType.schedCls, instructions, license: 'GPL' });
}

/** First on both hooks, until disposed of. */
function attachForeign(netns: string, program: BpfProgram): Disposable {
  const links = withNetns(netns, () => {
    using netlink = RtNetlink.open();
    const { ifindex } = netlink.mustLink('eth0');
    return (['ingress', 'egress'] as const).map((hook) => BpfLink.attachTcx({ program, ifindex, hook }));
  });
  return {
    [Symbol.dispose]: () => {
      for (const link of links) {
        link.detach();
        link.close();
      }
    },
  };
}

async function untilFrames(
  capture: PacketCapture,
  filter: Parameters<typeof framesOf>[1],
  timeoutMs: number,
): Promise<number> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const seen = framesOf(capture.drain(), filter).length;
    if (seen > 0 || Date.now() > deadline) return seen;
    await pause(20);
  }
}
