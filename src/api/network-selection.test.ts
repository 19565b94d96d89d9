import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SluiceError } from '../core/error.ts';
import { additionalNetworks, defaultNetwork, type NamedSelection } from './network-selection.ts';

const networks = (text: string | undefined): NamedSelection[] =>
  additionalNetworks({
    namespace: 'demo',
    name: 'web',
    annotations: text === undefined ? undefined : { 'k8s.v1.cni.cncf.io/networks': text },
  });
const onEth0 = (text: string): NamedSelection | undefined =>
  defaultNetwork(
    { namespace: 'demo', name: 'web', annotations: { 'v1.multus-cni.io/default-network': text } },
    'kube-system',
  );
const short = (selections: readonly NamedSelection[]): string[] =>
  selections.map((each) => `${each.namespace}/${each.name}@${each.interface}`);

describe("a pod's additional networks", () => {
  it('are none without the annotation, or with an empty one', () => {
    for (const text of [undefined, '', '  ']) assert.deepEqual(networks(text), []);
  });

  it('are a comma list, called after their place, in the namespace of the pod', () => {
    assert.deepEqual(short(networks('a, other/b@x1 ,c')), ['demo/a@net1', 'other/b@x1', 'demo/c@net3']);
  });

  const elements = [
    { name: 'a', interface: 'eth1', ips: ['10.0.0.5/24', 'fd00::5'], mac: '0a:1b:2c:3d:4e:5f' },
    { name: 'b', namespace: 'other', bandwidth: { ingressRate: 1000000, ingressBurst: 1000 } },
    { name: 'c', 'default-route': ['10.0.0.1', 'fd00::1'], 'cni-args': { key: [1] }, unknown: true },
  ];
  for (const [caseId, indent] of [
    ['M00036 compact', undefined],
    ['M00037 pretty-printed', 2],
  ] as const) {
    it(`are JSON (${caseId})`, () => {
      const [a, b, c] = networks(JSON.stringify(elements, undefined, indent));
      assert.deepEqual(short([a, b, c].filter((each) => each !== undefined)), [
        'demo/a@eth1',
        'other/b@net2',
        'demo/c@net3',
      ]);
      assert.deepEqual([a?.ips, a?.mac], [['10.0.0.5/24', 'fd00::5'], '0a:1b:2c:3d:4e:5f']);
      assert.deepEqual(b?.bandwidth, { ingressRate: 1000000, ingressBurst: 1000 });
      assert.deepEqual([c?.defaultRoute, c?.cniArgs], [['10.0.0.1', 'fd00::1'], { key: [1] }]);
    });
  }

  for (const [text, message] of [
    ['a/b/c', /element 1: "a\/b\/c" is not \[namespace\/\]name/],
    ['a,', /element 2, name: "" is not a NetworkAttachmentDefinition's name/],
    ['A_b', /"A_b" is not a Network/],
    ['a@b@c', /"a@b@c" is not/],
    ['a@interface-name-too-long', /"interface-name-too-long" is not an interface's name/],
    ['a@x/y', /"x\/y" is not an interface's name|"a@x\/y" is not/],
    ['a@eth0', /interface: "eth0" is used twice/],
    ['a@net2,b', /interface: "net2" is used twice/],
    ['[{"name":"a"}', /it is not JSON/],
    ['{"name":"a"}', /expected array/],
    ['[{"namespace":"x"}]', /\[0\]\.name: /],
    ['[{"name":"a","ips":["10.0.0.300"]}]', /\[0\]\.ips\[0\]: "10\.0\.0\.300" is not an IP/],
    ['[{"name":"a","mac":"zz"}]', /\[0\]\.mac: "zz" is not a MAC/],
    ['[{"name":"a","bandwidth":{"ingressRate":"1M"}}]', /\[0\]\.bandwidth\.ingressRate: /],
    ['[{"name":"a","default-route":["10.0.0.0/8"]}]', /\[0\]\.default-route\[0\]: "10\.0\.0\.0\/8" is not an IP/],
    [
      '[{"name":"a","default-route":["10.0.0.1"]},{"name":"b","default-route":["10.0.0.2"]}]',
      /default-route: there are several IPv4 gateways/,
    ],
  ] as const) {
    it(`refuses ${text}`, () => {
      assert.throws(
        () => networks(text),
        (error) => {
          assert.ok(error instanceof SluiceError);
          assert.match(error.message, /annotation k8s\.v1\.cni\.cncf\.io\/networks of pod demo\/web/);
          assert.match(error.message, message);
          assert.ok((error.remedy ?? '').length > 0);
          return true;
        },
      );
    });
  }
});

describe('the default network', () => {
  it("is looked up in Multus' namespace", () => {
    assert.deepEqual(short([onEth0('ipvlan-conf') ?? assert.fail()]), ['kube-system/ipvlan-conf@eth0']);
    assert.deepEqual(short([onEth0('a/b@eth0') ?? assert.fail()]), ['a/b@eth0']);
    assert.equal(onEth0('[{"name":"a","mac":"0a:1b:2c:3d:4e:5f"}]')?.mac, '0a:1b:2c:3d:4e:5f');
    assert.equal(onEth0(''), undefined);
  });

  it('is one, on eth0', () => {
    assert.throws(() => onEth0('a,b'), /names 2 networks/);
    assert.throws(() => onEth0('[]'), /names 0 networks/);
    assert.throws(() => onEth0('a@net1'), /"net1" is asked for, but the default network's interface is eth0/);
  });
});
