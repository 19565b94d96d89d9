/** Audit mode and enforcement mode, from annotation and flag to what is programmed and measured. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Registry } from 'prom-client';
import type { EnforcementMode } from '../api/agent-api.ts';
import type { Namespace, NetworkPolicy, Pod } from '../api/kubernetes.ts';
import type { EventNote } from '../kube/event-recorder.ts';
import { compileEndpointPolicy, endpointOfPod, type EndpointPolicy } from '../policy/compile.ts';
import { anyIdentity, hostIdentity, IdentityAllocator } from '../policy/identity.ts';
import { PolicyIndex } from '../policy/policy-index.ts';
import { RuleIds } from '../policy/rule-id.ts';
import { IdentityView } from '../policy/select.ts';
import { PolicyAudit } from './policy-audit.ts';
import { registerPolicyMetrics } from './policy-metrics.ts';

class Namespaces {
  readonly #handlers: ((object: Namespace, old: Namespace) => void)[] = [];
  #present: Namespace | undefined;

  on(_: string, handler: (object: Namespace, old: Namespace) => void): this {
    this.#handlers.push(handler);
    return this;
  }

  get(): Namespace | undefined {
    return this.#present;
  }

  /** As the informer reports a change. */
  annotate(value: string | undefined): void {
    const old = this.#present ?? {};
    const annotations: Record<string, string> = value === undefined ? {} : { 'sluice.io/policy-audit': value };
    const present = { metadata: { name: 'demo', annotations } };
    this.#present = present;
    this.#handlers[1]?.(present, old);
  }
}

describe('audit mode', () => {
  it('is on for "true" alone; another value is told as an event and audits nothing', () => {
    const source = new Namespaces();
    const notes: EventNote[] = [];
    let changes = 0;
    const audit = new PolicyAudit({
      namespaces: source,
      record: (note) => notes.push(note),
      onChange: () => changes++,
    });
    assert.equal(audit.audited('demo'), false);
    const seen = [undefined, 'true', 'true', 'false', 'yes'].map((value) => {
      source.annotate(value);
      return audit.audited('demo');
    });
    assert.deepEqual(seen, [false, true, true, false, false]);
    assert.equal(changes, 3, 'only when the value changes');
    assert.deepEqual(
      notes.map(({ reason, about }) => [reason, about.kind, about.name]),
      [['InvalidPolicyAudit', 'Namespace', 'demo']],
    );
    assert.match(notes[0]?.message ?? '', /"yes" is neither "true" nor "false"; policy is enforced/);
  });
});

describe('the enforcement mode', () => {
  const pod: Pod = { metadata: { namespace: 'demo', name: 'web', labels: { app: 'web' } }, spec: { containers: [] } };
  const onIngress: NetworkPolicy = {
    metadata: { namespace: 'demo', name: 'p' },
    spec: { podSelector: {}, ingress: [{}] },
  };

  function compiled(policies: readonly NetworkPolicy[], mode: EnforcementMode): EndpointPolicy {
    const view = new IdentityView(new IdentityAllocator({ nowMs: () => 0 }).entries());
    return compileEndpointPolicy(endpointOfPod(pod), new PolicyIndex(policies), view, new RuleIds(), mode);
  }

  const rows: [EnforcementMode, readonly NetworkPolicy[], ingress: boolean, egress: boolean, identities: number[]][] = [
    ['default', [], false, false, []],
    ['default', [onIngress], true, false, [anyIdentity, hostIdentity]],
    ['always', [], true, true, [hostIdentity]],
    ['always', [onIngress], true, true, [anyIdentity, hostIdentity]],
    ['never', [], false, false, []],
    ['never', [onIngress], false, false, []],
  ];
  for (const [mode, policies, ingress, egress, identities] of rows) {
    it(`${mode}, with ${policies.length} policies`, () => {
      const policy = compiled(policies, mode);
      assert.deepEqual(policy.isolated, { ingress, egress });
      assert.deepEqual(
        policy.entries.map(({ identity }) => identity),
        identities,
      );
    });
  }
});

describe('policy metrics', () => {
  it('name rules, the mode, losses and map usage', async () => {
    const registry = new Registry();
    const rule = { kind: 'policy', namespace: 'demo', policy: 'p', direction: 'ingress', index: 2 } as const;
    registerPolicyMetrics(registry, {
      enforcement: 'always',
      ruleCounters: () => [7, 7, 0].map((ruleId) => ({ direction: 'ingress', ruleId, decisions: 5n })),
      nameOf: (id) => (id === 0 ? { kind: 'none' } : rule),
      lostEvents: () => 3n,
      mapUsage: () => [{ map: 'policy', entries: 10, maxEntries: 100 }],
      audited: () => 1,
      leftOut: () => 4,
    });
    for (let scrape = 0; scrape < 2; scrape++) {
      const text = await registry.metrics();
      for (const line of [
        'sluice_policy_enforcement{mode="always"} 1',
        'sluice_policy_enforcement{mode="never"} 0',
        'sluice_policy_rule_decisions_total{direction="ingress",namespace="demo",policy="p",rule="2"} 10',
        'sluice_policy_rule_decisions_total{direction="ingress",namespace="",policy="",rule="none"} 5',
        'sluice_datapath_events_lost_total 3',
        'sluice_endpoints_audited 1',
        'sluice_addresses_left_out 4',
        'sluice_map_entries{map="policy"} 10',
        'sluice_map_entries_max{map="policy"} 100',
      ])
        assert.ok(text.includes(`${line}\n`) || text.endsWith(line), `${line}\n${text}`);
    }
  });
});
