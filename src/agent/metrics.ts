/** Prometheus metrics of the agent; docs/reference/agent.md lists them. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

export interface DropCounter {
  readonly endpointId: number;
  readonly direction: string;
  readonly reason: string;
  readonly packets: bigint | number;
  readonly bytes: bigint | number;
}

export interface MetricSources {
  readonly counters: () => readonly DropCounter[];
  readonly endpointCount: () => number;
  readonly informerSynced: () => Readonly<Record<string, boolean>>;
}

export class AgentMetrics {
  readonly registry = new Registry();
  readonly cniOperations = new Counter({
    name: 'sluice_cni_operations_total',
    help: 'CNI calls answered, by the code of the answer (0: success)',
    labelNames: ['plugin', 'command', 'code'],
    registers: [this.registry],
  });
  readonly cniDuration = new Histogram({
    name: 'sluice_cni_duration_seconds',
    help: 'Time from the complete CNI request to its answer',
    labelNames: ['plugin', 'command'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 20],
    registers: [this.registry],
  });
  readonly policyRuns = new Counter({
    name: 'sluice_policy_runs_total',
    help: 'Runs of the policy reconciler, by outcome',
    labelNames: ['outcome'],
    registers: [this.registry],
  });
  readonly policyDuration = new Histogram({
    name: 'sluice_policy_run_seconds',
    help: 'Duration of a run of the policy reconciler',
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5],
    registers: [this.registry],
  });
  readonly endpointRepairs = new Counter({
    name: 'sluice_endpoint_repairs_total',
    help: 'What had been removed or changed behind the agent and was put back, by kind of problem',
    labelNames: ['problem'],
    registers: [this.registry],
  });
  readonly adoptions = new Counter({
    name: 'sluice_pod_adoptions_total',
    help: 'Pods that ran without Sluice and were to be enforced without a restart, by outcome',
    labelNames: ['outcome'],
    registers: [this.registry],
  });
  readonly orphans = new Counter({
    name: 'sluice_orphans_removed_total',
    help: 'Endpoints in the kernel that no record knew, removed after their interface was gone',
    registers: [this.registry],
  });

  constructor(sources: MetricSources) {
    const { registry } = this;
    gauge(registry, 'sluice_endpoints', 'Pod interfaces enforced on this node', [], (g) =>
      g.set(sources.endpointCount()),
    );
    gauge(registry, 'sluice_informer_synced', '1 when the informer has its first list', ['resource'], (g) => {
      for (const [resource, synced] of Object.entries(sources.informerSynced())) g.set({ resource }, synced ? 1 : 0);
    });
    packetCounter(registry, 'packets', sources);
    packetCounter(registry, 'bytes', sources);
  }
}

/**
 * The kernel's counters, summed over endpoints: a label per endpoint would make a series per pod that ever ran. A sum falls
 * when an endpoint goes; rate() takes that for a restart of the counter.
 */
function packetCounter(registry: Registry, unit: 'packets' | 'bytes', sources: MetricSources): void {
  const name = `sluice_datapath_${unit}_total`;
  const help = `${unit} judged by the datapath, by direction and reason ("forwarded", or why dropped)`;
  const counter: Counter<'direction' | 'reason'> = new Counter({
    name,
    help,
    labelNames: ['direction', 'reason'],
    registers: [registry],
    collect() {
      counter.reset();
      for (const c of sources.counters()) {
        counter.inc({ direction: c.direction, reason: c.reason }, Number(c[unit]));
      }
    },
  });
}

function gauge(
  registry: Registry,
  name: string,
  help: string,
  labelNames: string[],
  collect: (g: Gauge) => void,
): void {
  const g: Gauge = new Gauge({
    name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      collect(g);
    },
  });
}
