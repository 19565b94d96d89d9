/** Metrics of bandwidth limits, read from the kernel at the moment of the scrape; docs/reference/agent.md lists them. */
import { Gauge, type Registry } from 'prom-client';
import type { BandwidthUsage } from './bandwidth-usage.ts';

export interface BandwidthMetricSources {
  readonly usage: () => readonly BandwidthUsage[];
}

const place = ['namespace', 'pod', 'interface', 'direction'];

/**
 * A series for each limited direction of a pod that runs: unlike the sums of other metrics, a limit says nothing without its
 * pod. Gauges, though some are counters in the kernel: they begin anew with the limit, which rate() takes for a restart.
 */
export function registerBandwidthMetrics(registry: Registry, { usage }: BandwidthMetricSources): void {
  const gauge = (name: string, help: string, labelNames: readonly string[], collect?: () => void): Gauge =>
    new Gauge({ name, help, labelNames: [...labelNames], registers: [registry], ...(collect && { collect }) });
  // Registered first, so that one look at the kernel fills all of them.
  const limit = gauge('sluice_bandwidth_limit_bits_per_second', 'limit of a pod interface', place, () => fill());
  const info = gauge(
    'sluice_bandwidth_info',
    '1; how the limit is made (mechanism "none": it is not in the kernel) and who asked for it',
    [...place, 'mechanism', 'source'],
  );
  const statistics = {
    bytes: gauge('sluice_bandwidth_bytes_total', 'bytes of frames that passed the limit', place),
    packets: gauge('sluice_bandwidth_packets_total', 'packets that passed the limit', place),
    drops: gauge(
      'sluice_bandwidth_drops_total',
      'packets that found the limit’s queue full, or waited too long',
      place,
    ),
    backlog: gauge('sluice_bandwidth_backlog_bytes', 'bytes that wait for their turn', place),
  };
  const fill = (): void => {
    for (const each of [limit, info, ...Object.values(statistics)]) each.reset();
    for (const { record, direction, limit: wanted, state } of usage()) {
      const { namespace, name: pod } = record.pod;
      const labels = { namespace, pod, interface: record.ifName, direction };
      limit.set(labels, wanted.bps);
      info.set({ ...labels, mechanism: state?.mechanism ?? 'none', source: wanted.source }, 1);
      if (state === undefined) continue;
      statistics.bytes.set(labels, Number(state.statistics.sentBytes));
      statistics.packets.set(labels, Number(state.statistics.sentPackets));
      statistics.drops.set(labels, state.statistics.drops);
      statistics.backlog.set(labels, state.statistics.backlogBytes);
    }
  };
}
