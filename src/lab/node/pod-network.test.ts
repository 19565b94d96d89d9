import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SluiceError } from '../../core/error.ts';
import { missingAttachment, selectAttachments } from './attachment.ts';
import type { CniAttachmentRequest } from './cni-runner.ts';
import { networkStatusText } from './network-status.ts';
import type { KubeletApi, NetworkAttachmentDefinition, Pod } from './pod-api.ts';
import { detachAll, planNetworks } from './pod-network.ts';
import type { NetworkRecord, SandboxRecord } from './pod-record.ts';

const annotated = (annotations: Record<string, string>) => ({ namespace: 'demo', name: 'web-1', annotations });
const podWith = (annotations: Record<string, string>): Pod => ({
  metadata: { name: 'web-1', namespace: 'demo', uid: 'u1', annotations },
  spec: { containers: [] },
});
const sandbox: SandboxRecord = { id: 'c1', netns: '/run/netns/x', hostNetwork: false, hostPid: false };

describe('choosing the attachments', () => {
  const select = (annotations: Record<string, string>): string[] =>
    selectAttachments(annotated(annotations)).map((each) => `${each.namespace}/${each.name}@${each.interface}`);

  it('takes the default network, another one in its place, and others beside it', () => {
    assert.deepEqual(select({}), ['kube-system/default@eth0']);
    assert.deepEqual(
      select({ 'v1.multus-cni.io/default-network': 'ipvlan-conf', 'k8s.v1.cni.cncf.io/networks': 'a, x/b@dmz' }),
      ['kube-system/ipvlan-conf@eth0', 'demo/a@net1', 'x/b@dmz'],
    );
  });

  it('says what exists when the wanted one does not', () => {
    const pod = annotated({ 'v1.multus-cni.io/default-network': 'kube-system/ipvlan' });
    const wanted = { namespace: 'kube-system', name: 'ipvlan', interface: 'eth0' };
    const error = missingAttachment(pod, wanted, [{ namespace: 'kube-system', name: 'ipvlan-conf' }]);
    assert.match(
      error.message,
      /pod demo\/web-1.*default-network="kube-system\/ipvlan".*these exist: kube-system\/ipvlan-conf/,
    );
    assert.match(error.remedy ?? '', /correct the annotation/);
  });
});

describe('planning networks', () => {
  const attachments: Record<string, object> = {
    'kube-system/default': { cniVersion: '1.0.0', name: 'd', type: 'macvlan' },
    'demo/a': { cniVersion: '1.0.0', name: 'a', plugins: [{ type: 'macvlan', args: { cni: { kept: 1 }, other: 2 } }] },
  };
  const api = {
    getAttachment: (namespace: string, name: string) => {
      const config = attachments[`${namespace}/${name}`];
      const found = config && { metadata: { namespace, name }, spec: { config: JSON.stringify(config) } };
      return Promise.resolve<NetworkAttachmentDefinition | undefined>(found);
    },
    listAttachments: () => Promise.resolve([]),
  } as unknown as KubeletApi;

  it('hands what a selection asks for to its own network only', async () => {
    const selection = {
      name: 'a',
      ips: ['10.0.0.5/24'],
      mac: '0a:1b:2c:3d:4e:5f',
      bandwidth: { egressRate: 1_000_000 },
      'cni-args': { color: 'blue' },
      'default-route': ['10.0.0.1'],
    };
    const annotations = {
      'k8s.v1.cni.cncf.io/networks': JSON.stringify([selection]),
      'kubernetes.io/egress-bandwidth': '5M',
    };
    const [first, second] = await planNetworks(podWith(annotations), 'c1', api);
    assert.deepEqual(first?.runtime, { bandwidth: { egressRate: 5_000_000, egressBurst: 4_294_967_295 } });
    assert.equal(first.defaultRoute, undefined);
    assert.deepEqual(second?.runtime, {
      ips: ['10.0.0.5/24'],
      mac: '0a:1b:2c:3d:4e:5f',
      bandwidth: { egressRate: 1_000_000 },
    });
    assert.deepEqual(second.list.plugins[0]?.['args'], { cni: { kept: 1, color: 'blue' }, other: 2 });
    assert.deepEqual([second.interface, second.attachment, second.defaultRoute], ['net1', 'demo/a', ['10.0.0.1']]);
  });

  it('fails before the first ADD when a later network does not exist', async () => {
    const planned = planNetworks(podWith({ 'k8s.v1.cni.cncf.io/networks': 'a,b' }), 'c1', api);
    await assert.rejects(planned, /annotation k8s\.v1\.cni\.cncf\.io\/networks="a,b": .* demo\/b does not exist/);
  });
});

const network = (name: string, result?: unknown): NetworkRecord => ({
  attachment: `demo/${name}`,
  interface: name,
  list: { cniVersion: '1.0.0', name, disableCheck: false, plugins: [{ type: 'x' }] },
  args: {},
  runtime: {},
  ...(result === undefined ? {} : { result }),
});

describe('detaching', () => {
  it('goes backwards, passes results on, tries all, and keeps what failed', async () => {
    const calls: unknown[] = [];
    let isBroken = true;
    const runner = {
      del: (_: unknown, request: CniAttachmentRequest, cached: unknown) => {
        calls.push([request.ifName, cached]);
        if (request.ifName !== 'net1' || !isBroken) return Promise.resolve();
        return Promise.reject(
          new SluiceError({ code: 'cni_failed', operation: 'run', object: 'net1', what: 'broken' }),
        );
      },
    };
    let left: readonly NetworkRecord[] = [network('eth0', { n: 0 }), network('net1', { n: 1 }), network('net2')];
    const run = (): Promise<void> => detachAll(runner, sandbox, left, (now) => (left = now));
    await assert.rejects(run(), /broken/);
    assert.deepEqual(calls, [
      ['net2', undefined],
      ['net1', { n: 1 }],
      ['eth0', { n: 0 }],
    ]);
    assert.deepEqual(
      left.map((each) => each.interface),
      ['net1'],
    );
    isBroken = false;
    await run();
    assert.deepEqual(left, []);
  });
});

describe('the network-status annotation', () => {
  it('is laid out as Multus writes it', () => {
    const result = {
      interfaces: [{ name: 'vethx' }, { name: 'eth0', mac: '0a:00:00:00:00:01', sandbox: '/run/netns/x' }],
      ips: [{ address: '10.0.0.5/24', gateway: '10.0.0.1' }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.0.0.1' }, { dst: '10.9.0.0/16' }],
      dns: { nameservers: [] },
    };
    assert.equal(
      networkStatusText([network('eth0', result), network('net1', {})]),
      `[{
    "name": "demo/eth0",
    "interface": "eth0",
    "ips": [
        "10.0.0.5"
    ],
    "mac": "0a:00:00:00:00:01",
    "default": true,
    "dns": {},
    "gateway": [
        "10.0.0.1"
    ]
},{
    "name": "demo/net1",
    "interface": "net1",
    "dns": {}
}]`,
    );
  });
});
