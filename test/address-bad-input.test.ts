/**
 * Wrong manifests and annotations of addresses and interfaces. Each is answered with the object, the field, the reason and what to do
 * instead, and changes nothing for pods that have their addresses. The rules that webhook.test.ts asks for one by one are not here again.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import type { SpiderSubnet } from '../src/api/spidersubnet.ts';
import { IpamTestApi } from '../src/cni/ipam-test-api.ts';
import { AdmissionClaims } from '../src/controller/admission-claims.ts';
import { parseAdmissionReview, type AdmissionResponse } from '../src/controller/admission.ts';
import { webhookHandlers } from '../src/controller/webhook-handlers.ts';
import { systemClock } from '../src/core/clock.ts';

const taken: SpiderSubnet = { metadata: { name: 'taken' }, spec: { ipVersion: 4, subnet: '10.8.0.0/16' } };
const pool: SpiderIPPool = {
  metadata: { name: 'inner' },
  spec: { ipVersion: 4, subnet: '10.9.1.0/24', ips: ['10.9.1.1'] },
};
const handlers = webhookHandlers({
  listPools: async () => [pool],
  listSubnets: async () => [taken],
  readAttachment: async () => undefined,
  claims: new AdmissionClaims(
    { read: async () => ({ claims: [], version: undefined }), write: async () => undefined },
    systemClock,
  ),
});
const reviewers = {
  SpiderIPPool: handlers.validatePool,
  SpiderSubnet: handlers.validateSubnet,
  SpiderReservedIP: handlers.validateReservedIp,
  SpiderCoordinator: handlers.validateCoordinator,
  SpiderMultusConfig: handlers.validateMultusConfig,
} as const;
type Kind = keyof typeof reviewers;

/** Without defaulting: it has nothing to add here. */
async function admit(
  kind: Kind,
  spec: object,
  annotations: Readonly<Record<string, string>>,
): Promise<AdmissionResponse> {
  const object = { metadata: { name: 'bad', namespace: 'kube-system', annotations }, spec };
  const request = {
    ...{ uid: 'r', operation: 'CREATE', object, oldObject: null },
    kind: { group: 'spiderpool.spidernet.io', version: 'v2beta1', kind },
  };
  const review = parseAdmissionReview({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request });
  assert.ok(review !== undefined);
  return reviewers[kind](review);
}

const set = { ipVersion: 4, subnet: '10.0.0.0/16', ips: ['10.0.0.10-10.0.0.20'] };
const cluster = { podCIDRType: 'cluster' };
const macvlan = (block: object): object => ({ cniType: 'macvlan', macvlan: { master: ['eth1'], ...block } });
const chained = (...chainCNIJsonData: string[]): object => ({ ...macvlan({}), chainCNIJsonData });
const inject = 'cni.spidernet.io/rdma-resource-inject';

/** What is wrong, the manifest, the field that the answer names, and the remedy in it. */
const manifests: readonly (readonly [string, Kind, object, string, RegExp, Readonly<Record<string, string>>?])[] = [
  [
    'an excluded range that is none',
    'SpiderIPPool',
    { ...set, excludeIPs: ['10.0.0.x'] },
    'spec.excludeIPs[0]',
    /write a/,
  ],
  [
    'an excluded address outside',
    'SpiderIPPool',
    { ...set, excludeIPs: ['10.1.0.1'] },
    'spec.excludeIPs[0]',
    /must lie/,
  ],
  ['a range of the other family', 'SpiderIPPool', { ...set, ips: ['fd00::1'] }, 'spec.ips[0]', /must lie inside/],
  ['a range twice', 'SpiderIPPool', { ...set, ips: ['10.0.0.1-10.0.0.9', '10.0.0.5'] }, 'spec.ips[1]', /remove it/],
  ['a gateway that is no address', 'SpiderIPPool', { ...set, gateway: 'x' }, 'spec.gateway', /write it like/],
  [
    'a destination that is none',
    'SpiderIPPool',
    { ...set, routes: [{ dst: 'x', gw: '10.0.0.1' }] },
    'spec.routes[0].dst',
    /as 10/,
  ],
  [
    'a way that is none',
    'SpiderIPPool',
    { ...set, routes: [{ dst: '10.9.0.0/16', gw: 'x' }] },
    'spec.routes[0].gw',
    /like/,
  ],
  [
    'a label key with a space',
    'SpiderIPPool',
    { ...set, podAffinity: { matchLabels: { 'a b': 'c' } } },
    'spec.podAffinity.matchLabels',
    /must|letters/,
  ],
  [
    'In without values',
    'SpiderIPPool',
    { ...set, nodeAffinity: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
    'spec.nodeAffinity.matchExpressions[0].values',
    /must be specified/,
  ],
  ['a pool of a part of a subnet', 'SpiderIPPool', { ...set, subnet: '10.8.1.0/24', ips: [] }, 'spec.subnet', /subnet/],

  ['a subnet that is no CIDR', 'SpiderSubnet', { ipVersion: 4, subnet: '10.0.0.0' }, 'spec.subnet', /write it as/],
  [
    'a subnet of the other family',
    'SpiderSubnet',
    { ipVersion: 6, subnet: '10.0.0.0/16' },
    'spec.subnet',
    /write it as/,
  ],
  [
    'a subnet that is there',
    'SpiderSubnet',
    { ipVersion: 4, subnet: '10.8.0.0/16' },
    'spec.subnet',
    /choose a subnet outside/,
  ],
  [
    'a part of a subnet',
    'SpiderSubnet',
    { ipVersion: 4, subnet: '10.8.1.0/24' },
    'spec.subnet',
    /choose a subnet outside/,
  ],
  [
    'a subnet around that of a pool',
    'SpiderSubnet',
    { ipVersion: 4, subnet: '10.9.0.0/16' },
    'spec.subnet',
    /use exactly that/,
  ],
  [
    'a subnet without the addresses of its pool',
    'SpiderSubnet',
    { ipVersion: 4, subnet: '10.9.1.0/24', ips: ['10.9.1.2'] },
    'spec.ips',
    /add \[10\.9\.1\.1\] here/,
  ],
  ['a range outside', 'SpiderSubnet', { ...set, ips: ['10.1.0.1'] }, 'spec.ips[0]', /must lie inside/],
  [
    'a gateway outside',
    'SpiderSubnet',
    { ...set, gateway: '10.1.0.1' },
    'spec.gateway',
    /use an address of that subnet/,
  ],

  ['no addresses by which to know the version', 'SpiderReservedIP', {}, 'spec.ipVersion', /write an address/],
  ['an unknown version', 'SpiderReservedIP', { ipVersion: 5, ips: ['10.0.0.1'] }, 'spec.ipVersion', /supported values/],
  ['a CIDR', 'SpiderReservedIP', { ipVersion: 4, ips: ['10.0.0.0/24'] }, 'spec.ips[0]', /write a single address A or/],
  [
    'a reversed range',
    'SpiderReservedIP',
    { ipVersion: 4, ips: ['10.0.0.9-10.0.0.1'] },
    'spec.ips[0]',
    /A not after B/,
  ],
  ['both families', 'SpiderReservedIP', { ipVersion: 4, ips: ['10.0.0.1', 'fd00::1'] }, 'spec.ips[1]', /in another/],

  ['no source', 'SpiderCoordinator', {}, 'spec.podCIDRType', /one of auto, cluster/],
  ['an unknown source', 'SpiderCoordinator', { podCIDRType: 'weave' }, 'spec.podCIDRType', /supported values/],
  ['an unknown mode', 'SpiderCoordinator', { ...cluster, mode: 'overlap' }, 'spec.mode', /supported values/],
  ['a hijacked name', 'SpiderCoordinator', { ...cluster, hijackCIDR: ['dns'] }, 'spec.hijackCIDR[0]', /must be an IP/],
  [
    'a policy route to a name',
    'SpiderCoordinator',
    { ...cluster, policyRoutes: [{ dst: 'x', gw: '10.0.0.1' }] },
    'spec.policyRoutes[0].dst',
    /must be an IP/,
  ],
  [
    'a policy route via a name',
    'SpiderCoordinator',
    { ...cluster, policyRoutes: [{ dst: '10.0.0.0/8', gw: 'x' }] },
    'spec.policyRoutes[0].gw',
    /must be an IP/,
  ],
  [
    'a link address that is none',
    'SpiderCoordinator',
    { ...cluster, vethLinkAddress: '169.254.1' },
    'spec.vethLinkAddress',
    /such as/,
  ],
  ['a negative queue', 'SpiderCoordinator', { ...cluster, txQueueLen: -1 }, 'spec.txQueueLen', /must be 0 or more/],
  [
    'a reverse-path check of 3',
    'SpiderCoordinator',
    { ...cluster, podRPFilter: 3 },
    'spec.podRPFilter',
    /must be 0, 1, 2/,
  ],
  [
    'a MAC prefix that is none',
    'SpiderCoordinator',
    { ...cluster, podMACPrefix: '0a1b' },
    'spec.podMACPrefix',
    /such as 0a:1b/,
  ],

  ['a negative MTU', 'SpiderMultusConfig', macvlan({ mtu: -1 }), 'spec.macvlan.mtu', /must be 0/],
  [
    'a bond without a name',
    'SpiderMultusConfig',
    macvlan({ master: ['a', 'b'], bond: { name: '', mode: 1 } }),
    'spec.macvlan.bond.name',
    /name the bond/,
  ],
  [
    'an unknown mode of VLAN',
    'SpiderMultusConfig',
    { cniType: 'vlan', vlan: { master: ['a'], vlanMode: 'any' } },
    'spec.vlan.vlanMode',
    /supported/,
  ],
  [
    'no resource',
    'SpiderMultusConfig',
    { cniType: 'sriov', sriov: { resourceName: '' } },
    'spec.sriov.resourceName',
    /name what the device plugin offers/,
  ],
  [
    'a lowest rate above the highest',
    'SpiderMultusConfig',
    { cniType: 'sriov', sriov: { resourceName: 'r', minTxRateMbps: 9, maxTxRateMbps: 8 } },
    'spec.sriov.minTxRateMbps',
    /lower it/,
  ],
  [
    'no parent',
    'SpiderMultusConfig',
    { cniType: 'ipoib', ipoib: { master: '' } },
    'spec.ipoib.master',
    /name the IPoIB interface/,
  ],
  [
    'no bridge',
    'SpiderMultusConfig',
    { cniType: 'ovs', ovs: { bridge: '' } },
    'spec.ovs.bridge',
    /name the Open vSwitch bridge/,
  ],
  [
    'a trunk backwards',
    'SpiderMultusConfig',
    { cniType: 'ovs', ovs: { bridge: 'b', trunk: [{ minID: 9, maxID: 8 }] } },
    'spec.ovs.trunk[0].minID',
    /must not exceed/,
  ],
  [
    'a trunk of 4096',
    'SpiderMultusConfig',
    { cniType: 'ovs', ovs: { bridge: 'b', trunk: [{ id: 4096 }] } },
    'spec.ovs.trunk[0].id',
    /range of 0 to 4094/,
  ],
  [
    'a chain that is no JSON',
    'SpiderMultusConfig',
    chained('{"type":"sluice"}', '{'),
    'spec.chainCNIJsonData[1]',
    /must be a JSON object/,
  ],
  ['a chain in a list', 'SpiderMultusConfig', chained('[{"type":"sluice"}]'), 'spec.chainCNIJsonData[0]', /such as/],
  [
    'injection without a resource',
    'SpiderMultusConfig',
    macvlan({}),
    `metadata.annotations[${inject}]`,
    /set spec/,
    { [inject]: 'x' },
  ],
];

describe('a wrong manifest', () => {
  for (const [what, kind, spec, field, remedy, annotations = {}] of manifests) {
    it(`${kind} with ${what} is refused at ${field}`, async () => {
      const { allowed, status } = await admit(kind, spec, annotations);
      assert.equal(allowed, false);
      assert.ok(status !== undefined);
      assert.ok(status.message.startsWith(`${kind} "bad" is invalid: `), status.message);
      const cause = status.details?.causes.find((one) => one.field === field);
      assert.ok(cause !== undefined, `names ${JSON.stringify(status.details?.causes)}`);
      assert.match(cause.reason, /^FieldValue/);
      assert.match(cause.message, remedy);
    });
  }
});

const [ippool, ippools, routes, namespaceDefault] = [
  'ipam.spidernet.io/ippool',
  'ipam.spidernet.io/ippools',
  'ipam.spidernet.io/routes',
  'ipam.spidernet.io/default-ipv4-ippool',
];
const wrongAnnotations: readonly (readonly [string, string, RegExp])[] = [
  [ippool, '{', /JSON/],
  [ippool, '["p"]', /expected object/],
  [ippool, '{"ipv4":"p"}', /ipv4 .*expected array/],
  [ippool, '{"ipv4":[""]}', /ipv4\.0/],
  [ippool, '{"ipv4":["p","p"]}', /duplicate IPPool p/],
  [ippool, '{"ipv4":["nowhere"]}', /nowhere.*not found/],
  [ippool, '{"ipv4":["p-["]}', /p-\[/],
  [ippools, '[]', /at least one item/],
  [ippools, '[{"interface":"eth0","ipv4":["p"]},{"ipv4":["p"]}]', /all specified or all unspecified/],
  [ippools, '[{"interface":"eth0","ipv4":["p"]},{"interface":"eth0","ipv4":["p"]}]', /duplicate interface eth0/],
  [ippools, '[{"interface":"net1","ipv4":["p"]}]', /interface eth0 must be specified/],
  [ippools, '[{"ipv4":["p"],"cleangateway":"yes"}]', /cleangateway .*expected boolean/],
  [routes, 'default', /JSON/],
  [routes, '[{"dst":"10.9.0.0/16"}]', /0\.gw/],
  [routes, '[{"dst":"nothing","gw":"10.0.0.1"}]', /0\.dst .*CIDR/],
  [routes, '[{"dst":"10.9.0.0/16","gw":"10.0.0.256"}]', /0\.gw .*address/],
  [routes, '[{"dst":"fd01::/64","gw":"10.0.0.1"}]', /same IP family/],
  [namespaceDefault, 'p', /JSON/],
  [namespaceDefault, '{"ipv4":["p"]}', /expected array/],
];

describe('a wrong annotation', () => {
  for (const [key, value, message] of wrongAnnotations) {
    it(`${key}: ${value} fails the ADD, says what to correct, and takes no address`, async () => {
      const api = new IpamTestApi();
      api.addPool('p', { ipVersion: 4, subnet: '10.0.0.0/24', ips: ['10.0.0.10-10.0.0.19'] });
      api.addPod('old');
      await api.agent()('ADD', 'old', { pools4: ['p'] });
      const before = api.records('p');
      const isOfNamespace = key === namespaceDefault;
      if (isOfNamespace) api.namespaces.set('default', { labels: {}, annotations: { [key]: value } });
      api.addPod('new', isOfNamespace ? {} : { annotations: { [key]: value } });
      await assert.rejects(api.agent()('ADD', 'new', { pools4: ['p'] }), (error) => {
        assert.ok(error instanceof Error);
        assert.match(error.message, message);
        assert.match(error.message, /\((correct|create) the /);
        if (key !== ippool) assert.ok(error.message.includes(key), error.message);
        return true;
      });
      assert.deepEqual(api.records('p'), before, 'the pod that was there has its address, the other has none');
    });
  }

  it('are, with the wrong manifests, more than 60', () => {
    assert.ok(manifests.length + wrongAnnotations.length > 60);
  });
});
