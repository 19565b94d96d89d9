/**
 * The encodings against the bytes that iproute2 6.1 sends, so that kinds this machine's kernel lacks are checked too.
 * Taken with `strace -e trace=sendmsg -xx -s 8192 COMMAND` (the command stands above each row) on a veth pair v0
 * (ifindex 3), v1 (ifindex 2). Attributes are compared by type, because their order carries no meaning.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Attributes, MessageReader, parseAttributes } from './codec.ts';
import { encodeFilter } from './filter.ts';
import { encodeLinkSpec, type LinkSpec } from './link.ts';
import { encodeHtbClass, encodeQdisc, type QdiscOptions, tcHandle, tcMakeHandle } from './qdisc.ts';

const TCA_OPTIONS = 2;
const tcmsgLength = 20;

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

function hexOf(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? 'absent' : Buffer.from(bytes).toString('hex');
}

function attributesOf(body: Uint8Array, headerLength: number): Attributes {
  const reader = new MessageReader(body);
  reader.skip(headerLength);
  return reader.attributes();
}

function byType(bytes: Uint8Array): Record<number, string> {
  const attributes = parseAttributes(bytes);
  const present = Array.from({ length: 64 }, (_, type) => type).filter((type) => attributes.has(type));
  return Object.fromEntries(present.map((type) => [type, hexOf(attributes.bytes(type))]));
}

function optionsOf(body: Uint8Array): Uint8Array {
  const options = attributesOf(body, tcmsgLength).bytes(TCA_OPTIONS);
  assert.ok(options, 'the message has no options');
  return options;
}

describe('qdisc encodings', () => {
  const rows: readonly { command: string; options: QdiscOptions; hex: string }[] = [
    {
      command:
        'tc qdisc add dev v0 root handle 1: fq_codel limit 1000 target 5ms interval 100ms quantum 1514 flows 1024 memory_limit 4194304 noecn',
      options: {
        kind: 'fq_codel',
        limitPackets: 1000,
        targetUs: 5000,
        intervalUs: 100_000,
        quantumBytes: 1514,
        flows: 1024,
        memoryLimitBytes: 4 << 20,
        ecn: false,
      },
      hex: '08000200e8030000 0800050000040000 08000600ea050000 08000300a0860100 0800010088130000 0800040000000000 0800090000004000',
    },
    {
      command: 'tc qdisc add dev v0 root handle 1: fq limit 10000 horizon 2s',
      options: { kind: 'fq', limitPackets: 10_000, horizonUs: 2_000_000 },
      hex: '0800010010270000 08000e0080841e00',
    },
    {
      command: 'tc qdisc add dev v0 root handle 1: htb default 0x10',
      options: { kind: 'htb', defaultClass: 0x10 },
      hex: '18000200030000000a000000100000000000000000000000',
    },
  ];

  for (const { command, options, hex } of rows) {
    it(command, () => {
      const body = encodeQdisc({ ifindex: 3, parent: tcHandle.root, handle: tcMakeHandle(1, 0), options });
      assert.deepEqual(byType(optionsOf(body)), byType(bytesOf(hex)));
    });
  }

  it('tc qdisc add dev v0 root handle 1: cake bandwidth 100mbit raw rtt 10ms memlimit 4194304 split-gso ingress', () => {
    const body = encodeQdisc({
      ifindex: 3,
      parent: tcHandle.root,
      handle: tcMakeHandle(1, 0),
      options: {
        kind: 'cake',
        rateBytes: 12_500_000,
        rttUs: 10_000,
        memoryLimitBytes: 4 << 20,
        splitGso: true,
        ingress: true,
      },
    });
    const sent = byType(
      bytesOf(
        '0c00020020bcbe0000000000 0800040000000000 0800060000000000 08000c0000000000 0800070010270000 08000800f4010000' +
          '0800090000000000 08000a0000004000 0800110001000000 08000f0001000000',
      ),
    );
    // tc also writes what `raw` implies: no ATM framing (4), no overhead (6), no autorate (9). They are the defaults.
    assert.deepEqual({ ...byType(optionsOf(body)), 4: '00000000', 6: '00000000', 9: '00000000' }, sent);
  });

  it('tc qdisc add dev v0 root handle 1: pfifo limit 100', () => {
    const body = encodeQdisc({ ifindex: 3, parent: tcHandle.root, handle: 0, options: { kind: 'pfifo', limit: 100 } });
    assert.equal(hexOf(optionsOf(body)), '64000000');
  });

  it('tc qdisc add dev v0 clsact', () => {
    const spec = { ifindex: 3, parent: tcHandle.ingress, handle: tcHandle.clsact };
    const reader = new MessageReader(encodeQdisc({ ...spec, options: { kind: 'clsact' } }));
    reader.skip(8);
    assert.deepEqual([reader.u32(), reader.u32()], [4_294_901_760, 4_294_967_281]);
  });

  it('tbf counts its burst in scheduler ticks and in bytes', () => {
    // 64 KiB at 100 Mbit/s last 5.24288 ms, which is 81,920 ticks of 64 ns (tc rounds to 81,906).
    const options = { kind: 'tbf', rateBytes: 12_500_000, burstBytes: 65_536, limitBytes: 400_000 } as const;
    const sent = byType(optionsOf(encodeQdisc({ ifindex: 3, parent: tcHandle.root, handle: 0, options })));
    assert.equal(sent[6], '00000100');
    assert.equal(
      sent[1],
      '000100000000000020bcbe00' + '000100000000000000000000' + '801a0600' + '00400100' + '00000000',
    );
    assert.equal(sent[4], undefined, 'a rate below 4 GB/s needs no 64-bit attribute');
  });

  it('a rate that does not fit 32 bits goes into the 64-bit attribute, as tc does for tbf, htb rate and ceil', () => {
    const rateBytes = 5_000_000_000;
    const tbf = encodeQdisc({
      ifindex: 3,
      parent: tcHandle.root,
      handle: 0,
      options: { kind: 'tbf', rateBytes, burstBytes: 1 << 20, limitBytes: 1 << 20 },
    });
    assert.equal(byType(optionsOf(tbf))[4], '00f2052a01000000');
    const htb = encodeHtbClass({
      ifindex: 3,
      parent: tcMakeHandle(1, 0),
      handle: tcMakeHandle(1, 0x10),
      rateBytes,
      ceilBytes: rateBytes,
      burstBytes: 1 << 20,
      ceilBurstBytes: 1 << 20,
      quantumBytes: 1514,
    });
    assert.deepEqual([byType(optionsOf(htb))[6], byType(optionsOf(htb))[7]], ['00f2052a01000000', '00f2052a01000000']);
  });
});

describe('filter encodings', () => {
  const mirred =
    '34000100 0b0001006d69727265640000 24000200 20000200 0000000000000000 0400000000000000 0000000001000000 02000000';

  /** kind → action list and, for u32, its selector. */
  function sentBy(kind: 'u32' | 'matchall'): Record<number, string> {
    const options = { kind, redirectToIfindex: 2 };
    return byType(
      optionsOf(encodeFilter({ ifindex: 3, parent: tcHandle.clsactIngress, priority: 1, handle: 0, options })),
    );
  }

  it('tc filter add dev v0 ingress prio 1 handle 1 matchall action mirred egress redirect dev v1', () => {
    assert.deepEqual(sentBy('matchall'), { 2: mirred.replaceAll(' ', '') });
  });

  it('tc filter add dev v0 ingress prio 1 protocol all u32 match u32 0 0 action mirred egress redirect dev v1', () => {
    const selector = '01000100000000000000000000000000' + '00000000000000000000000000000000';
    assert.deepEqual(sentBy('u32'), { 5: selector, 7: mirred.replaceAll(' ', '') });
  });

  it('packs priority and protocol as tc does', () => {
    const options = { kind: 'bpf', programFd: 9, name: 'p' } as const;
    const reader = new MessageReader(
      encodeFilter({ ifindex: 3, parent: tcHandle.clsactIngress, priority: 1, handle: 1, options }),
    );
    reader.skip(16);
    assert.equal(reader.u32(), 66_304);
  });
});

describe('link encodings', () => {
  const IFLA_LINK = 5;
  const IFLA_LINKINFO = 18;
  const rows: readonly { command: string; spec: LinkSpec; parent: number | undefined; data: string }[] = [
    {
      command: 'ip link add ipv0 link v0 type ipvlan mode l2',
      spec: { kind: 'ipvlan', name: 'ipv0', parentIfindex: 3, mode: 'l2' },
      parent: 3,
      data: '06000100000000000600020000000000',
    },
    {
      command: 'ip link add mv0 link v0 type macvlan mode bridge',
      spec: { kind: 'macvlan', name: 'mv0', parentIfindex: 3, mode: 'bridge' },
      parent: 3,
      data: '0800010004000000',
    },
    {
      command: 'ip link add dum0 type dummy',
      spec: { kind: 'dummy', name: 'dum0' },
      parent: undefined,
      data: 'absent',
    },
  ];

  for (const { command, spec, parent, data } of rows) {
    it(command, () => {
      const attributes = attributesOf(encodeLinkSpec(spec), 16);
      const info = attributes.nested(IFLA_LINKINFO);
      assert.equal(attributes.string(3), spec.name);
      assert.equal(attributes.u32(IFLA_LINK), parent);
      assert.equal(info?.string(1), spec.kind);
      assert.equal(hexOf(info?.bytes(2)), data);
    });
  }
});
