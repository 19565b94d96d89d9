/** The agent's tools for operators, put together: events with names, the API, metrics of rules. */
import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import type { EnforcementMode } from '../../api/agent-api.ts';
import type { Clock } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { RuleIds } from '../../policy/rule-id.ts';
import type { EndpointRecord } from '../endpoint-store.ts';
import { agentLimits } from '../limits.ts';
import { PeriodicTask } from '../periodic-task.ts';
import { nodeNamespaces } from '../pod-netns.ts';
import { registerPolicyMetrics } from '../policy-metrics.ts';
import { registerBandwidthMetrics } from '../bandwidth-metrics.ts';
import { bandwidthUsage } from '../bandwidth-usage.ts';
import type { BandwidthView } from './bandwidth-views.ts';
import { DropLog } from './drop-log.ts';
import { EventNamer } from './event-view.ts';
import { Parties } from './parties.ts';
import { RuleNames } from './rule-names.ts';
import { buildAgentApi } from './server.ts';
import type { ClusterSource, KernelView } from './sources.ts';

export interface AgentToolsDeps {
  readonly nodeName: string;
  readonly enforcement: EnforcementMode;
  readonly cluster: ClusterSource & { onChange(listener: () => void): void; unavailable(): readonly string[] };
  readonly kernel: KernelView;
  readonly shaping: Pick<BandwidthView, 'read' | 'shortfalls'>;
  readonly endpoints: () => readonly EndpointRecord[];
  readonly isTakingOver: (record: EndpointRecord) => boolean;
  readonly policy: { readonly ruleIds: RuleIds; readonly leftOut: number; problems(): readonly string[] };
  readonly audited: (namespace: string) => boolean;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface AgentTools {
  readonly api: FastifyInstance;
  readonly tasks: readonly PeriodicTask[];
}

export function createAgentTools(deps: AgentToolsDeps): AgentTools {
  const { nodeName, enforcement, cluster, kernel, endpoints, policy, audited, clock, log } = deps;
  const parties = new Parties({ pods: () => cluster.pods.list(), nodes: () => cluster.nodes.list(), clock });
  cluster.onChange(() => parties.markStale());
  const rules = new RuleNames({ ids: policy.ruleIds, policies: () => cluster.policyIndex, clock });
  const namer = new EventNamer({
    node: nodeName,
    book: () => parties.book,
    ruleOf: (id) => rules.nameOf(id),
    endpoints,
    monotonicNs: () => process.hrtime.bigint(),
    nowMs: () => clock.nowMs(),
  });
  const drops = new DropLog(kernel, (event) => namer.describe(event));
  registerPolicyMetrics(deps.registry, {
    enforcement,
    ruleCounters: () => kernel.ruleCounters(),
    nameOf: (id) => rules.nameOf(id),
    lostEvents: () => kernel.lostEvents(),
    mapUsage: () => kernel.mapUsage(),
    audited: () => kernel.endpoints().filter(({ audit }) => audit).length,
    leftOut: () => policy.leftOut,
  });
  const bandwidth: BandwidthView = {
    ...deps.shaping,
    monotonicMs: () => clock.monotonicMs(),
    sleep: (ms) => clock.sleep(ms),
  };
  registerBandwidthMetrics(deps.registry, { usage: () => bandwidthUsage(endpoints(), bandwidth) });
  const common = { clock, log };
  const problems = (): readonly string[] => [...cluster.unavailable(), ...policy.problems()];
  return {
    api: buildAgentApi({
      ...{ nodeName, enforcement, cluster, kernel, endpoints, parties, rules, drops, audited, problems },
      ...{ namespaces: nodeNamespaces, bandwidth, isTakingOver: deps.isTakingOver },
    }),
    tasks: [
      new PeriodicTask({ ...common, name: 'events', intervalMs: agentLimits.eventPollMs, run: () => drops.poll() }),
      new PeriodicTask({ ...common, name: 'rule names', intervalMs: 60_000, run: () => rules.prune() }),
    ],
  };
}
