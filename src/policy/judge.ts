/** Verdicts on one port or on all of them, from entries: the questions that tools ask of what the compiler made. */

import type { ExplainVerdict } from '../api/agent-api.ts';
import type { EndpointPolicy } from './compile.ts';
import { anyIdentity, hostIdentity, type IdentityId } from './identity.ts';
import type { Direction } from './node.ts';
import { PortSet, protocolName } from './port-set.ts';
import { noRule } from './rule-id.ts';
import { simulate } from './simulate.ts';

export interface PortQuery {
  /** IP protocol number, not 0. */
  readonly protocol: number;
  /** 0 for protocols without ports. */
  readonly port: number;
}

export interface Judgement {
  readonly verdict: ExplainVerdict;
  /** Of the entry that decided; 0 when none did, or when several share in the answer. */
  readonly ruleId: number;
  readonly allowed: PortSet;
}

type Entries = Pick<EndpointPolicy, 'isolated' | 'entries'>;

/** Some protocol that no rule can name: only an entry for every protocol lets it through. */
const unnamedProtocol = 253;

/** What passes between the endpoint and an identity; `query` absent asks for every port. */
export function judge(
  policy: Entries,
  direction: Direction,
  identity: IdentityId,
  query: PortQuery | undefined,
): Judgement {
  const asked = query === undefined ? PortSet.all : portSetOf(query);
  const allowed = allowedPorts(policy, direction, identity).intersect(asked);
  const { ruleId } = simulate(policy, { direction, identity, ...(query ?? { protocol: unnamedProtocol, port: 0 }) });
  if (allowed.isEmpty) return { verdict: 'deny', ruleId: noRule, allowed };
  return allowed.covers(asked) ? { verdict: 'allow', ruleId, allowed } : { verdict: 'partly', ruleId: noRule, allowed };
}

/** The ports that the entries let through. */
export function allowedPorts(policy: Entries, direction: Direction, identity: IdentityId): PortSet {
  if (!policy.isolated[direction]) return PortSet.all;
  if (direction === 'ingress' && identity === hostIdentity) return PortSet.all;
  const own = policy.entries.filter(
    (entry) => entry.direction === direction && (entry.identity === identity || entry.identity === anyIdentity),
  );
  return PortSet.union(own.map((entry) => PortSet.ofMatch(entry)));
}

export function portSetOf({ protocol, port }: PortQuery): PortSet {
  return PortSet.range(protocol, port, port);
}

/** "80/tcp", "53/udp", "80" (tcp), "icmp", "icmpv6". Undefined when it is none of these. */
export function parsePortQuery(text: string): PortQuery | undefined {
  if (text === 'icmp') return { protocol: 1, port: 0 };
  if (text === 'icmpv6') return { protocol: 58, port: 0 };
  const match = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/i.exec(text);
  const port = Number(match?.[1]);
  if (match === null || port < 1 || port > 65_535) return undefined;
  const protocol = { tcp: 6, udp: 17, sctp: 132 }[(match[2] ?? 'tcp').toLowerCase()];
  return protocol === undefined ? undefined : { protocol, port };
}

export function formatPortQuery({ protocol, port }: PortQuery): string {
  return port === 0 ? protocolName(protocol) : `${port}/${protocolName(protocol)}`;
}
