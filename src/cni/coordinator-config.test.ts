import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PluginConfig } from '../api/cni.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import { formatPrefix } from '../core/ip.ts';
import { clusterCoordinatorConfig, defaultRouteNicAnnotation } from './coordinator-cluster.ts';
import { parseCoordinatorConfig } from './coordinator-config.ts';

const spec = {
  mode: 'underlay',
  hijackCIDR: ['169.254.0.0/16'],
  podDefaultRouteNIC: 'net1',
  hostRuleTable: 600,
  tunePodRoutes: false,
};
const status = { phase: 'Synced' as const, overlayPodCIDR: ['10.244.0.0/16'], serviceCIDR: ['10.96.0.0/12'] };
const coordinator: SpiderCoordinator = { metadata: { name: 'default' }, spec, status };
const plugin = (keys: Record<string, unknown> = {}): PluginConfig => ({
  cniVersion: '1.0.0',
  name: 'n',
  type: 'coordinator',
  ...keys,
});

describe('what the cluster says about the coordinator', () => {
  it('has the wire format of GET /v1/coordinator/config', () => {
    assert.deepEqual(clusterCoordinatorConfig(coordinator, {}), {
      mode: 'underlay',
      overlayPodCIDR: ['10.244.0.0/16'],
      serviceCIDR: ['10.96.0.0/12'],
      hijackCIDR: ['169.254.0.0/16'],
      tunePodRoutes: false,
      podDefaultRouteNIC: 'net1',
      hostRuleTable: 600,
    });
  });

  it('keeps both lists when one is missing (A15), and has defaults without an object', () => {
    const { overlayPodCIDR, serviceCIDR } = clusterCoordinatorConfig(
      { ...coordinator, status: { phase: 'Synced', overlayPodCIDR: ['10.244.0.0/16'] } },
      undefined,
    );
    assert.deepEqual([overlayPodCIDR, serviceCIDR], [['10.244.0.0/16'], []]);
    assert.deepEqual(clusterCoordinatorConfig(undefined, undefined), {
      mode: 'auto',
      overlayPodCIDR: [],
      serviceCIDR: [],
      tunePodRoutes: true,
    });
  });

  it('takes the default-route interface from the pod first', () => {
    const config = clusterCoordinatorConfig(coordinator, { [defaultRouteNicAnnotation]: 'net2' });
    assert.equal(config.podDefaultRouteNIC, 'net2');
  });

  it('is an error while it is not known (V00008)', () => {
    const unready = { ...coordinator, status: { phase: 'NotReady', reason: 'no kubeadm-config' } as const };
    assert.throws(() => clusterCoordinatorConfig(unready, {}), /spidercoordinator: default no ready/);
  });
});

describe('the coordinator configuration', () => {
  const cluster = clusterCoordinatorConfig(coordinator, {});

  it("is the plugin's, key by key, then the cluster's (V00007)", () => {
    const merged = parseCoordinatorConfig(plugin({ mode: 'auto', hijackCIDR: [], podDefaultRouteNic: '' }), cluster);
    assert.deepEqual(
      [merged.mode, merged.hostRuleTable, merged.tunePodRoutes, merged.podDefaultRouteNic],
      ['auto', 600, false, 'net1'],
    );
    assert.deepEqual(merged.hijackPrefixes.map(formatPrefix), ['10.244.0.0/16', '10.96.0.0/12', '169.254.0.0/16']);
    const own = parseCoordinatorConfig(plugin({ hijackCIDR: ['10.1.1.1'], podDefaultRouteNic: 'eth0' }), cluster);
    assert.deepEqual([own.podDefaultRouteNic, own.mode], ['eth0', 'underlay']);
    assert.ok(own.hijackPrefixes.map(formatPrefix).includes('10.1.1.1/32'));
  });

  it('accepts what older configurations have', () => {
    const old = { detectIPConflict: true, detectGateway: true, detectOptions: { retries: 3 }, multusNicPrefix: 'net' };
    const { hostRuleTable, vethMtu } = parseCoordinatorConfig(plugin({ ...old, hostRPFilter: 0, logOptions: {} }));
    assert.deepEqual([hostRuleTable, vethMtu], [500, 1500]);
  });
});
