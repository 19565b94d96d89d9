/**
 * What the node agent tells over its unix socket (HTTP, JSON): docs/reference/agent-api.md. The CLI and the web page are
 * clients of exactly this. Addresses are texts, times RFC 3339, directions as policy means them.
 */

import type { NetworkPolicy } from './kubernetes.ts';

export type PolicyDirection = 'ingress' | 'egress';

/**
 * When pods are isolated, as Cilium's enable-policy has it: `default` when a policy selects them, `always` both directions
 * of every pod even without a policy, `never` none.
 */
export const enforcementModes = ['default', 'always', 'never'] as const;
export type EnforcementMode = (typeof enforcementModes)[number];

/** Who asked for a bandwidth limit; docs/guides/bandwidth.md says who wins. */
export const bandwidthSources = ['pod-annotation', 'network-selection', 'runtime', 'namespace-annotation'] as const;
export type BandwidthSource = (typeof bandwidthSources)[number];

/** On a Namespace: "true" lets through what policy would drop in it, and reports it. */
export const policyAuditAnnotation = 'sluice.io/policy-audit';

export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/** The rule that decided about a packet. */
export type RuleName =
  /** No rule: nothing isolates the direction, or nothing in it allows the packet. */
  | { readonly kind: 'none' }
  /** Kubernetes itself: a node always reaches its own pods. */
  | { readonly kind: 'host' }
  | {
      readonly kind: 'policy';
      readonly namespace: string;
      readonly policy: string;
      readonly direction: PolicyDirection;
      /** In `spec.ingress` or `spec.egress`. */
      readonly index: number;
      /** The policy, or this rule of it, does not exist any more. */
      readonly gone?: true;
    }
  /** A number of which this agent knows no rule. */
  | { readonly kind: 'unknown'; readonly id: number };

/** Who has an address. */
export interface Party {
  /** `world` is no pod and no node. */
  readonly kind: 'pod' | 'node' | 'world';
  readonly address: string;
  /** Pods only. */
  readonly namespace?: string;
  /** Of the pod or node. */
  readonly name?: string;
}

export interface ApiError {
  /** A code of docs/reference/errors.md. */
  readonly code: string;
  readonly message: string;
  readonly remedy?: string;
}

/** GET /v1/node */
export interface NodeInfo {
  readonly node: string;
  readonly policyEnforcement: EnforcementMode;
  /** Whether every list that policy depends on has arrived; answers about policy are refused before. */
  readonly synced: boolean;
  /** Why the kernel may lag behind the API objects. */
  readonly problems: readonly string[];
}

/** An element of GET /v1/endpoints. */
export interface EndpointSummary {
  readonly node: string;
  readonly endpointId: number;
  readonly pod: ObjectName & { readonly uid: string };
  readonly interface: string;
  readonly addresses: readonly string[];
  /** False: the kernel has no policy for it yet and drops everything, unless there is `takeover`. */
  readonly programmed: boolean;
  /** The programs of the agent before, over other maps, enforce the policy that they know; and what that waits for. */
  readonly takeover?: string;
  readonly policyEnforcement: EnforcementMode;
  /** Whether what no rule allows is dropped. */
  readonly isolated: { readonly ingress: boolean; readonly egress: boolean };
  /** Would-be drops pass and are reported. */
  readonly audit: boolean;
  /** Grows with every change of the policy in the kernel. */
  readonly revision: number;
  /** NetworkPolicies that select the pod, by name. */
  readonly policies: readonly string[];
}

export interface PacketCounter {
  readonly direction: PolicyDirection;
  /** "forwarded", "audit", or why dropped: docs/reference/drop-reasons.md. */
  readonly reason: string;
  readonly packets: number;
  readonly bytes: number;
}

export interface RuleCounter {
  readonly direction: PolicyDirection;
  readonly rule: RuleName;
  /** How often the rule decided about a connection, not how many packets passed. */
  readonly decisions: number;
}

/** GET /v1/endpoints/NAMESPACE/POD: one element for each interface. */
export interface EndpointDetail extends EndpointSummary {
  readonly containerId: string;
  readonly netns: string;
  /** Interfaces with hooks. */
  readonly interfaces: readonly string[];
  readonly network: string;
  readonly createdAt: string;
  readonly counters: readonly PacketCounter[];
  readonly rules: readonly RuleCounter[];
  /** Of this interface; empty: not limited. */
  readonly bandwidth: readonly BandwidthInfo[];
}

/** What an entry lets through, as the kernel holds it. */
export interface KernelEntry {
  readonly direction: PolicyDirection;
  readonly identity: number;
  /** Whom the identity means; "anyone" for 0. */
  readonly peer: string;
  /** IP protocol number; 0 is any. */
  readonly protocol: number;
  readonly port: number;
  readonly portPrefixLen: number;
  /** "8000-8015/tcp", "every port". */
  readonly ports: string;
  readonly ruleId: number;
  readonly rule: RuleName;
}

/** A rule in force, in words. */
export interface RuleInForce {
  readonly rule: RuleName;
  readonly direction: PolicyDirection;
  readonly peers: string;
  readonly ports: string;
}

/** GET /v1/endpoints/NAMESPACE/POD/policy: one element for each interface. */
export interface EndpointPolicyInfo extends EndpointSummary {
  readonly isolatedBy: { readonly ingress: readonly string[]; readonly egress: readonly string[] };
  readonly rules: readonly RuleInForce[];
  readonly entries: readonly KernelEntry[];
  readonly diagnostics: readonly string[];
}

export type ExplainVerdict = 'allow' | 'deny' | 'partly';

export type ExplainReason =
  | 'rule'
  /** No policy isolates the direction. */
  | 'not_isolated'
  | 'no_rule'
  | 'own_node'
  /** A pod to itself: never policed. */
  | 'self'
  /** Not a pod, or one that policy does not cover: nothing is enforced on this side. */
  | 'not_policed';

export interface RuleExplanation {
  readonly namespace: string;
  readonly policy: string;
  readonly index: number;
  readonly matches: boolean;
  /** What of it the flow meets, or why it does not match. */
  readonly ports: string;
  readonly reasons: readonly string[];
}

export interface DirectionExplanation {
  readonly direction: PolicyDirection;
  readonly verdict: ExplainVerdict;
  readonly reason: ExplainReason;
  readonly rule: RuleName;
  /** The namespace is in audit mode: a packet that is denied here passes all the same, and is reported. */
  readonly audit: boolean;
  /** When no port was asked for and not all or nothing is allowed. */
  readonly allowedPorts?: string;
  /** Names of the policies that isolate the direction; "(--policy-enforcement always)" stands for the mode. */
  readonly isolatedBy: readonly string[];
  readonly rules: readonly RuleExplanation[];
  /** One sentence. */
  readonly summary: string;
  /** What the kernel's entries say, from the agent that enforces this side; absent elsewhere. */
  readonly kernel?: {
    readonly node: string;
    readonly verdict: ExplainVerdict;
    readonly rule: RuleName;
    /** False for a moment after a change; for longer, the agent cannot write what it should. */
    readonly agrees: boolean;
  };
}

/** One pair of addresses. */
export interface PathExplanation {
  readonly from: Party;
  readonly to: Party;
  readonly verdict: ExplainVerdict;
  readonly egress: DirectionExplanation;
  readonly ingress: DirectionExplanation;
}

/** GET /v1/policy/explain?from=&to=&port= */
export interface ExplainAnswer {
  readonly node: string;
  readonly from: string;
  readonly to: string;
  /** "80/tcp"; absent: every port. */
  readonly port?: string;
  /** Of all paths together. */
  readonly verdict: ExplainVerdict;
  /** One for each address family that both sides have. */
  readonly paths: readonly PathExplanation[];
}

/** POST /v1/policy/preview */
export interface PreviewRequest {
  readonly apply: readonly NetworkPolicy[];
  readonly remove: readonly ObjectName[];
}

/** One side of a changed flow: pods by "namespace/name", or what is not a pod. */
export type FlowSide =
  | { readonly kind: 'pods'; readonly pods: readonly string[] }
  | { readonly kind: 'nodes'; readonly nodes: readonly string[] }
  /** Addresses of no pod and no node: in `prefix` (absent: anywhere) and in none of `except`. */
  | { readonly kind: 'outside'; readonly prefix?: string; readonly except: readonly string[] };

export interface FlowChange {
  readonly change: 'allow' | 'deny';
  readonly from: FlowSide;
  readonly to: FlowSide;
  /** "80/tcp, 8000-8080/udp", "every port". */
  readonly ports: string;
  /** When it is so with one family's addresses only. */
  readonly family?: 4 | 6;
}

export interface IsolationChange {
  readonly pods: readonly string[];
  readonly direction: PolicyDirection;
  readonly isolated: boolean;
}

/** A connection that the kernel remembers and whose verdict on this node would change. */
export interface ConnectionChange {
  readonly node: string;
  readonly change: 'allow' | 'deny';
  readonly direction: PolicyDirection;
  readonly from: Party;
  readonly to: Party;
  readonly protocol: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** That allows it now. */
  readonly rule: RuleName;
}

export interface PreviewAnswer {
  readonly node: string;
  readonly policies: readonly (ObjectName & { readonly change: 'create' | 'update' | 'delete' | 'none' })[];
  readonly diagnostics: readonly string[];
  readonly isolation: readonly IsolationChange[];
  readonly flows: readonly FlowChange[];
  /** Changes that are not listed because there are too many. */
  readonly flowsOmitted: number;
  readonly connections: readonly ConnectionChange[];
  readonly connectionsExamined: number;
}

/** A packet that the datapath reported. */
export interface FlowEvent {
  readonly time: string;
  readonly node: string;
  /** `drop`: dropped. `audit`: would have been, and passed. `allow`: a new connection. */
  readonly kind: 'drop' | 'audit' | 'allow';
  readonly reason: string;
  readonly direction: PolicyDirection;
  readonly rule: RuleName;
  /** The pod that was protected; absent when it has gone. */
  readonly pod?: ObjectName;
  /** Absent, as destination and ports, when the packet is not IP. */
  readonly source?: Party;
  readonly destination?: Party;
  readonly protocol: string;
  /** Absent where the protocol has none. */
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  /** Bytes of the packet. */
  readonly length: number;
  /** Of the remote side; 0 when it was not looked up. */
  readonly identity: number;
}

/** GET /v1/drops?pod=&reason=&kind=&limit= */
export interface DropsAnswer {
  readonly node: string;
  /** Oldest first. */
  readonly events: readonly FlowEvent[];
  /** Events since the agent started that the kernel could not hand over. */
  readonly lost: number;
}

/** A line of GET /v1/drops/follow (application/x-ndjson). An empty object is a sign of life. */
export interface DropsLine {
  readonly event?: FlowEvent;
  /** Events that this reader was too slow for, since the last line that said so. */
  readonly skipped?: number;
}

/** One limited direction of a pod's interface. */
export interface BandwidthInfo {
  readonly node: string;
  readonly pod: ObjectName;
  readonly interface: string;
  readonly direction: PolicyDirection;
  readonly limitBps: number;
  readonly source: BandwidthSource;
  /** The qdiscs that make the limit; absent while the kernel does not have it, until the agent has put it back. */
  readonly mechanism?: string;
  /** Of frames, since the limit was made. */
  readonly statistics?: {
    readonly bytes: number;
    readonly packets: number;
    readonly drops: number;
    readonly backlogBytes: number;
    readonly backlogPackets: number;
  };
  /** Over the sample; absent without one, or when the limit is younger. */
  readonly rateBps?: number;
}

/** GET /v1/bandwidth?pod=&sample= */
export interface BandwidthAnswer {
  readonly node: string;
  /** What limits of this node cannot do, because of its kernel: a sentence each. */
  readonly shortfalls: readonly string[];
  readonly limits: readonly BandwidthInfo[];
  /** Interfaces without any limit. */
  readonly unlimited: number;
}

/** GET /v1/counters */
export interface CountersAnswer {
  readonly node: string;
  readonly endpoints: readonly {
    readonly endpointId: number;
    readonly pod?: ObjectName;
    readonly counters: readonly PacketCounter[];
    readonly rules: readonly RuleCounter[];
  }[];
  readonly lostEvents: number;
  readonly maps: readonly { readonly map: string; readonly entries: number; readonly maxEntries: number }[];
}

/** What is really on the interfaces of one network namespace of the node. */
export interface NamespaceAddresses {
  /** Path of the namespace. */
  readonly netns: string;
  /** Whose it is, as the agent's record says; absent when it has none. */
  readonly pod?: ObjectName & { readonly uid: string };
  /** Interfaces with global addresses. */
  readonly interfaces: readonly { readonly name: string; readonly addresses: readonly string[] }[];
}

/** GET /v1/addresses */
export interface NodeAddresses {
  readonly node: string;
  readonly namespaces: readonly NamespaceAddresses[];
}
