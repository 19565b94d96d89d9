/**
 * Rows of {sentence, packets and what the kernel does with them}, run by the kernel on the committed programs. Every
 * row starts without connections, under this policy unless it says otherwise:
 *
 *   ingress: isolated; client (identity 300) may reach TCP 80; SCTP 90; anyone UDP 5000-5007
 *   egress:  isolated; everything to server (identity 301); TCP 443 to anyone
 */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { BpfProgram, Collection } from '../kernel/index.ts';
import { conntrackEntry, type Direction, type Reason } from './abi.ts';
import { readCounters } from './counters.ts';
import { Datapath, type EndpointPolicy, type PolicyEntry } from './datapath.ts';
import { DatapathMaps } from './maps.ts';
import {
  ethernet,
  fragmentHeader,
  icmpHeader,
  ip,
  type IpOptions,
  ipv4,
  ipv6,
  tcpFlag,
  tcpHeader,
  udpHeader,
} from './packets.ts';
import { loadEndpointPrograms, programNames, readEndpointObject } from './programs.ts';
import { mustPrefix, TestBpffs, whyNoKernelTests } from './test-bed.ts';

const endpointId = 7;
const pod = { 4: '10.0.0.10', 6: 'fd00::10' } as const;
const client = { 4: '10.0.0.20', 6: 'fd00::20' } as const;
const server = { 4: '10.0.0.30', 6: 'fd00::30' } as const;
const node = { 4: '10.0.0.1', 6: 'fd00::1' } as const;
const world = { 4: '192.0.2.1', 6: '2001:db8::1' } as const;
type Host = Readonly<Record<4 | 6, string>>;

const TCP = 6;
const UDP = 17;
const SCTP = 132;
const icmpOf = { 4: 1, 6: 58 } as const;
const echo = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
const unreachable = { 4: 3, 6: 1 } as const;

const entry = (
  direction: Direction,
  identity: number,
  protocol = 0,
  port = 0,
  portPrefixLen = protocol === 0 ? 0 : 16,
): PolicyEntry => ({ direction, identity, protocol, port, portPrefixLen, ruleId: 40 + protocol, action: 'allow' });

const standard = {
  isolated: { ingress: true, egress: true },
  entries: [
    entry('ingress', 300, TCP, 80),
    entry('ingress', 300, SCTP, 90),
    entry('ingress', 0, UDP, 5000, 13),
    entry('egress', 301),
    entry('egress', 0, TCP, 443),
  ],
};
const open = { isolated: { ingress: false, egress: false }, entries: [] };
const denyAll = { isolated: { ingress: true, egress: true }, entries: [] };

type Verdict = 'pass' | Exclude<Reason, 'forwarded'>;
type Step =
  | { readonly hook: Direction; readonly frame: Uint8Array; readonly verdict: Verdict }
  | { readonly change: (datapath: Datapath, maps: DatapathMaps) => void };
type Row = readonly [sentence: string, steps: (family: 4 | 6) => Step[]];

const out = (verdict: Verdict, frame: Uint8Array): Step => ({ hook: 'egress', frame, verdict });
const into = (verdict: Verdict, frame: Uint8Array): Step => ({ hook: 'ingress', frame, verdict });
const policy = (wanted: EndpointPolicy): Step => ({
  change: (datapath) => datapath.setPolicy(endpointId, wanted),
});

/** Makes every connection as old as if nothing had come for that long. */
const silence = (seconds: number): Step => ({
  change: (_, { byName: { conntrack } }) => {
    for (const key of conntrack.keys()) {
      const value = conntrack.lookup(key);
      if (value === undefined) continue;
      const entry = conntrackEntry.decode(value);
      conntrack.update(
        key,
        conntrackEntry.encode({ ...entry, lastSeenNs: entry.lastSeenNs - BigInt(seconds) * 1_000_000_000n }),
      );
    }
  },
});

/** Frames of both families, from one host to another. */
function tcp(
  f: 4 | 6,
  from: Host,
  to: Host,
  ports: [number, number],
  flags: number = tcpFlag.ack,
  options?: IpOptions,
) {
  return ip(from[f], to[f], TCP, tcpHeader(...ports, flags), options);
}
function udp(f: 4 | 6, from: Host, to: Host, ports: [number, number], options?: IpOptions) {
  return ip(from[f], to[f], UDP, udpHeader(...ports), options);
}
function sctp(f: 4 | 6, from: Host, to: Host, ports: [number, number], tag: number) {
  return ip(from[f], to[f], SCTP, udpHeader(...ports, tag));
}
function ping(f: 4 | 6, from: Host, to: Host, what: 'request' | 'reply', id = 9, options?: IpOptions) {
  return ip(from[f], to[f], icmpOf[f], icmpHeader(echo[f][what], 0, id), options);
}
/** An ICMP error of `from` about a packet that `quotedFrom` sent to `quotedTo`. */
function error(f: 4 | 6, from: Host, to: Host, quoted: Uint8Array) {
  return ip(from[f], to[f], icmpOf[f], icmpHeader(unreachable[f], 0, 0, quoted.subarray(14)));
}
/** Makes a packet the first fragment of datagram `id`. */
const first = (id: number): IpOptions => ({ fragment: { offset: 0, more: true, id } });
/** A fragment without ports: the last one, unless it says otherwise. */
function later(
  f: 4 | 6,
  from: Host,
  to: Host,
  protocol: number,
  id: number,
  { offset = 80, more = false }: { offset?: number; more?: boolean } = {},
) {
  return ip(from[f], to[f], protocol, new Uint8Array(64), { fragment: { offset, more, id } });
}
const SYN = tcpFlag.syn;
const SYNACK = tcpFlag.syn | tcpFlag.ack;

const rows: readonly Row[] = [
  [
    'an allowed client connects, is answered, and goes on',
    (f) => [
      into('pass', tcp(f, client, pod, [4000, 80], SYN)),
      out('pass', tcp(f, pod, client, [80, 4000], SYNACK)),
      into('pass', tcp(f, client, pod, [4000, 80])),
      out('pass', tcp(f, pod, client, [80, 4000])),
    ],
  ],
  ['an allowed client does not reach another port', (f) => [into('policy', tcp(f, client, pod, [4000, 81], SYN))]],
  [
    'an allowed port is closed to others',
    (f) => [into('policy', tcp(f, server, pod, [4000, 80], SYN)), into('policy', tcp(f, world, pod, [4000, 80], SYN))],
  ],
  [
    'TCP 80 does not open UDP 80 or SCTP 80',
    (f) => [into('policy', udp(f, client, pod, [4000, 80])), into('policy', sctp(f, client, pod, [4000, 80], 0))],
  ],
  [
    'a port range is exactly a range',
    (f) => [
      into('policy', udp(f, world, pod, [4000, 4999])),
      into('pass', udp(f, world, pod, [4000, 5000])),
      into('pass', udp(f, world, pod, [4000, 5007])),
      into('policy', udp(f, world, pod, [4000, 5008])),
    ],
  ],
  [
    'UDP is answered',
    (f) => [
      into('pass', udp(f, world, pod, [4000, 5000])),
      out('pass', udp(f, pod, world, [5000, 4000])),
      out('policy', udp(f, pod, world, [5000, 4001])),
    ],
  ],
  [
    'egress to an allowed identity, any protocol',
    (f) => [
      out('pass', tcp(f, pod, server, [4000, 1234], SYN)),
      out('pass', udp(f, pod, server, [4000, 1234])),
      out('pass', ip(pod[f], server[f], 47, new Uint8Array(8))),
    ],
  ],
  [
    'egress to any address on an allowed port',
    (f) => [
      out('pass', tcp(f, pod, world, [4000, 443], SYN)),
      out('policy', tcp(f, pod, world, [4000, 444], SYN)),
      out('policy', udp(f, pod, world, [4000, 443])),
    ],
  ],
  [
    'the remote side of an allowed connection may not open one itself with the same ports',
    (f) => [
      out('pass', tcp(f, pod, server, [4000, 443], SYN)),
      into('pass', tcp(f, server, pod, [443, 4000], SYNACK)),
      into('policy', tcp(f, server, pod, [443, 4000], SYN)),
      into('pass', tcp(f, server, pod, [443, 4000])),
    ],
  ],
  [
    'SCTP: an INIT is never a reply',
    (f) => [
      out('pass', sctp(f, pod, server, [4000, 90], 0)),
      into('pass', sctp(f, server, pod, [90, 4000], 77)),
      into('policy', sctp(f, server, pod, [90, 4000], 0)),
    ],
  ],
  [
    'SCTP ingress',
    (f) => [into('pass', sctp(f, client, pod, [4000, 90], 0)), out('pass', sctp(f, pod, client, [90, 4000], 5))],
  ],
  [
    'the node reaches the pod whatever the policy, and is answered',
    (f) => [
      policy(denyAll),
      into('pass', tcp(f, node, pod, [4000, 8080], SYN)),
      out('pass', tcp(f, pod, node, [8080, 4000], SYNACK)),
      into('pass', ping(f, node, pod, 'request')),
    ],
  ],
  ['the pod does not reach the node under a policy', (f) => [out('policy', tcp(f, pod, node, [4000, 10250], SYN))]],
  [
    'without isolation everything passes',
    (f) => [
      policy(open),
      into('pass', tcp(f, world, pod, [4000, 81], SYN)),
      out('pass', udp(f, pod, world, [4000, 53])),
      out('pass', ping(f, pod, world, 'request')),
    ],
  ],
  [
    'isolation is per direction',
    (f) => [
      policy({ isolated: { ingress: false, egress: true }, entries: [] }),
      into('pass', tcp(f, world, pod, [4000, 81], SYN)),
      out('pass', tcp(f, pod, world, [81, 4000], SYNACK)),
      out('policy', tcp(f, pod, world, [4001, 81], SYN)),
    ],
  ],
  [
    'a policy that comes later cuts no reply of what it allows',
    (f) => [
      policy(open),
      into('pass', tcp(f, client, pod, [4000, 80], SYN)),
      policy(standard),
      out('pass', tcp(f, pod, client, [80, 4000], SYNACK)),
      into('pass', tcp(f, client, pod, [4000, 80])),
    ],
  ],
  [
    'a policy that denies a live connection cuts it in both directions, and it stays cut',
    (f) => [
      policy(open),
      into('pass', tcp(f, client, pod, [4000, 22], SYN)),
      out('pass', tcp(f, pod, client, [22, 4000], SYNACK)),
      policy({ isolated: { ingress: true, egress: false }, entries: [] }),
      out('policy', tcp(f, pod, client, [22, 4000])),
      into('policy', tcp(f, client, pod, [4000, 22])),
      out('policy', tcp(f, pod, client, [22, 4000])),
    ],
  ],
  [
    'what was cut stays cut, also when it was half closed or seemingly reset, and longer than that is remembered',
    (f) => [
      ...[tcpFlag.fin | tcpFlag.ack, tcpFlag.rst].flatMap((flag, i) => [
        policy(open),
        into('pass', tcp(f, client, pod, [4000 + i, 22], SYN)),
        out('pass', tcp(f, pod, client, [22, 4000 + i], SYNACK)),
        into('pass', tcp(f, client, pod, [4000 + i, 22], flag)),
        policy({ isolated: { ingress: true, egress: false }, entries: [] }),
        out('policy', tcp(f, pod, client, [22, 4000 + i])),
        silence(900),
        // The pod may open connections to the client; this is none.
        out('policy', tcp(f, pod, client, [22, 4000 + i])),
        into('policy', tcp(f, client, pod, [4000 + i, 22])),
        out('pass', tcp(f, pod, client, [22, 4000 + i], SYN)),
        into('pass', tcp(f, client, pod, [4000 + i, 22], SYNACK)),
      ]),
    ],
  ],
  [
    'a connection is forgotten after its time, and its next packet is judged as a new one',
    (f) => [
      into('pass', tcp(f, client, pod, [4000, 80], SYN)),
      out('pass', tcp(f, pod, client, [80, 4000], SYNACK)),
      silence(21_000),
      out('pass', tcp(f, pod, client, [80, 4000])),
      silence(22_000),
      out('policy', tcp(f, pod, client, [80, 4000])),
      into('pass', tcp(f, client, pod, [4000, 80])),
      out('pass', tcp(f, pod, client, [80, 4000])),
      into('pass', udp(f, world, pod, [4000, 5000])),
      silence(31),
      out('policy', udp(f, pod, world, [5000, 4000])),
    ],
  ],
  [
    'a reply is judged as the connection was opened, not by its own direction',
    (f) => [
      policy(open),
      out('pass', tcp(f, pod, server, [4000, 80], SYN)),
      policy(standard),
      into('pass', tcp(f, server, pod, [80, 4000], SYNACK)),
    ],
  ],
  [
    'a change of identity judges connections again',
    (f) => [
      into('pass', tcp(f, client, pod, [4000, 80], SYN)),
      {
        change: (datapath) =>
          datapath.updateIpcache({ upsert: [[mustPrefix(`${client[f]}/${f === 4 ? 32 : 128}`), 999]], remove: [] }),
      },
      into('policy', tcp(f, client, pod, [4000, 80])),
      {
        change: (datapath) =>
          datapath.updateIpcache({ upsert: [[mustPrefix(`${client[f]}/${f === 4 ? 32 : 128}`), 300]], remove: [] }),
      },
      into('pass', tcp(f, client, pod, [4000, 80])),
    ],
  ],
  [
    'ping: the request decides, the reply follows, and is no licence to ask',
    (f) => [
      out('pass', ping(f, pod, server, 'request')),
      into('pass', ping(f, server, pod, 'reply')),
      into('policy', ping(f, server, pod, 'request')),
      into('policy', ping(f, server, pod, 'reply', 10)),
    ],
  ],
  [
    'an ICMP error about an allowed connection passes, whoever sends it',
    (f) => [
      out('pass', tcp(f, pod, server, [4000, 80], SYN)),
      into('pass', error(f, world, pod, tcp(f, pod, server, [4000, 80]))),
      into('pass', error(f, server, pod, tcp(f, pod, server, [4000, 80]))),
    ],
  ],
  [
    'an ICMP error about nothing we know is judged on its own',
    (f) => [
      into('policy', error(f, world, pod, tcp(f, pod, server, [4000, 81]))),
      into('policy', error(f, world, pod, tcp(f, client, server, [4000, 80]))),
    ],
  ],
  [
    'an ICMP error must go to the sender of what it quotes',
    (f) => [
      into('pass', tcp(f, client, pod, [4000, 80], SYN)),
      into('policy', error(f, world, pod, tcp(f, client, pod, [4000, 80]))),
    ],
  ],
  [
    'the pod may report an error about what it received',
    (f) => [
      into('pass', udp(f, world, pod, [4000, 5000])),
      out('pass', error(f, pod, world, udp(f, world, pod, [4000, 5000]))),
      out('policy', error(f, pod, world, udp(f, world, pod, [4000, 5001]))),
    ],
  ],
  [
    'an ICMP error about a connection that is now denied is dropped',
    (f) => [
      out('pass', tcp(f, pod, server, [4000, 80], SYN)),
      policy(denyAll),
      into('policy', error(f, world, pod, tcp(f, pod, server, [4000, 80]))),
    ],
  ],
  [
    'an ICMP error about a ping passes',
    (f) => [
      out('pass', ping(f, pod, server, 'request')),
      into('pass', error(f, world, pod, ping(f, pod, server, 'request'))),
    ],
  ],
  [
    'fragments follow the first one',
    (f) => [
      into('pass', udp(f, world, pod, [4000, 5000], first(5))),
      into('pass', later(f, world, pod, UDP, 5, { offset: 16, more: true })),
      into('pass', later(f, world, pod, UDP, 5)),
    ],
  ],
  [
    'fragments of a denied datagram are dropped, even where other ports are open',
    (f) => [
      into('policy', udp(f, world, pod, [4000, 53], first(5))),
      into('fragment_unknown', later(f, world, pod, UDP, 5)),
      into('pass', later(f, world, pod, UDP, 6)),
      out('policy', udp(f, pod, world, [4000, 53], first(5))),
      out('fragment_unknown', later(f, pod, world, UDP, 5)),
    ],
  ],
  [
    'a fragment that comes before the first one passes where some port of its protocol is open to the peer',
    (f) => [
      into('pass', later(f, world, pod, UDP, 5)),
      into('pass', udp(f, world, pod, [4000, 5000], first(5))),
      into('pass', later(f, world, pod, UDP, 7)),
      into('policy', udp(f, world, pod, [4000, 53], first(7))),
      into('fragment_unknown', later(f, world, pod, UDP, 7)),
      into('pass', later(f, client, pod, TCP, 8, { offset: 24 })),
      into('fragment_unknown', later(f, server, pod, TCP, 8, { offset: 24 })),
      into('fragment_unknown', later(f, client, pod, icmpOf[f], 8)),
      out('pass', later(f, pod, server, icmpOf[f], 8)),
      out('fragment_unknown', later(f, pod, client, UDP, 8)),
    ],
  ],
  [
    'a fragment that comes before the first one passes from the node, and where nothing is isolated',
    (f) => [
      policy({ isolated: { ingress: true, egress: false }, entries: [] }),
      into('pass', later(f, node, pod, UDP, 5)),
      into('fragment_unknown', later(f, client, pod, UDP, 5)),
      out('pass', later(f, pod, world, UDP, 5)),
    ],
  ],
  [
    'a first fragment that is refused by the parser is remembered as denied',
    (f) => [
      into('truncated', ip(world[f], pod[f], UDP, new Uint8Array(4), first(5))),
      into('fragment_unknown', later(f, world, pod, UDP, 5)),
    ],
  ],
  [
    'replies in fragments belong to their connection',
    (f) => [
      out('pass', udp(f, pod, server, [4000, 53])),
      into('pass', udp(f, server, pod, [53, 4000], first(5))),
      into('pass', later(f, server, pod, UDP, 5)),
    ],
  ],
  [
    'audit lets through what policy would drop, with its replies, and nothing else',
    (f) => [
      policy({ ...standard, audit: true }),
      into('pass', tcp(f, client, pod, [4000, 80], SYN)),
      into('audit', tcp(f, client, pod, [4000, 81], SYN)),
      out('audit', tcp(f, pod, client, [81, 4000], SYNACK)),
      out('audit', ping(f, pod, world, 'request')),
      into('audit', ping(f, world, pod, 'reply')),
      into('audit', ip(server[f], pod[f], 253, new Uint8Array(8))),
      into('audit', udp(f, server, pod, [4000, 53], first(5))),
      into('audit', later(f, server, pod, UDP, 5)),
      into('truncated', ip(client[f], pod[f], TCP, new Uint8Array(4))),
      into('non_ip', ethernet(0x88cc, new Uint8Array(46))),
    ],
  ],
  [
    'the end of audit ends what it let through, and a rule makes it ordinary',
    (f) => [
      policy({ ...standard, audit: true }),
      into('audit', tcp(f, client, pod, [4000, 81], SYN)),
      into('audit', tcp(f, client, pod, [4000, 82], SYN)),
      policy({ ...standard, entries: [...standard.entries, entry('ingress', 300, TCP, 82)] }),
      into('policy', tcp(f, client, pod, [4000, 81])),
      out('policy', tcp(f, pod, client, [81, 4000])),
      into('pass', tcp(f, client, pod, [4000, 82])),
      policy({ ...standard, audit: true }),
      out('audit', tcp(f, pod, client, [82, 4000])),
      into('audit', tcp(f, client, pod, [4000, 81])),
    ],
  ],
  [
    'a fragment of a reply may come before the first one, from whom an allowed connection was made with',
    (f) => [
      into('fragment_unknown', later(f, server, pod, icmpOf[f], 5)),
      out('pass', ping(f, pod, server, 'request')),
      into('pass', later(f, server, pod, icmpOf[f], 5)),
      into('fragment_unknown', later(f, server, pod, SCTP, 5)),
      into('fragment_unknown', later(f, world, pod, icmpOf[f], 5)),
      out('policy', ping(f, pod, world, 'request')),
      into('fragment_unknown', later(f, world, pod, icmpOf[f], 5)),
      into('pass', ping(f, server, pod, 'reply', 9, first(5))),
      into('policy', ping(f, server, pod, 'reply', 10, first(6))),
      into('fragment_unknown', later(f, server, pod, icmpOf[f], 6)),
      // After a change, not before the connection has been judged again.
      policy({ ...standard, entries: [...standard.entries, entry('egress', 0, TCP, 444)] }),
      into('fragment_unknown', later(f, server, pod, icmpOf[f], 7)),
      into('pass', ping(f, server, pod, 'reply')),
      into('pass', later(f, server, pod, icmpOf[f], 7)),
      policy(denyAll),
      into('fragment_unknown', later(f, server, pod, icmpOf[f], 8)),
      into('policy', ping(f, server, pod, 'reply')),
      into('fragment_unknown', later(f, server, pod, icmpOf[f], 8)),
      // The pod answers likewise.
      policy({ isolated: { ingress: true, egress: true }, entries: [entry('ingress', 300)] }),
      out('fragment_unknown', later(f, pod, client, UDP, 9)),
      into('pass', udp(f, client, pod, [4000, 53])),
      out('pass', later(f, pod, client, UDP, 9)),
    ],
  ],
  [
    'fragments are judged again after a change of policy',
    (f) => [
      out('pass', udp(f, pod, server, [4000, 53], { fragment: { offset: 0, more: true, id: 5 } })),
      policy(denyAll),
      out('policy', ip(pod[f], server[f], UDP, new Uint8Array(64), { fragment: { offset: 16, more: false, id: 5 } })),
    ],
  ],
  [
    'a TCP fragment that could rewrite the flags is malformed',
    (f) => [
      out('malformed', ip(pod[f], server[f], TCP, new Uint8Array(64), { fragment: { offset: 8, more: false, id: 5 } })),
    ],
  ],
  [
    'a first fragment without the whole TCP header is truncated',
    (f) => [
      out(
        'truncated',
        ip(pod[f], server[f], TCP, tcpHeader(1, 2, SYN).subarray(0, 16), {
          fragment: { offset: 0, more: true, id: 5 },
        }),
      ),
    ],
  ],
  [
    'headers cut short are truncated',
    (f) => [
      out('truncated', ip(pod[f], server[f], TCP, new Uint8Array(4))),
      out('truncated', ip(pod[f], server[f], UDP, new Uint8Array(7))),
      out('truncated', ip(pod[f], server[f], icmpOf[f], new Uint8Array(3))),
      out('truncated', udp(f, pod, server, [1, 2], { totalLen: 1400 })),
    ],
  ],
  ['the wrong version is malformed', (f) => [out('malformed', udp(f, pod, server, [1, 2], { version: 5 }))]],
  [
    'other Ethernet types are dropped where a direction is isolated',
    () => [
      out('non_ip', ethernet(0x88cc, new Uint8Array(46))),
      into('non_ip', ethernet(0x8100, new Uint8Array(46))),
      policy({ isolated: { ingress: false, egress: true }, entries: [] }),
      into('pass', ethernet(0x88cc, new Uint8Array(46))),
      out('non_ip', ethernet(0x88cc, new Uint8Array(46))),
    ],
  ],
  [
    'ARP passes whatever the policy',
    () => [
      policy(denyAll),
      out('pass', ethernet(0x0806, new Uint8Array(28))),
      into('pass', ethernet(0x0806, new Uint8Array(28))),
    ],
  ],
];

const ipv4Rows: readonly Row[] = [
  [
    'IPv4 header length and total length must make sense',
    () => [
      out('malformed', ip(pod[4], server[4], UDP, udpHeader(1, 2), { ihl: 4 })),
      out('malformed', ip(pod[4], server[4], UDP, udpHeader(1, 2), { totalLen: 12 })),
      out('malformed', ip(pod[4], server[4], UDP, udpHeader(1, 2), { totalLen: 0 })),
    ],
  ],
  [
    'IPv4 options are stepped over',
    () => [
      out('pass', ip(pod[4], world[4], TCP, Buffer.concat([new Uint8Array(8), tcpHeader(1, 443, SYN)]), { ihl: 7 })),
      out('policy', ip(pod[4], world[4], TCP, Buffer.concat([new Uint8Array(8), tcpHeader(1, 444, SYN)]), { ihl: 7 })),
    ],
  ],
  [
    'an IPv4 source route would go elsewhere, wherever it stands among the options; other options do not',
    () => {
      const withOptions = (port: number, ...bytes: number[]): Uint8Array =>
        ip(pod[4], world[4], TCP, Buffer.concat([Uint8Array.from(bytes), tcpHeader(1, port, SYN)]), {
          ihl: 5 + bytes.length / 4,
        });
      const route = [7, 4, 192, 0, 2, 9];
      const recordRoute = [7, 7, 4, 0, 0, 0, 0];
      return [
        out('source_route', withOptions(443, 131, ...route, 0)),
        out('source_route', withOptions(443, 137, ...route, 0)),
        out('source_route', withOptions(443, 1, 131, ...route)),
        out('source_route', withOptions(443, ...recordRoute, 131, ...route, 0, 0)),
        out('source_route', withOptions(443, ...new Array<number>(33).fill(1), 137, ...route)),
        into(
          'source_route',
          ip(client[4], pod[4], TCP, Buffer.concat([Uint8Array.of(131, ...route, 0), tcpHeader(1, 80, SYN)]), {
            ihl: 7,
          }),
        ),
        out('pass', withOptions(443, ...recordRoute, 0)),
        out('pass', withOptions(443, 148, 4, 0, 0)),
        out('policy', withOptions(444, ...recordRoute, 1)),
        out('pass', withOptions(443, 0, 131, 0, 0)),
        out('malformed', withOptions(443, 68, 0, 0, 0)),
        out('malformed', withOptions(443, 68, 1, 0, 0)),
        out('pass', withOptions(443, 68, 12, 5, 0)),
      ];
    },
  ],
  [
    'ICMP redirects and timestamps are judged on their own',
    () => [
      out('pass', tcp(4, pod, server, [4000, 80], SYN)),
      into('policy', ip(world[4], pod[4], 1, icmpHeader(5, 0, 0, tcp(4, pod, server, [4000, 80]).subarray(14)))),
      into('policy', ip(server[4], pod[4], 1, icmpHeader(13, 0, 1))),
    ],
  ],
  [
    'DHCP: a pod may ask and be answered whatever the policy, but not answer',
    () => [
      policy(denyAll),
      out('pass', ip('0.0.0.0', '255.255.255.255', UDP, udpHeader(68, 67))),
      into('pass', ip(server[4], '255.255.255.255', UDP, udpHeader(67, 68))),
      out('policy', ip(pod[4], '255.255.255.255', UDP, udpHeader(68, 67))),
      out('policy', ip('0.0.0.0', world[4], UDP, udpHeader(68, 67))),
      out('policy', ip('0.0.0.0', '255.255.255.255', UDP, udpHeader(67, 68))),
      into('policy', ip('0.0.0.0', '255.255.255.255', UDP, udpHeader(68, 67))),
      into('policy', ip(server[4], pod[4], UDP, udpHeader(67, 68))),
      out('policy', ip('0.0.0.0', '255.255.255.255', UDP, udpHeader(68, 67), first(5))),
    ],
  ],
  [
    'ICMPv6 in IPv4 is a protocol like any other',
    () => [out('policy', ip(pod[4], world[4], 58, icmpHeader(135, 0, 0), { hopLimit: 255 }))],
  ],
];

const options8 = (length = 1): Uint8Array =>
  new Uint8Array(8 * length).fill(0).map((_, i) => (i === 1 ? length - 1 : 0));
const routing = (segmentsLeft: number): Uint8Array => Uint8Array.of(0, 0, 4, segmentsLeft, 0, 0, 0, 0);
const authentication = Uint8Array.of(0, 4, ...new Array<number>(22).fill(0));

const ipv6Rows: readonly Row[] = [
  [
    'extension headers are stepped over',
    () => [
      out(
        'pass',
        tcp(6, pod, world, [1, 443], SYN, {
          extensions: [
            [0, options8()],
            [60, options8(2)],
            [43, routing(0)],
          ],
        }),
      ),
      out(
        'policy',
        tcp(6, pod, world, [1, 444], SYN, {
          extensions: [
            [0, options8()],
            [60, options8(2)],
            [43, routing(0)],
          ],
        }),
      ),
      out('pass', tcp(6, pod, world, [2, 443], SYN, { extensions: [[51, authentication]] })),
      out(
        'pass',
        tcp(6, pod, world, [3, 443], SYN, {
          extensions: [
            [0, options8(32)],
            [135, options8()],
          ],
        }),
      ),
    ],
  ],
  [
    'a fragment after extension headers is followed',
    () => [
      out(
        'pass',
        udp(6, pod, server, [1, 53], { extensions: [[0, options8()]], fragment: { offset: 0, more: true, id: 9 } }),
      ),
      out(
        'pass',
        ip(pod[6], server[6], UDP, new Uint8Array(32), {
          extensions: [[0, options8()]],
          fragment: { offset: 16, more: false, id: 9 },
        }),
      ),
    ],
  ],
  [
    'an atomic fragment is a whole packet',
    () => [
      out('pass', tcp(6, pod, world, [1, 443], SYN, { fragment: { offset: 0, more: false, id: 9 } })),
      out('policy', tcp(6, pod, world, [1, 444], SYN, { fragment: { offset: 0, more: false, id: 9 } })),
    ],
  ],
  [
    'a fragment inside a fragment is judged by what is inside, and is nothing without it',
    () => {
      const inner = (offset: number, more: boolean): IpOptions => ({
        extensions: [[44, fragmentHeader({ offset: 0, more: true, id: 9 })]],
        fragment: { offset, more, id: 10 },
      });
      return [
        out('pass', tcp(6, pod, world, [1, 443], SYN, inner(0, false))),
        out('policy', tcp(6, pod, world, [1, 444], SYN, inner(0, false))),
        out('policy', tcp(6, pod, world, [1, 444], SYN, inner(0, true))),
        out('fragment_unknown', ip(pod[6], world[6], TCP, new Uint8Array(64), inner(80, false))),
        out('truncated', ip(pod[6], world[6], TCP, new Uint8Array(8), inner(0, false))),
        out('malformed', ip(pod[6], world[6], TCP, new Uint8Array(64), inner(8, false))),
      ];
    },
  ],
  [
    'seven extension headers are the limit',
    () => [
      out(
        'pass',
        tcp(6, pod, world, [1, 443], SYN, { extensions: new Array<[number, Uint8Array]>(7).fill([60, options8()]) }),
      ),
      out(
        'extension_headers',
        tcp(6, pod, world, [1, 443], SYN, { extensions: new Array<[number, Uint8Array]>(8).fill([60, options8()]) }),
      ),
    ],
  ],
  [
    'a routing header that has segments left would go elsewhere',
    () => [out('source_route', tcp(6, pod, world, [1, 443], SYN, { extensions: [[43, routing(1)]] }))],
  ],
  ['an extension header cut short is truncated', () => [out('truncated', ip(pod[6], world[6], 60, new Uint8Array(4)))]],
  ['no next header carries nothing to judge', () => [out('malformed', ip(pod[6], server[6], 59, new Uint8Array(8)))]],
  [
    'an unknown next header is a protocol without ports',
    () => [
      out('pass', ip(pod[6], server[6], 253, new Uint8Array(8))),
      out('policy', ip(pod[6], world[6], 253, new Uint8Array(8))),
    ],
  ],
  [
    'neighbour discovery passes whatever the policy',
    () => [
      policy(denyAll),
      ...[133, 134, 135, 136, 137].flatMap((type) => [
        out('pass', ip('fe80::1', 'ff02::1', 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
        into('pass', ip('fe80::2', pod[6], 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
      ]),
    ],
  ],
  [
    'DHCPv6: a pod may ask and be answered on the link whatever the policy, but not answer',
    () => [
      policy(denyAll),
      out('pass', ip('fe80::1', 'ff02::1:2', UDP, udpHeader(546, 547))),
      into('pass', ip('fe80::2', 'fe80::1', UDP, udpHeader(547, 546))),
      out('policy', ip(pod[6], 'ff02::1:2', UDP, udpHeader(546, 547))),
      out('policy', ip('fe80::1', 'ff05::1:2', UDP, udpHeader(546, 547))),
      out('policy', ip('fe80::1', 'ff02::1:3', UDP, udpHeader(546, 547))),
      out('policy', ip('fe80::1', 'fe80::2', UDP, udpHeader(547, 546))),
      into('policy', ip(world[6], 'fe80::1', UDP, udpHeader(547, 546))),
      into('policy', ip('fe80::2', pod[6], UDP, udpHeader(547, 546))),
    ],
  ],
  [
    'what only looks like neighbour discovery does not',
    () => [
      policy(denyAll),
      out('policy', ip(pod[6], world[6], 58, icmpHeader(135, 0, 0), { hopLimit: 64 })),
      out('policy', ip(pod[6], world[6], 58, icmpHeader(135, 1, 0), { hopLimit: 255 })),
      out('policy', ip(pod[6], world[6], 58, icmpHeader(138, 0, 0), { hopLimit: 255 })),
    ],
  ],
  [
    'neighbour discovery reaches the link and no further: other addresses must have been heard of there',
    () => [
      policy(denyAll),
      ...[135, 136].flatMap((type) => [
        out('policy', ip(pod[6], world[6], 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
        out('policy', ip(pod[6], 'ff05::1', 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
        out('policy', ip(pod[6], 'ff0e::1', 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
        out('pass', ip(pod[6], 'fe80::2', 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
        out('pass', ip(pod[6], 'ff02::1:ff00:20', 58, icmpHeader(type, 0, 0), { hopLimit: 255 })),
      ]),
      out('policy', ip(pod[6], client[6], 58, icmpHeader(136, 0, 0), { hopLimit: 255 })),
      into('policy', ip(client[6], pod[6], 58, icmpHeader(135, 0, 0), { hopLimit: 254 })),
      out('policy', ip(pod[6], client[6], 58, icmpHeader(136, 0, 0), { hopLimit: 255 })),
      into('pass', ip(client[6], pod[6], 58, icmpHeader(135, 0, 0), { hopLimit: 255 })),
      out('pass', ip(pod[6], client[6], 58, icmpHeader(136, 0, 0), { hopLimit: 255 })),
      out('pass', ip(pod[6], client[6], 58, icmpHeader(135, 0, 0), { hopLimit: 255 })),
      out('policy', ip(pod[6], server[6], 58, icmpHeader(135, 0, 0), { hopLimit: 255 })),
      // It says nothing about anything else.
      out('policy', udp(6, pod, client, [4000, 53])),
      into('fragment_unknown', later(6, client, pod, icmpOf[6], 5)),
    ],
  ],
  [
    'listener reports reach the link and no further',
    () => [
      policy(denyAll),
      out('pass', ip('fe80::1', 'ff02::16', 58, icmpHeader(143, 0, 0), { hopLimit: 1, extensions: [[0, options8()]] })),
      out('policy', ip('fe80::1', world[6], 58, icmpHeader(143, 0, 0), { hopLimit: 1 })),
      out('policy', ip('fe80::1', 'ff05::16', 58, icmpHeader(143, 0, 0), { hopLimit: 1 })),
    ],
  ],
  [
    '::/0 in the ipcache says nothing about IPv4',
    () => [
      { change: (datapath) => datapath.updateIpcache({ upsert: [[mustPrefix('::/0'), 300]], remove: [] }) },
      into('pass', tcp(6, world, pod, [1, 80], SYN)),
      into('policy', tcp(4, world, pod, [1, 80], SYN)),
      { change: (datapath) => datapath.updateIpcache({ upsert: [], remove: [mustPrefix('::/0')] }) },
      into('policy', tcp(6, world, pod, [1, 80], SYN)),
    ],
  ],
];

const reason = whyNoKernelTests();

describe('verdicts, by the kernel', { skip: reason ?? false }, () => {
  let bpffs: TestBpffs;
  let maps: DatapathMaps;
  let datapath: Datapath;
  let programs: Collection;

  before(() => {
    bpffs = new TestBpffs();
    const object = readEndpointObject();
    datapath = Datapath.open({ bpffsDir: bpffs.path });
    maps = DatapathMaps.open(bpffs.path, object.spec, {});
    programs = loadEndpointPrograms(object, maps.byName, endpointId);
    datapath.updateIpcache({
      upsert: ([4, 6] as const).flatMap((f) => {
        const bits = f === 4 ? 32 : 128;
        return [
          [mustPrefix(`${node[f]}/${bits}`), 1] as const,
          [mustPrefix(`${client[f]}/${bits}`), 300] as const,
          [mustPrefix(`${server[f]}/${bits}`), 301] as const,
        ];
      }),
      remove: [],
    });
  });

  after(() => {
    programs.close();
    maps.close();
    datapath.close();
    bpffs[Symbol.dispose]();
  });

  beforeEach(() => {
    for (const map of [maps.byName.conntrack, maps.byName.fragments, maps.byName.correspondents, maps.byName.metrics])
      map.deleteBatch([...map.keys()]);
    datapath.detachEndpoint(endpointId);
    datapath.register(endpointId);
    datapath.setPolicy(endpointId, standard);
  });

  function run(hook: Direction, frame: Uint8Array): Verdict | 'inconsistent' {
    const program: BpfProgram = programs.program(programNames[hook]);
    const before = counted();
    const { returnValue } = program.testRun(frame);
    const news = [...counted()].filter(([key, packets]) => packets !== before.get(key));
    assert.equal(news.length, 1, 'each packet is counted once');
    const [direction, why] = news[0]?.[0].split(' ') ?? [];
    assert.equal(direction, hook);
    if (why === 'forwarded') return returnValue === -1 ? 'pass' : 'inconsistent';
    if (why === 'audit') return returnValue === -1 ? 'audit' : 'inconsistent';
    return returnValue === 2 ? (why as Verdict) : 'inconsistent';
  }

  function counted(): Map<string, bigint> {
    const counters = readCounters(maps.byName, [endpointId]);
    return new Map(counters.map((counter) => [`${counter.direction} ${counter.reason}`, counter.packets]));
  }

  function check(steps: readonly Step[]): void {
    for (const [i, step] of steps.entries()) {
      if ('change' in step) step.change(datapath, maps);
      else assert.equal(run(step.hook, step.frame), step.verdict, `packet ${i + 1} (${step.hook})`);
    }
  }

  for (const family of [4, 6] as const) {
    describe(`IPv${family}`, () => {
      for (const [sentence, steps] of rows) it(sentence, () => check(steps(family)));
      for (const [sentence, steps] of family === 4 ? ipv4Rows : ipv6Rows) it(sentence, () => check(steps(family)));
    });
  }

  it('an endpoint without an entry drops everything but ARP and neighbour discovery', () => {
    datapath.detachEndpoint(endpointId);
    check([
      out('no_endpoint', tcp(4, pod, server, [1, 2], SYN)),
      into('no_endpoint', tcp(6, node, pod, [1, 2], SYN)),
      out('pass', ethernet(0x0806, new Uint8Array(28))),
      out('pass', ip('fe80::1', 'ff02::1', 58, icmpHeader(135, 0, 0), { hopLimit: 255 })),
    ]);
  });

  it('an endpoint that is not programmed drops, the node included', () => {
    datapath.detachEndpoint(endpointId);
    datapath.register(endpointId);
    check([
      out('not_programmed', tcp(4, pod, server, [1, 2], SYN)),
      into('not_programmed', tcp(4, node, pod, [1, 2], SYN)),
      out('not_programmed', ethernet(0x88cc, new Uint8Array(46))),
    ]);
  });

  it('quoted packets may be cut after eight bytes of transport', () => {
    check([
      out('pass', tcp(4, pod, server, [4000, 80], SYN)),
      into(
        'pass',
        ip(
          world[4],
          pod[4],
          1,
          icmpHeader(3, 1, 0, ipv4(pod[4], server[4], TCP, tcpHeader(4000, 80, SYN).subarray(0, 8))),
        ),
      ),
      into(
        'policy',
        ip(
          world[4],
          pod[4],
          1,
          icmpHeader(3, 1, 0, ipv4(pod[4], server[4], TCP, tcpHeader(4000, 80, SYN).subarray(0, 4))),
        ),
      ),
      out('pass', tcp(6, pod, server, [4000, 80], SYN)),
      into(
        'pass',
        ip(
          world[6],
          pod[6],
          58,
          icmpHeader(2, 0, 0, ipv6(pod[6], server[6], TCP, tcpHeader(4000, 80, SYN).subarray(0, 8))),
        ),
      ),
    ]);
  });
});
