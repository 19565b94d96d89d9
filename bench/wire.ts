/**
 * Bytes as the wire saw them, counted where they arrive: by IP's own counters of a network namespace, which no limiter touches.
 * IP counts the bytes of what it is handed, which may be many segments merged into one, and the segments themselves:
 *
 *   frames = InNoECTPkts + InECT1Pkts + InECT0Pkts + InCEPkts        (include/net/ip.h: by gso_segs)
 *   bytes  = InOctets + frames × 14 + (frames − InReceives) × 52     (Ethernet; the merged segments' headers: IPv4 20, TCP 32)
 */
import { readFileSync } from 'node:fs';
import { withNetns, type Netns } from '../src/kernel/index.ts';

const ethernetHeaderBytes = 14;
const mergedHeaderBytes = 52;

export interface WireCount {
  readonly bytes: number;
  readonly frames: number;
}

export function readWire(netns: Netns): WireCount {
  const [snmp, netstat] = withNetns(netns, () =>
    ['snmp', 'netstat'].map((name) => readFileSync(`/proc/thread-self/net/${name}`, 'utf8')),
  );
  return wireCount(countersOf(snmp ?? '', 'Ip'), countersOf(netstat ?? '', 'IpExt'));
}

export function wireCount(ip: ReadonlyMap<string, number>, ipExt: ReadonlyMap<string, number>): WireCount {
  const ext = (name: string): number => ipExt.get(name) ?? 0;
  const frames = ext('InNoECTPkts') + ext('InECT1Pkts') + ext('InECT0Pkts') + ext('InCEPkts');
  const merged = frames - (ip.get('InReceives') ?? 0);
  return { frames, bytes: ext('InOctets') + frames * ethernetHeaderBytes + merged * mergedHeaderBytes };
}

/** Two lines that begin with the group's name: names, then values. */
export function countersOf(text: string, group: string): ReadonlyMap<string, number> {
  const [names = [], values = []] = text
    .split('\n')
    .filter((line) => line.startsWith(`${group}: `))
    .map((line) => line.split(' ').slice(1));
  return new Map(names.map((name, i) => [name, Number(values[i])]));
}
