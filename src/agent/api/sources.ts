/** What the agent's API reads from. Everything in it is read only, so no request can change what is enforced. */
import type { EnforcementMode } from '../../api/agent-api.ts';
import type { Namespace, NetworkPolicy, Node, Pod } from '../../api/kubernetes.ts';
import type { Connection } from '../../datapath/connections.ts';
import type { Datapath } from '../../datapath/datapath.ts';
import type { PolicyIndex } from '../../policy/policy-index.ts';
import type { EndpointRecord } from '../endpoint-store.ts';
import type { NodeNamespace } from '../pod-netns.ts';
import type { BandwidthView } from './bandwidth-views.ts';
import type { DropLog, DropSource } from './drop-log.ts';
import type { Parties } from './parties.ts';
import type { RuleNames } from './rule-names.ts';

/** The part of the datapath that can be looked at. */
export interface KernelView
  extends DropSource, Pick<Datapath, 'endpoints' | 'policyEntries' | 'counters' | 'ruleCounters' | 'mapUsage'> {
  /** Prefix in canonical text → identity. */
  ipcache(): ReadonlyMap<string, number>;
  connections(max: number): readonly Connection[];
}

/** The part of ClusterView that is asked. */
export interface ClusterSource {
  readonly synced: boolean;
  readonly policyIndex: PolicyIndex;
  readonly pods: { list(): readonly Pod[] };
  readonly namespaces: { list(): readonly Namespace[]; get(namespace: undefined, name: string): Namespace | undefined };
  readonly nodes: { list(): readonly Node[] };
  readonly policies: { list(): readonly NetworkPolicy[] };
  podOf(ref: EndpointRecord['pod']): Pod | undefined;
}

export interface AgentApiSources {
  readonly nodeName: string;
  readonly enforcement: EnforcementMode;
  readonly cluster: ClusterSource;
  readonly kernel: KernelView;
  readonly endpoints: () => readonly EndpointRecord[];
  /** Whether its hooks have programs over maps that this agent has replaced, and goes on to replace them. */
  readonly isTakingOver: (record: EndpointRecord) => boolean;
  readonly bandwidth: BandwidthView;
  /** The node's network namespaces but its own, those of the given inodes among them. */
  readonly namespaces: (known: ReadonlySet<string>) => Promise<readonly NodeNamespace[]>;
  readonly parties: Parties;
  readonly rules: RuleNames;
  readonly drops: DropLog;
  /** Whether the namespace only reports what policy would drop. */
  readonly audited: (namespace: string) => boolean;
  /** Why the kernel may lag behind the API objects. */
  readonly problems: () => readonly string[];
}
