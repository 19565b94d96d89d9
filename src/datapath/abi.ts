/**
 * The TypeScript side of bpf/abi.h: every key, value and number that crosses the border to the kernel programs.
 * abi.test.ts compares all of it with the BTF of the committed object. The reasons for the layouts are in abi.h.
 */
import type { IpAddress, IpFamily } from '../core/ip.ts';
import { ipFromBytes, ipToBytes } from '../core/ip.ts';
import type { StructValue } from './struct.ts';
import { defineStruct } from './struct.ts';

export const ABI_VERSION = 3;

/**
 * Maps of connections, and the version since which they have been as they are. An upgrade within that goes on with them, so that
 * connections are judged as they were opened. To be raised with a change of their layout or meaning.
 */
export const unchangedSince = { conntrack: 1, fragments: 2, correspondents: 3 } as const;

export type Direction = 'ingress' | 'egress';

/** enum direction: the index is the number. */
export const directions = ['ingress', 'egress'] as const satisfies readonly Direction[];

/** enum reason: the index is the number. docs/reference/drop-reasons.md has the same list. */
export const reasons = [
  'forwarded',
  'no_endpoint',
  'not_programmed',
  'policy',
  'non_ip',
  'truncated',
  'malformed',
  'extension_headers',
  'source_route',
  'fragment_unknown',
  'conntrack_full',
  'audit',
] as const;

export type Reason = (typeof reasons)[number];
/** `audit` would have been `policy`, but was let through. */
export type DropReason = Exclude<Reason, 'forwarded' | 'audit'>;

/** enum reserved_identity. */
export const reservedIdentity = { any: 0, host: 1, world: 2 } as const;

/** enum reserved_rule: nothing allowed it; Kubernetes lets the node reach its pods. */
export const reservedRule = { none: 0, host: 1 } as const;

export const ACTION_ALLOW = 1;

/** enum endpoint_flag. */
export const endpointFlag = {
  programmed: 1,
  isolatedIngress: 2,
  isolatedEgress: 4,
  audit: 8,
  present: 16,
  nodeMarked: 32,
} as const;

/** The other bits of the flags: the index of the interface whose other end is the node's. */
export const ENDPOINT_NODE_IFINDEX_SHIFT = 8;

/** skb->tc_index of what the node itself sends to a pod. */
export const NODE_TC_INDEX = 0x51ce;

/** enum conntrack_flag. */
export const conntrackFlag = { replied: 1, finOriginal: 2, finReply: 4, rst: 8, audited: 16, fromNode: 32 } as const;

/** enum event_kind: the index is the number. */
export const eventKinds = ['drop', 'audit', 'allow'] as const;
export type EventKind = (typeof eventKinds)[number];

/** enum config_flag. */
export const configFlag = { eventAllow: 1 } as const;

/** Added to the direction of a policy key: some port of the protocol is open. For fragments without ports. */
export const POLICY_ANY_PORT = 2;

/** The bits of a policy key that always match exactly, and of an ipcache key before the address. */
export const POLICY_EXACT_BITS = 72;
export const IPCACHE_EXACT_BITS = 32;

export const endpointIdKey = defineStruct('', 4, { endpointId: ['', 'u32', 0] });

export const endpointStruct = defineStruct('endpoint', 8, {
  policyId: ['policy_id', 'u32', 0],
  flags: ['flags', 'u32', 4],
});

export const policyKey = defineStruct('policy_key', 16, {
  prefixLen: ['prefix_len', 'u32', 0],
  policyId: ['policy_id', 'u32', 4],
  identity: ['identity', 'u32', 8],
  direction: ['direction', 'u8', 12],
  protocol: ['protocol', 'u8', 13],
  port: ['port', 'be16', 14],
});

export const policyValue = defineStruct('policy_value', 8, {
  ruleId: ['rule_id', 'u32', 0],
  action: ['action', 'u8', 4],
  prefixLen: ['prefix_len', 'u8', 5],
});

export const ipcacheKey = defineStruct('ipcache_key', 24, {
  prefixLen: ['prefix_len', 'u32', 0],
  family: ['family', 'u8', 4],
  address: ['address', 'address', 8],
});

export const ipcacheValue = defineStruct('ipcache_value', 4, { identity: ['identity', 'u32', 0] });

export const conntrackKey = defineStruct('conntrack_key', 44, {
  endpointId: ['endpoint_id', 'u32', 0],
  localAddress: ['local_address', 'address', 4],
  remoteAddress: ['remote_address', 'address', 20],
  localPort: ['local_port', 'be16', 36],
  remotePort: ['remote_port', 'be16', 38],
  family: ['family', 'u8', 40],
  protocol: ['protocol', 'u8', 41],
});

export const conntrackEntry = defineStruct('conntrack_entry', 24, {
  lastSeenNs: ['last_seen_ns', 'u64', 0],
  revision: ['revision', 'u32', 8],
  ruleId: ['rule_id', 'u32', 12],
  identity: ['identity', 'u32', 16],
  direction: ['direction', 'u8', 20],
  flags: ['flags', 'u8', 21],
});

export const fragmentKey = defineStruct('fragment_key', 44, {
  endpointId: ['endpoint_id', 'u32', 0],
  source: ['source', 'address', 4],
  destination: ['destination', 'address', 20],
  id: ['id', 'be32', 36],
  family: ['family', 'u8', 40],
  protocol: ['protocol', 'u8', 41],
  direction: ['direction', 'u8', 42],
});

export const fragmentValue = defineStruct('fragment_value', 16, {
  sourcePort: ['source_port', 'be16', 0],
  destinationPort: ['destination_port', 'be16', 2],
  kind: ['kind', 'u8', 4],
  protocol: ['protocol', 'u8', 5],
  denied: ['denied', 'u8', 6],
  seenNs: ['seen_ns', 'u64', 8],
});

export const correspondentKey = defineStruct('correspondent_key', 24, {
  endpointId: ['endpoint_id', 'u32', 0],
  address: ['address', 'address', 4],
  family: ['family', 'u8', 20],
  protocol: ['protocol', 'u8', 21],
  direction: ['direction', 'u8', 22],
});

export const correspondent = defineStruct('correspondent', 16, {
  seenNs: ['seen_ns', 'u64', 0],
  revision: ['revision', 'u32', 8],
});

export const eventStruct = defineStruct('event', 72, {
  timeNs: ['time_ns', 'u64', 0],
  endpointId: ['endpoint_id', 'u32', 8],
  ruleId: ['rule_id', 'u32', 12],
  identity: ['identity', 'u32', 16],
  length: ['length', 'u32', 20],
  source: ['source', 'address', 24],
  destination: ['destination', 'address', 40],
  sourcePort: ['source_port', 'be16', 56],
  destinationPort: ['destination_port', 'be16', 58],
  family: ['family', 'u8', 60],
  protocol: ['protocol', 'u8', 61],
  direction: ['direction', 'u8', 62],
  kind: ['kind', 'u8', 63],
  reason: ['reason', 'u8', 64],
});

export const eventBudgetKey = defineStruct('event_budget_key', 8, {
  endpointId: ['endpoint_id', 'u32', 0],
  kind: ['kind', 'u32', 4],
});

export const eventBudget = defineStruct('event_budget', 8, {
  window: ['window', 'u32', 0],
  written: ['written', 'u32', 4],
});

export const eventLosses = defineStruct('event_losses', 16, {
  overBudget: ['over_budget', 'u64', 0],
  bufferFull: ['buffer_full', 'u64', 8],
});

export const ruleCounterKey = defineStruct('rule_counter_key', 12, {
  endpointId: ['endpoint_id', 'u32', 0],
  ruleId: ['rule_id', 'u32', 4],
  direction: ['direction', 'u32', 8],
});

export const ruleCounter = defineStruct('rule_counter', 8, { decisions: ['decisions', 'u64', 0] });

export const metricsKey = defineStruct('metrics_key', 8, {
  endpointId: ['endpoint_id', 'u32', 0],
  reason: ['reason', 'u16', 4],
  direction: ['direction', 'u8', 6],
});

export const metricsValue = defineStruct('metrics_value', 16, {
  packets: ['packets', 'u64', 0],
  bytes: ['bytes', 'u64', 8],
});

/** The part of `config` that is the same in every version. */
export const configPrefix = defineStruct('config', 12, {
  epoch: ['epoch', 'u32', 0],
  abiVersion: ['abi_version', 'u32', 4],
  lastPolicyId: ['last_policy_id', 'u32', 8],
});

export const configStruct = defineStruct('config', 16, {
  epoch: ['epoch', 'u32', 0],
  abiVersion: ['abi_version', 'u32', 4],
  lastPolicyId: ['last_policy_id', 'u32', 8],
  flags: ['flags', 'u32', 12],
});

/** For the test that compares them with the object's BTF. */
export const structs = [
  endpointStruct,
  policyKey,
  policyValue,
  ipcacheKey,
  ipcacheValue,
  conntrackKey,
  conntrackEntry,
  fragmentKey,
  fragmentValue,
  correspondentKey,
  correspondent,
  eventStruct,
  eventBudgetKey,
  eventBudget,
  eventLosses,
  ruleCounterKey,
  ruleCounter,
  metricsKey,
  metricsValue,
  configStruct,
] as const;

export type ConntrackKey = StructValue<(typeof conntrackKey)['fields']>;
export type ConntrackEntry = StructValue<(typeof conntrackEntry)['fields']>;

/** struct address: IPv4 in the first word. */
export function encodeAddress(address: IpAddress): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(ipToBytes(address));
  return bytes;
}

export function decodeAddress(bytes: Uint8Array, family: IpFamily): IpAddress {
  return ipFromBytes(bytes.subarray(0, family === 4 ? 4 : 16));
}
