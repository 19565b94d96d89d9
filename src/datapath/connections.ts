/** The connections that the kernel remembers, for people and tools; the programs never ask user space. */
import type { IpAddress, IpFamily } from '../core/ip.ts';
import type { BpfMap } from '../kernel/index.ts';
import {
  conntrackEntry,
  conntrackFlag,
  conntrackKey,
  decodeAddress,
  type ConntrackEntry,
  type Direction,
  directions,
} from './abi.ts';

export interface Connection {
  readonly endpointId: number;
  /** Of the packet that opened it. */
  readonly direction: Direction;
  /** The endpoint's side. */
  readonly local: IpAddress;
  readonly remote: IpAddress;
  readonly localPort: number;
  readonly remotePort: number;
  /** IP protocol number. */
  readonly protocol: number;
  /** That allowed it; 0 when the direction was not isolated. */
  readonly ruleId: number;
}

/**
 * Seconds, as in bpf/conntrack.h (a test compares them): what is older is in the map only because nobody needed its place. A
 * closed TCP connection, which the programs remember for some seconds, is none any more.
 */
export const connectionLifetimesS = {
  tcpEstablished: 21_600,
  tcpOpening: 60,
  tcpHalfClosed: 120,
  udpReplied: 120,
  udpUnreplied: 30,
  sctp: 900,
  icmp: 30,
  other: 600,
};

/** At most `max` connections that are alive at `nowNs` (CLOCK_MONOTONIC), in the map's order. */
export function readConnections(conntrack: BpfMap, max: number, nowNs: bigint): Connection[] {
  const connections: Connection[] = [];
  for (const [keyBytes, valueBytes] of conntrack.entries()) {
    const key = conntrackKey.decode(keyBytes);
    const entry = conntrackEntry.decode(valueBytes);
    if (!isAlive(entry, key.protocol, nowNs)) continue;
    const family = key.family as IpFamily;
    connections.push({
      endpointId: key.endpointId,
      direction: directions[entry.direction] ?? 'ingress',
      local: decodeAddress(key.localAddress, family),
      remote: decodeAddress(key.remoteAddress, family),
      localPort: key.localPort,
      remotePort: key.remotePort,
      protocol: key.protocol,
      ruleId: entry.ruleId,
    });
    if (connections.length >= max) break;
  }
  return connections;
}

/**
 * Counts the connections that are alive at `nowNs`, in steps of a system call each: `count` is told what each of them found.
 * What nobody needed the place of is not alive, and no sign of a full map.
 */
export function* countConnections(conntrack: BpfMap, nowNs: bigint, count: (alive: number) => void): Generator<void> {
  for (const { count: entries, keys, values } of conntrack.batches()) {
    let alive = 0;
    for (let i = 0; i < entries; i++) {
      const entry = conntrackEntry.decode(values.subarray(i * conntrackEntry.size, (i + 1) * conntrackEntry.size));
      const protocol = keys[i * conntrackKey.size + conntrackKey.fields.protocol[2]] ?? 0;
      if (isAlive(entry, protocol, nowNs)) alive++;
    }
    count(alive);
    yield;
  }
}

function isAlive(entry: ConntrackEntry, protocol: number, nowNs: bigint): boolean {
  return nowNs - entry.lastSeenNs < BigInt(lifetimeOf(entry, protocol)) * 1_000_000_000n;
}

function lifetimeOf({ flags }: ConntrackEntry, protocol: number): number {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  switch (protocol) {
    case 6:
      if (has(conntrackFlag.rst) || (has(conntrackFlag.finOriginal) && has(conntrackFlag.finReply))) return 0;
      if (has(conntrackFlag.finOriginal) || has(conntrackFlag.finReply)) return connectionLifetimesS.tcpHalfClosed;
      return has(conntrackFlag.replied) ? connectionLifetimesS.tcpEstablished : connectionLifetimesS.tcpOpening;
    case 17:
      return has(conntrackFlag.replied) ? connectionLifetimesS.udpReplied : connectionLifetimesS.udpUnreplied;
    case 132:
      return connectionLifetimesS.sctp;
    case 1:
    case 58:
      return connectionLifetimesS.icmp;
    default:
      return connectionLifetimesS.other;
  }
}
