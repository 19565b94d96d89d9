/** Metrics of bandwidth limits, read from the kernel at the moment of the scrape; docs/reference/agent.md lists them. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { BandwidthUsage } from './bandwidth-usage.ts';

export interface BandwidthMetricSources {
  readonly usage: () => readonly BandwidthUsage[];
}

const place = ['namespace', 'pod', 'interface', 'direction'];

/**
 * A series for each limited direction of a pod that runs: unlike the sums of other metrics, a limit says nothing without its
 * pod. Its counters begin anew with the limit, which rate() takes for a restart.
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
  const counter = (name: string, help: string): Counter =>
    new Counter({ name, help, labelNames: place, registers: [registry] });
  const statistics = {
    bytes: counter('sluice_bandwidth_bytes_total', 'bytes of frames that passed the limit'),
    packets: counter('sluice_bandwidth_packets_total', 'packets that passed the limit'),
    drops: counter('sluice_bandwidth_drops_total', 'packets that found the limit’s queue full, or waited too long'),
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
      statistics.bytes.inc(labels, Number(state.statistics.sentBytes));
      statistics.packets.inc(labels, Number(state.statistics.sentPackets));
      statistics.drops.inc(labels, state.statistics.drops);
      statistics.backlog.set(labels, state.statistics.backlogBytes);
    }
  };
}
