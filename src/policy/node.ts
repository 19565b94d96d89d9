/** A policy as the compiler sees it: defaults filled in, selectors and prefixes canonical, frozen. */

import type { LabelSelector } from '../core/labels.ts';
import type { Diagnostic } from './diagnostics.ts';
import type { PortNode } from './port.ts';

/** As seen from the pod that the policy selects. */
export type Direction = 'ingress' | 'egress';

export type PeerNode =
  | {
      readonly kind: 'pods';
      /** The peers of one namespace, or undefined with a namespaceSelector. */
      readonly namespace: string | undefined;
      readonly namespaceSelector: LabelSelector | undefined;
      readonly podSelector: LabelSelector;
      /** Equal for peers that select the same by construction. */
      readonly key: string;
    }
  | {
      readonly kind: 'prefix';
      /** Canonical texts. */
      readonly cidr: string;
      readonly except: readonly string[];
      readonly key: string;
    };

export interface RuleNode {
  readonly direction: Direction;
  /** Index in `spec.ingress` or `spec.egress`. */
  readonly index: number;
  /** Undefined: everyone. */
  readonly peers: readonly PeerNode[] | undefined;
  /** Undefined: every port of every protocol. */
  readonly ports: readonly PortNode[] | undefined;
}

export interface PolicyNode {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly subject: LabelSelector;
  readonly isolates: { readonly ingress: boolean; readonly egress: boolean };
  /** Only rules without errors: a rule that is not understood allows nothing. */
  readonly rules: readonly RuleNode[];
  readonly diagnostics: readonly Diagnostic[];
}

/** The ipBlock prefixes that the policy names, cidr and except. */
export function prefixesOf(policy: PolicyNode): string[] {
  const peers = policy.rules.flatMap((rule) => rule.peers ?? []);
  return peers.flatMap((peer) => (peer.kind === 'prefix' ? [peer.cidr, ...peer.except] : []));
}
