/** Frames that are not what they seem, real ones: for a VLAN, or with another type on the wire than the kernel is told. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PacketCapture } from '../kernel/packet-capture.ts';
import { sendFrames } from '../kernel/packet-send.ts';
import { Datapath } from './datapath.ts';
import { ip, udpHeader } from './packets.ts';
import { address, type PairLink, TestBpffs, TestPair, TestStack, whyNoKernelTests, whyNoLink } from './test-bed.ts';

const endpointId = 44;
const reason = whyNoKernelTests();
const ETH_P_IP = 0x0800;
const ETH_P_ARP = 0x0806;
const anyone = { identity: 0, protocol: 17, port: 5000, portPrefixLen: 16, ruleId: 300, action: 'allow' } as const;

/** The frame with an 802.1Q tag. */
function tagged(frame: Uint8Array, vlan: number): Uint8Array {
  return Buffer.concat([frame.subarray(0, 12), Uint8Array.of(0x81, 0, vlan >> 8, vlan & 0xff), frame.subarray(12)]);
}

describe('frames that are not what they seem', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let datapath: Datapath;

  beforeEach(() => {
    stack = new TestStack();
    const bpffs = stack.use(new TestBpffs());
    datapath = stack.use(Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 8192 } }));
  });
  afterEach(() => stack[Symbol.dispose]());

  function pairOf(link: PairLink): TestPair {
    const pair = stack.use(new TestPair(link, link === 'veth' ? 'beside' : 'outside'));
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
    datapath.setPolicy(endpointId, {
      isolated: { ingress: true, egress: true },
      entries: [
        { direction: 'ingress', ...anyone },
        { direction: 'egress', ...anyone },
      ],
    });
    return pair;
  }

  /** Packets of the last `work`, by reason; neighbour discovery of the kernel's own may be among those forwarded. */
  async function judged(
    direction: 'ingress' | 'egress',
    count: number,
    work: () => void,
  ): Promise<Map<string, number>> {
    const read = (): Map<string, number> => {
      const counters = datapath.counters().filter((counter) => counter.direction === direction);
      return new Map(counters.map(({ reason: why, packets }) => [why, Number(packets)]));
    };
    const before = read();
    const news = (): Map<string, number> =>
      new Map([...read()].map(([why, packets]) => [why, packets - (before.get(why) ?? 0)]));
    work();
    for (const deadline = Date.now() + 10_000; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
      const seen = news();
      if ([...seen.values()].reduce((sum, packets) => sum + packets, 0) >= count || Date.now() > deadline) return seen;
    }
  }

  it('a frame for a VLAN is not judged by its addresses, which mean another machine there; a priority alone is no VLAN', async () => {
    const pair = pairOf('veth');
    const udp = ip(address.peer4, address.pod4, 17, udpHeader(4000, 5000));
    const send = (frame: Uint8Array, times: number) => () => {
      sendFrames(pair.peer, pair.interfaceName, new Array<Uint8Array>(times).fill(frame));
    };
    const plain = await judged('ingress', 5, send(udp, 5));
    assert.ok((plain.get('forwarded') ?? 0) >= 5 && (plain.get('non_ip') ?? 0) === 0, JSON.stringify([...plain]));
    const inVlan = await judged('ingress', 5, send(tagged(udp, 5), 5));
    assert.equal(inVlan.get('non_ip'), 5, JSON.stringify([...inVlan]));
    const priority = await judged('ingress', 5, send(tagged(udp, 0), 5));
    assert.ok((priority.get('forwarded') ?? 0) >= 5, JSON.stringify([...priority]));
    const arp = Buffer.concat([udp.subarray(0, 12), Uint8Array.of(0x08, 0x06), new Uint8Array(46)]);
    assert.equal((await judged('ingress', 5, send(tagged(arp, 5), 5))).get('non_ip'), 5, 'ARP of another network');
    const sent = await judged('egress', 1, () => {
      assert.throws(() => sendFrames(pair.pod, pair.interfaceName, [tagged(udp, 5)]), /ENOBUFS/);
    });
    assert.equal(sent.get('non_ip'), 1, JSON.stringify([...sent]));
  });

  for (const link of ['veth', 'ipvlan-l3'] as const) {
    const without = link === 'veth' ? undefined : whyNoLink(link, process.env);
    it(`${link}: what a raw socket calls IP has to be IP on the wire`, { skip: without ?? false }, async () => {
      const pair = pairOf(link);
      using capture = PacketCapture.open(pair.peer, pair.interfaceName);
      // ARP on the wire would always pass; ipvlan in mode l3 routes it as the IP that the socket says it is.
      const forged = Uint8Array.from(ip(address.pod4, address.peer4, 17, udpHeader(4000, 5001)));
      new DataView(forged.buffer).setUint16(12, ETH_P_ARP);
      const outcome = await judged('egress', 1, () => {
        assert.throws(() => sendFrames(pair.pod, pair.interfaceName, [forged], { claim: ETH_P_IP }), /ENOBUFS/);
      });
      assert.equal(outcome.get('non_ip'), 1, JSON.stringify([...outcome]));
      const isOurs = (frame: Uint8Array): boolean => Buffer.from(frame).includes(Buffer.from(udpHeader(4000, 5001)));
      assert.ok(!capture.drain(300).some(isOurs), 'it arrived');
      sendFrames(pair.pod, pair.interfaceName, [ip(address.pod4, address.peer4, 17, udpHeader(4000, 5000))], {
        claim: ETH_P_IP,
      });
    });
  }
});
