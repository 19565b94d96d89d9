import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Registry } from 'prom-client';
import { systemClock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import { IpamMetrics } from './ipam-metrics.ts';
import { pluginTable, type PluginParts } from './plugin-table.ts';

const nothing = { get: () => undefined, list: () => [], hasSynced: true };

/** Of a cluster without pods. */
function served(registry: Registry) {
  const missing = (): Promise<never> =>
    Promise.reject(new SluiceError({ code: 'kube_not_found', operation: 'get', object: 'Pod', what: 'not found' }));
  const parts = {
    client: { get: missing, listAll: missing },
    cluster: { pools: nothing, reservedIps: nothing, pods: nothing, namespaces: nothing, nodes: nothing },
    store: { list: () => [] },
    metrics: new IpamMetrics(registry),
    clock: systemClock,
  } as unknown as PluginParts;
  return pluginTable({ log: silentLogger, nodeName: 'node1', attachmentNamespace: 'kube-system' }, parts);
}

describe('what the agent serves', () => {
  it('counts addresses asked for over Spiderpool’s socket as those of its own executables', async () => {
    const registry = new Registry();
    const { spiderApi } = served(registry);
    const payload = { containerID: 'c', ifName: 'eth0', podNamespace: 'default', podName: 'a', podUID: 'u' };
    const added = await spiderApi.inject({ method: 'POST', url: '/v1/ipam/ip', payload });
    assert.equal(added.statusCode, 500, added.body);
    await spiderApi.inject({ method: 'DELETE', url: '/v1/ipam/ip', payload });
    const text = await registry.metrics();
    for (const counted of ['allocation_counts_total 1', 'allocation_failure_counts_total 1', 'release_counts_total 1'])
      assert.match(text, new RegExp(`^spiderpool_ipam_${counted}$`, 'm'));
    assert.match(text, /^spiderpool_ipam_allocation_duration_seconds_count 1$/m);
  });
});
