/** docs/reference/address-metrics.md against what agent and controller register, and what the figures say. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { Registry } from 'prom-client';
import { IpamMetrics } from '../src/agent/ipam-metrics.ts';
import type { CniRequest } from '../src/api/cni.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import type { SpiderSubnet } from '../src/api/spidersubnet.ts';
import { CniError } from '../src/cni/error.ts';
import { ControllerMetrics } from '../src/controller/metrics.ts';
import { SluiceError } from '../src/core/error.ts';

const page = readFileSync(new URL('../docs/reference/address-metrics.md', import.meta.url), 'utf8');

/** "name 3" and "name{label="x"} 3" as a look-up. */
async function figures(registry: Registry): Promise<Map<string, number>> {
  const lines = (await registry.metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

function names(registry: Registry): string[] {
  return registry.getMetricsAsArray().map(({ name }) => name);
}

/** Spiderpool's docs/reference/metrics.md, without the ending that counters have. */
function documentedNames(): string[] {
  const allocation = 'failure_ update_ippool_conflict_ err_internal_ err_no_available_pool_ err_retries_exhausted_';
  const release = 'failure_ update_ippool_conflict_ err_internal_ err_retries_exhausted_';
  const counters = (prefix: string, all: string): string[] => ['', ...all.split(' ')].map((n) => `${prefix}${n}counts`);
  const times = ['allocation', 'release'].flatMap((operation) =>
    ['', 'average_', 'max_', 'min_', 'latest_'].flatMap((which) =>
      ['', 'limit_'].map((what) => `spiderpool_ipam_${operation}_${which}${what}duration_seconds`),
    ),
  );
  return [
    ...counters('spiderpool_ipam_allocation_', `${allocation} err_ip_used_out_`),
    ...counters('spiderpool_ipam_release_', release),
    ...times,
    ...['auto_pool_waited_for_available', 'ippool_total_ip', 'ippool_available_ip'].map(debug),
    ...['subnet_ippool', 'subnet_total_ip', 'subnet_available_ip'].map(debug),
    ...['ip_gc', 'ip_gc_failure', 'total_ippool', 'total_subnet'].map((name) => `spiderpool_${name}_counts`),
  ];
}

function debug(name: string): string {
  return `spiderpool_debug_${name}_counts`;
}

describe('metrics of addresses', () => {
  it('are the documented ones, all of them', () => {
    const registry = new Registry();
    void new IpamMetrics(registry);
    const all = [...names(registry), ...names(new ControllerMetrics().registry)];
    assert.deepEqual(all.map((name) => name.replace(/_total$/, '')).sort(), documentedNames().sort());
  });

  it('have the names that the page has, the gauges beside a histogram by their first', () => {
    const registry = new Registry();
    void new IpamMetrics(registry);
    const told = [...page.matchAll(/`(spiderpool_[a-z_0-9]+)/g)].map(([, name]) => name);
    for (const name of [...names(registry), ...names(new ControllerMetrics().registry)]) {
      const isSibling =
        /_(average|max|min|latest)_/.test(name) && name !== 'spiderpool_ipam_allocation_average_duration_seconds';
      assert.equal(told.includes(name), !isSibling, name);
    }
    for (const operation of ['allocation', 'release'])
      for (const which of ['average', 'max', 'min', 'latest'])
        for (const what of ['duration', 'limit_duration'])
          assert(names(registry).includes(`spiderpool_ipam_${operation}_${which}_${what}_seconds`));
  });

  it('count requests, failures by their reason, and times', async () => {
    const registry = new Registry();
    const metrics = new IpamMetrics(registry);
    let nowMs = 0;
    const outcome: { failure?: Error } = {};
    const plugin = metrics.measured(
      async () => {
        nowMs += 400;
        if (outcome.failure !== undefined) throw outcome.failure;
        return undefined;
      },
      () => nowMs,
    );
    const call = (command: string): Promise<unknown> =>
      plugin({ command } as CniRequest, new AbortController().signal).catch(() => undefined);
    await call('ADD');
    const cause = new SluiceError({ code: 'ipam_exhausted', operation: 'allocate', object: 'p', what: 'all used out' });
    outcome.failure = new CniError(11, 'wrapped', '', { cause });
    await call('ADD');
    await call('DEL');
    metrics.poolConflict('release');
    metrics.poolQueued('allocation', 50);
    const found = await figures(registry);
    assert.equal(found.get('spiderpool_ipam_allocation_counts_total'), 2);
    assert.equal(found.get('spiderpool_ipam_allocation_failure_counts_total'), 1);
    assert.equal(found.get('spiderpool_ipam_allocation_err_ip_used_out_counts_total'), 1);
    assert.equal(found.get('spiderpool_ipam_release_err_internal_counts_total'), 1);
    assert.equal(found.get('spiderpool_ipam_release_update_ippool_conflict_counts_total'), 1);
    assert.equal(found.get('spiderpool_ipam_allocation_average_duration_seconds'), 0.4);
    assert.equal(found.get('spiderpool_ipam_allocation_duration_seconds_bucket{le="0.3"}'), 0);
    assert.equal(found.get('spiderpool_ipam_allocation_duration_seconds_bucket{le="0.5"}'), 2);
    assert.equal(found.get('spiderpool_ipam_allocation_latest_limit_duration_seconds'), 0.05);
  });

  it('count what the controller knows when they are read', async () => {
    const metrics = new ControllerMetrics();
    const labels = { 'ipam.spidernet.io/owner-spider-subnet': 's' };
    const pool = {
      metadata: { name: 'p', labels },
      spec: { subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'], excludeIPs: ['10.0.0.9'] },
      status: { allocatedIPs: '{"10.0.0.1":{"pod":"default/a","podUid":"u"}}' },
    } as unknown as SpiderIPPool;
    const subnet = { metadata: { name: 's' }, spec: {}, status: { totalIPCount: 20, allocatedIPCount: 8 } };
    metrics.readFrom({ pools: () => [pool], subnets: () => [subnet as unknown as SpiderSubnet] });
    metrics.collected('released', 3);
    const found = await figures(metrics.registry);
    assert.equal(found.get('spiderpool_ip_gc_counts_total'), 3);
    assert.equal(found.get('spiderpool_debug_ippool_total_ip_counts{SpiderIPPool="p"}'), 8);
    assert.equal(found.get('spiderpool_debug_ippool_available_ip_counts{SpiderIPPool="p"}'), 7);
    assert.equal(found.get('spiderpool_debug_subnet_ippool_counts{SpiderSubnet="s"}'), 1);
    assert.equal(found.get('spiderpool_debug_subnet_available_ip_counts{SpiderSubnet="s"}'), 12);
  });
});
