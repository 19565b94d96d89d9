/** What the datapath does with compiled entries, in TypeScript: the same look-ups as bpf/policy.h and bpf/ipcache.h. */

import { makePrefix, bitsOf, formatPrefix, type IpAddress } from '../core/ip.ts';
import type { EndpointPolicy, PolicyEntry } from './compile.ts';
import { anyIdentity, hostIdentity, worldIdentity, type IdentityId } from './identity.ts';
import type { Direction } from './node.ts';
import { hostRule, noRule } from './rule-id.ts';

export interface SimulatedFlow {
  readonly direction: Direction;
  readonly identity: IdentityId;
  /** IP protocol number, not 0. */
  readonly protocol: number;
  /** Destination port; 0 for protocols without ports. */
  readonly port: number;
}

export interface SimulatedVerdict {
  readonly verdict: 'allow' | 'deny';
  readonly ruleId: number;
}

export function simulate(policy: Pick<EndpointPolicy, 'isolated' | 'entries'>, flow: SimulatedFlow): SimulatedVerdict {
  if (!policy.isolated[flow.direction]) return { verdict: 'allow', ruleId: noRule };
  if (flow.direction === 'ingress' && flow.identity === hostIdentity) return { verdict: 'allow', ruleId: hostRule };
  const exact = longestMatch(policy.entries, flow, flow.identity);
  const any = longestMatch(policy.entries, flow, anyIdentity);
  const entry = any !== undefined && (exact === undefined || matchLength(any) > matchLength(exact)) ? any : exact;
  return entry === undefined ? { verdict: 'deny', ruleId: noRule } : { verdict: 'allow', ruleId: entry.ruleId };
}

/** The identity of the longest prefix around the address, as an LPM trie finds it. */
export function lookupIdentity(ipcache: ReadonlyMap<string, IdentityId>, ip: IpAddress): IdentityId {
  for (let length = bitsOf(ip.family); length >= 0; length--) {
    const identity = ipcache.get(formatPrefix(makePrefix(ip, length)));
    if (identity !== undefined) return identity;
  }
  return worldIdentity;
}

function longestMatch(
  entries: readonly PolicyEntry[],
  flow: SimulatedFlow,
  identity: IdentityId,
): PolicyEntry | undefined {
  let best: PolicyEntry | undefined;
  for (const entry of entries) {
    if (entry.direction !== flow.direction || entry.identity !== identity || !matches(entry, flow)) continue;
    if (best === undefined || matchLength(entry) > matchLength(best)) best = entry;
  }
  return best;
}

function matches(entry: PolicyEntry, flow: SimulatedFlow): boolean {
  if (entry.protocol === 0) return true;
  const openBits = 16 - entry.portPrefixLen;
  return entry.protocol === flow.protocol && entry.port >>> openBits === flow.port >>> openBits;
}

/** Bits of (protocol, port) that the entry fixes. */
function matchLength(entry: PolicyEntry): number {
  return entry.protocol === 0 ? 0 : 8 + entry.portPrefixLen;
}
