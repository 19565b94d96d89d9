/** Metrics of policy that come from the kernel at the moment of the scrape; docs/reference/agent.md lists them. */
import { Gauge, type Registry } from 'prom-client';
import { enforcementModes, type EnforcementMode, type RuleName } from '../api/agent-api.ts';

export interface PolicyMetricSources {
  readonly enforcement: EnforcementMode;
  readonly ruleCounters: () => readonly {
    readonly direction: string;
    readonly ruleId: number;
    readonly decisions: bigint;
  }[];
  readonly nameOf: (ruleId: number) => RuleName;
  readonly lostEvents: () => bigint;
  readonly mapUsage: () => readonly { readonly map: string; readonly entries: number; readonly maxEntries: number }[];
  /** Endpoints in audit mode. */
  readonly audited: () => number;
  /** Addresses without an entry in the ipcache for want of room. */
  readonly leftOut: () => number;
}

/**
 * Gauges, though some are counters in the kernel: they fall when an endpoint goes, and prom-client's counters cannot be
 * set. rate() and increase() take a fall for a restart.
 */
export function registerPolicyMetrics(registry: Registry, sources: PolicyMetricSources): void {
  const gauge = (name: string, help: string, labelNames: string[], collect: (self: Gauge) => void): void => {
    const self: Gauge = new Gauge({
      ...{ name, help, labelNames, registers: [registry] },
      collect: () => {
        self.reset();
        collect(self);
      },
    });
  };
  gauge('sluice_policy_enforcement', '1 for the mode of --policy-enforcement', ['mode'], (self) => {
    for (const mode of enforcementModes) self.set({ mode }, mode === sources.enforcement ? 1 : 0);
  });
  const ruleLabels = ['direction', 'namespace', 'policy', 'rule'];
  const ruleHelp = 'connections that a rule decided about, summed over endpoints; rule "none": nothing allowed them';
  gauge('sluice_policy_rule_decisions_total', ruleHelp, ruleLabels, (self) => {
    for (const { direction, ruleId, decisions } of sources.ruleCounters()) {
      self.inc({ direction, ...labelsOf(sources.nameOf(ruleId)) }, Number(decisions));
    }
  });
  gauge('sluice_datapath_events_lost_total', 'events that the kernel could not hand over', [], (self) =>
    self.set(Number(sources.lostEvents())),
  );
  gauge('sluice_endpoints_audited', 'endpoints whose namespace only reports what policy would drop', [], (self) =>
    self.set(sources.audited()),
  );
  gauge('sluice_addresses_left_out', 'addresses of pods and nodes that the ipcache has no room for', [], (self) =>
    self.set(sources.leftOut()),
  );
  const usage = (name: string, help: string, value: 'entries' | 'maxEntries'): void =>
    gauge(name, help, ['map'], (self) => {
      for (const one of sources.mapUsage()) self.set({ map: one.map }, one[value]);
    });
  usage('sluice_map_entries', 'entries in a map of the datapath', 'entries');
  usage('sluice_map_entries_max', 'entries that the map can hold: docs/reference/limits.md', 'maxEntries');
}

function labelsOf(rule: RuleName): { readonly namespace: string; readonly policy: string; readonly rule: string } {
  switch (rule.kind) {
    case 'policy':
      return { namespace: rule.namespace, policy: rule.policy, rule: String(rule.index) };
    case 'unknown':
      return { namespace: '', policy: '', rule: 'unknown' };
    default:
      return { namespace: '', policy: '', rule: rule.kind };
  }
}
