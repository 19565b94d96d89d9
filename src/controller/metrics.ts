/** The controller's metrics by the names that Spiderpool documents: docs/reference/address-metrics.md. */
import { Counter, Gauge, Registry } from 'prom-client';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { spiderLabels } from '../api/spider.ts';
import { poolUsage } from '../ipam/pool-usage.ts';

/** What there is now; read when somebody asks. */
export interface ControllerMetricSources {
  readonly pools: () => readonly SpiderIPPool[];
  readonly subnets: () => readonly SpiderSubnet[];
}

interface SubnetCounts {
  readonly pools: number;
  readonly total: number;
  /** Not yet given to a pool. */
  readonly available: number;
}

export class ControllerMetrics {
  readonly registry = new Registry();
  readonly #collected = new Counter({
    name: 'spiderpool_ip_gc_counts_total',
    help: 'Addresses that garbage collection gave back',
    registers: [this.registry],
  });
  readonly #failures = new Counter({
    name: 'spiderpool_ip_gc_failure_counts_total',
    help: 'Addresses, or pools, that garbage collection could not give back and will try again',
    registers: [this.registry],
  });
  #sources: ControllerMetricSources = { pools: () => [], subnets: () => [] };

  constructor() {
    const { registry } = this;
    const gauge = (name: string, help: string, value: () => number): void => {
      new Gauge({ name, help, registers: [registry], collect() { this.set(value()); } }); // prettier-ignore
    };
    gauge('spiderpool_total_ippool_counts', 'SpiderIPPools', () => this.#sources.pools().length);
    gauge('spiderpool_total_subnet_counts', 'SpiderSubnets', () => this.#sources.subnets().length);
    this.#poolGauge('spiderpool_debug_ippool_total_ip_counts', 'Addresses of the pool', ({ total }) => total);
    this.#poolGauge('spiderpool_debug_ippool_available_ip_counts', 'Free addresses of the pool', ({ free }) => free);
    this.#subnetGauge('spiderpool_debug_subnet_ippool_counts', 'Pools of the subnet', ({ pools }) => pools);
    this.#subnetGauge('spiderpool_debug_subnet_total_ip_counts', 'Addresses of the subnet', ({ total }) => total);
    this.#subnetGauge(
      'spiderpool_debug_subnet_available_ip_counts',
      'Addresses of the subnet that no pool has',
      ({ available }) => available,
    );
  }

  /** From then on; before, there is nothing. */
  readFrom(sources: ControllerMetricSources): void {
    this.#sources = sources;
  }

  collected(outcome: 'released' | 'failed', count: number): void {
    (outcome === 'released' ? this.#collected : this.#failures).inc(count);
  }

  #poolGauge(
    name: string,
    help: string,
    value: (counts: { readonly total: number; readonly free: number }) => number,
  ): void {
    const gauge: Gauge<'SpiderIPPool'> = new Gauge({
      ...{ name, help, labelNames: ['SpiderIPPool'], registers: [this.registry] },
      collect: () => {
        gauge.reset();
        for (const pool of this.#sources.pools()) {
          const counts = countsOf(pool);
          if (counts !== undefined) gauge.set({ SpiderIPPool: pool.metadata.name ?? '' }, value(counts));
        }
      },
    });
  }

  #subnetGauge(name: string, help: string, value: (counts: SubnetCounts) => number): void {
    const gauge: Gauge<'SpiderSubnet'> = new Gauge({
      ...{ name, help, labelNames: ['SpiderSubnet'], registers: [this.registry] },
      collect: () => {
        gauge.reset();
        const pools = this.#sources.pools();
        for (const subnet of this.#sources.subnets())
          gauge.set({ SpiderSubnet: subnet.metadata.name ?? '' }, value(subnetCounts(subnet, pools)));
      },
    });
  }
}

/** Undefined: its records cannot be read, which allocation and `sluice ipam check` tell. */
function countsOf(pool: SpiderIPPool): { total: number; free: number } | undefined {
  try {
    const { total, freeCount } = poolUsage(pool);
    return { total: Number(total), free: Number(freeCount) };
  } catch {
    return undefined;
  }
}

function subnetCounts({ metadata, status }: SpiderSubnet, pools: readonly SpiderIPPool[]): SubnetCounts {
  const total = status?.totalIPCount ?? 0;
  const own = pools.filter((pool) => pool.metadata.labels?.[spiderLabels.ownerSubnet] === metadata.name);
  return { pools: own.length, total, available: total - (status?.allocatedIPCount ?? 0) };
}
