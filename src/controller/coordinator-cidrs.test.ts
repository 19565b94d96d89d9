import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { coordinatorStatus, type CidrSources } from './coordinator-cidrs.ts';

const nothing: CidrSources = {
  cniNetworks: async () => [],
  kubeadmConfig: async () => undefined,
  controllerManagerArgs: async () => [],
  calicoCidrs: async () => [],
  ciliumConfig: async () => undefined,
  ciliumPoolCidrs: async () => [],
  serviceCidrs: async () => [],
};

const kubeadm: CidrSources = {
  ...nothing,
  kubeadmConfig: async () => 'networking:\n  podSubnet: 10.244.0.0/16,fd01::/48\n  serviceSubnet: 10.96.0.0/12\n',
};

const manager: CidrSources = {
  ...nothing,
  controllerManagerArgs: async () => [
    'kube-controller-manager',
    '--cluster-cidr=10.1.0.0/16',
    '--service-cluster-ip-range=10.2.0.0/16',
  ],
};

describe('CIDRs of a SpiderCoordinator', () => {
  for (const [what, type, sources, pod, service] of [
    ['V00009 from kubeadm', 'cluster', kubeadm, ['10.244.0.0/16', 'fd01::/48'], ['10.96.0.0/12']],
    ['V00009 from kube-controller-manager', 'cluster', manager, ['10.1.0.0/16'], ['10.2.0.0/16']],
    ['V00005 none', 'none', kubeadm, [], ['10.96.0.0/12']],
    ['V00002 auto without configurations', 'auto', kubeadm, [], ['10.96.0.0/12']],
    [
      'V00010 services from their API',
      'none',
      { ...kubeadm, serviceCidrs: async () => ['10.3.0.0/16'] },
      [],
      ['10.3.0.0/16'],
    ],
    [
      'V00001 V00003 auto finds Calico',
      'auto',
      { ...kubeadm, cniNetworks: async () => ['k8s-pod-network', 'cilium'], calicoCidrs: async () => ['10.4.0.0/16'] },
      ['10.4.0.0/16'],
      ['10.96.0.0/12'],
    ],
    [
      'auto finds flannel',
      'auto',
      { ...manager, cniNetworks: async () => ['flannel'] },
      ['10.1.0.0/16'],
      ['10.2.0.0/16'],
    ],
    [
      'V00004 Cilium, pool of the cluster',
      'cilium',
      {
        ...kubeadm,
        ciliumConfig: async () => ({ ipam: 'cluster-pool', 'cluster-pool-ipv4-cidr': '10.5.0.0/16 10.6.0.0/16' }),
      },
      ['10.5.0.0/16', '10.6.0.0/16'],
      ['10.96.0.0/12'],
    ],
    [
      'V00004 Cilium, several pools',
      'cilium',
      { ...kubeadm, ciliumConfig: async () => ({ ipam: 'multi-pool' }), ciliumPoolCidrs: async () => ['10.7.0.0/16'] },
      ['10.7.0.0/16'],
      ['10.96.0.0/12'],
    ],
    [
      'V00004 Cilium, of Kubernetes',
      'cilium',
      { ...manager, ciliumConfig: async () => ({ ipam: 'kubernetes' }) },
      ['10.1.0.0/16'],
      ['10.2.0.0/16'],
    ],
  ] as const) {
    it(what, async () => {
      const status = await coordinatorStatus(type, {}, sources);
      assert.deepEqual(status, { phase: 'Synced', overlayPodCIDR: [...pod], serviceCIDR: [...service] });
    });
  }

  for (const type of ['cluster', 'calico', 'cilium']) {
    it(`V00006 V00011 ${type} without its source is NotReady, empty, and says why`, async () => {
      const status = await coordinatorStatus(type, {}, nothing);
      assert.deepEqual([status.phase, status.overlayPodCIDR, status.serviceCIDR], ['NotReady', [], []]);
      assert.ok((status.reason ?? '').length > 10);
    });
  }

  it('lets pods start without the CIDRs of services, and says that they are missing', async () => {
    const status = await coordinatorStatus('none', {}, nothing);
    assert.equal(status.phase, 'Synced');
    assert.match(status.reason ?? '', /CIDRs of services.*sluice\.io\/service-cidr/);
  });

  it('takes what an operator sets by hand before everything else', async () => {
    const annotations = {
      'sluice.io/overlay-pod-cidr': '10.8.1.1/16',
      'sluice.io/service-cidr': '10.9.0.0/16, fd02::/112',
    };
    const status = await coordinatorStatus('calico', annotations, nothing);
    const expected = { overlayPodCIDR: ['10.8.0.0/16'], serviceCIDR: ['10.9.0.0/16', 'fd02::/112'] };
    assert.deepEqual(status, { phase: 'Synced', ...expected });
    const bad = await coordinatorStatus('none', { 'sluice.io/overlay-pod-cidr': 'x' }, nothing);
    assert.deepEqual([bad.phase, bad.reason], ['NotReady', '"x" is not a CIDR']);
  });
});
