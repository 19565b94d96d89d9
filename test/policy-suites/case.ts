/**
 * A conformance case as data: what happens to the cluster step by step, and, where the suite's authors say so, who
 * must reach whom afterwards. The same case is judged by the oracle, by the kernel and by real packets in the lab.
 *
 * The world of every case: namespaces x, y, z (label ns=NAME), in each the pods a, b, c (label pod=NAME), every pod
 * dual-stack and serving ports 80 and 81 over TCP, UDP and SCTP under the names serve-80-tcp and so on.
 */

import type { NetworkPolicyPort } from '../../src/api/kubernetes.ts';
import type { Labels, LabelSelector } from '../../src/core/labels.ts';

/** "x/a": namespace and name. */
export type PodName = `${string}/${string}`;
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export const namespaceNames = ['x', 'y', 'z'] as const;
export const podNames = namespaceNames.flatMap((namespace) =>
  (['a', 'b', 'c'] as const).map((name): PodName => `${namespace}/${name}`),
);
export const servedPorts = [80, 81] as const;
export const protocols: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
/** Upstream's name of a served port. */
export const portName = (port: number, protocol: Protocol): string => `serve-${port}-${protocol.toLowerCase()}`;

/** The prefix around a pod's address; bound to both of its addresses, so that the table is the same in both families. */
export interface AroundPod {
  readonly around: PodName;
  /** How many bits of the address are left open, or the length of the prefix whatever the family. */
  readonly size: { readonly hostBits: number } | { readonly prefixLen: number };
  /** Excepted from it, likewise. */
  readonly exceptHostBits?: number;
}

export type SuitePeer =
  | { readonly podSelector?: LabelSelector; readonly namespaceSelector?: LabelSelector }
  | { readonly cidrs: readonly string[] }
  | AroundPod;

export interface SuiteRule {
  readonly peers?: readonly SuitePeer[];
  readonly ports?: readonly NetworkPolicyPort[];
}

/** policyTypes follows from which directions are there, so `ingress: []` isolates and no `ingress` says nothing. */
export interface SuitePolicy {
  readonly namespace: string;
  readonly name: string;
  readonly pods: LabelSelector;
  readonly ingress?: readonly SuiteRule[];
  readonly egress?: readonly SuiteRule[];
}

export type Action =
  | { readonly do: 'create policy' | 'update policy'; readonly policy: SuitePolicy }
  | { readonly do: 'delete policy'; readonly namespace: string; readonly name: string }
  | { readonly do: 'create namespace' | 'label namespace'; readonly namespace: string; readonly labels: Labels }
  | { readonly do: 'delete namespace'; readonly namespace: string }
  /** "label" replaces all labels. */
  | { readonly do: 'create pod' | 'label pod'; readonly pod: PodName; readonly labels: Labels }
  | { readonly do: 'delete pod'; readonly pod: PodName };

/** Which pods: one, a whole namespace, or all. */
export type PodPattern = PodName | `${string}/*` | '*';

/** Applied in order to a table in which everyone reaches everyone. A pod and itself are left out: see k/k#95879. */
export interface Expectation {
  readonly port: number;
  readonly protocol: Protocol;
  readonly edges: readonly { readonly from: PodPattern; readonly to: PodPattern; readonly reaches: boolean }[];
}

export interface Step {
  readonly actions: readonly Action[];
  /** What upstream states; absent where the suite leaves it to its own model. */
  readonly expect?: readonly Expectation[];
}

export interface SuiteCase {
  readonly name: string;
  readonly tags: readonly string[];
  readonly steps: readonly Step[];
}

export const create = (policy: SuitePolicy): Action => ({ do: 'create policy', policy });
export const update = (policy: SuitePolicy): Action => ({ do: 'update policy', policy });

export const deny = (from: PodPattern, to: PodPattern) => ({ from, to, reaches: false });
export const allow = (from: PodPattern, to: PodPattern) => ({ from, to, reaches: true });

export function matchesPattern(pattern: PodPattern, pod: PodName): boolean {
  return pattern === '*' || pattern === pod || (pattern.endsWith('/*') && pod.startsWith(pattern.slice(0, -1)));
}
