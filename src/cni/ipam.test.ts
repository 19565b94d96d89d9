import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PoolSpec } from '../api/spiderippool.ts';
import { parseIp, type IpAddress } from '../core/ip.ts';
import type { KnownAttachment } from './ipam-deps.ts';
import { physicalFunctionOf } from './physical-function.ts';
import { IpamTestApi } from './ipam-test-api.ts';

const walkthrough: PoolSpec = {
  ipVersion: 4,
  subnet: '172.51.0.0/16',
  ips: ['172.51.0.100-172.51.0.108'],
  gateway: '172.51.0.1',
};

function walkthroughApi(): IpamTestApi {
  const api = new IpamTestApi();
  api.addPool('ens192-v4', walkthrough);
  return api;
}

function ipv4(text: string): IpAddress {
  const address = parseIp(text);
  assert.ok(address);
  return address;
}

const pools4 = ['ens192-v4'];

describe('spiderpool ADD', () => {
  it('answers the address with the length of the subnet, the gateway and a default route', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const result = await api.agent()('ADD', 'a', { pools4 });
    assert.deepEqual(result?.ips, [{ address: '172.51.0.100/16', gateway: '172.51.0.1' }]);
    assert.deepEqual(result.routes, [{ dst: '0.0.0.0/0', gw: '172.51.0.1' }]);
    assert.equal(
      api.pools.get('ens192-v4')?.status?.allocatedIPs,
      '{"172.51.0.100":{"pod":"default/a","podUid":"uid-a"}}',
    );
  });

  it('answers the same address again, also from an agent that knows nothing', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const first = await api.agent()('ADD', 'a', { pools4 });
    const second = await api.agent()('ADD', 'a', { pools4, containerId: 'another' });
    assert.deepEqual(second, first);
    assert.equal(api.writes, 1);
  });

  it('gives two interfaces of a pod two addresses of one pool', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const agent = api.agent();
    await agent('ADD', 'a', { pools4 });
    await agent('ADD', 'a', { pools4, ifName: 'net1' });
    assert.deepEqual(api.records('ens192-v4'), { '172.51.0.100': 'default/a eth0', '172.51.0.101': 'default/a net1' });
  });

  it('gives back the first family when the second has no address', async () => {
    const api = walkthroughApi();
    api.addPool('v6', { ipVersion: 6, subnet: 'fd00::/64', ips: [] });
    api.addPod('a');
    await assert.rejects(api.agent()('ADD', 'a', { pools4, pools6: ['v6'] }), /all IP addresses used out/);
    assert.deepEqual(api.records('ens192-v4'), {});
  });

  it('tries the next pool when the first is full, and says so when all are', async () => {
    const api = new IpamTestApi();
    for (const n of [1, 2]) api.addPool(`p${n}`, { ipVersion: 4, subnet: '10.0.0.0/24', ips: [`10.0.0.${n}`] });
    for (const pod of ['a', 'b', 'c']) api.addPod(pod);
    const agent = api.agent();
    for (const pod of ['a', 'b']) await agent('ADD', pod, { pools4: ['p1', 'p2'] });
    assert.deepEqual(api.records('p2'), { '10.0.0.2': 'default/b eth0' });
    await assert.rejects(agent('ADD', 'c', { pools4: ['p1', 'p2'] }), (error: Error) => {
      assert.match(error.message, /failed to allocate any IPv4 IP address to NIC eth0 from IPPools \[p1 p2\]/);
      assert.match(error.message, /SpiderIPPool p1: all IP addresses used out/);
      assert.match(error.message, /add addresses to spec\.ips/);
      return true;
    });
  });

  it('takes, with matchMasterSubnet, the pool of the physical function, and none without one', async () => {
    const api = new IpamTestApi();
    for (const n of [1, 2]) api.addPool(`rail${n}`, { ipVersion: 4, subnet: `10.${n}.0.0/16`, ips: [`10.${n}.0.9`] });
    api.addPod('a');
    const ask = { pools4: ['rail*'], matchMasterSubnet: true, netns: '/run/netns/of-the-pod' };
    const found = api.agent({
      deps: {
        physicalFunctionOf: ({ netns, ifName }) => {
          assert.deepEqual([netns, ifName], ['/run/netns/of-the-pod', 'eth0']);
          return { name: 'ens1f0', addresses: [ipv4('10.2.0.5')] };
        },
      },
    });
    assert.deepEqual((await found('ADD', 'a', ask))?.ips, [{ address: '10.2.0.9/16' }]);
    assert.deepEqual(api.records('rail1'), {});

    api.addPod('b');
    const elsewhere = api.agent({
      deps: { physicalFunctionOf: () => ({ name: 'ens1f1', addresses: [ipv4('10.3.0.5')] }) },
    });
    await assert.rejects(elsewhere('ADD', 'b', ask), (error: Error) => {
      assert.match(error.message, /all IPv4 IPPools \[rail1 rail2\] of eth0 filtered out/);
      assert.match(
        error.message,
        /subnet 10\.1\.0\.0\/16 of IPPool rail1 contains no address of ens1f1 \(10\.3\.0\.5\)/,
      );
      assert.match(error.message, /with matchMasterSubnet, a pool of the subnet that ens1f1 of this node is in/);
      return true;
    });
    const without = api.agent({
      deps: { physicalFunctionOf: (vf) => physicalFunctionOf({ ...vf, config: { ...vf.config, deviceID: 'eth0' } }) },
    });
    await assert.rejects(without('ADD', 'b', ask), /match_master_subnet.*device eth0 is no PCI device.*resourceName/s);
    assert.deepEqual(api.records('rail2'), { '10.2.0.9': 'default/a eth0' });
  });

  it('believes "full" only of the pool as the API server has it', async () => {
    const api = new IpamTestApi();
    api.addPool('p', { ipVersion: 4, subnet: '10.0.0.0/24', ips: ['10.0.0.1'] });
    for (const pod of ['a', 'b']) api.addPod(pod);
    const agent = api.agent();
    await agent('ADD', 'a', { pools4: ['p'] });
    const full = [...api.pools.values()];
    await agent('DEL', 'a');
    const behind = api.agent({ cached: full });
    assert.deepEqual((await behind('ADD', 'b', { pools4: ['p'] }))?.ips, [{ address: '10.0.0.1/24' }]);
  });

  for (const [what, annotations, conf, message] of [
    ['a missing pool', {}, ['nope'], /failed to get original IPPool nope: .*not found.*create the SpiderIPPool nope/],
    ['no pool at all', {}, undefined, /no IPPool available, no pool selection rules of any type are specified/],
    [
      'a disabled pool',
      {},
      ['off'],
      /no IPPool available, all IPv4 IPPools \[off\] of eth0 filtered out: \[disabled IPPool off\]/,
    ],
    [
      'a malformed annotation',
      { 'ipam.spidernet.io/ippool': '{' },
      pools4,
      /wrong input, invalid format of Pod annotation 'ipam.spidernet.io\/ippool'/,
    ],
    [
      'a pool of the wrong family',
      { 'ipam.spidernet.io/ippool': '{"ipv6":["ens192-v4"]}' },
      undefined,
      /no IPPool available/,
    ],
    ['a wildcard without a match', {}, ['x*'], /no IPPool available/],
    ['a pool named twice', {}, ['ens192-v4', 'ens192-v4'], /wrong input, duplicate IPPool ens192-v4/],
  ] as const) {
    it(`names ${what}`, async () => {
      const api = walkthroughApi();
      api.addPool('off', { ipVersion: 4, subnet: '10.9.0.0/24', ips: ['10.9.0.1'], disable: true });
      api.addPod('a', { annotations });
      await assert.rejects(api.agent()('ADD', 'a', conf ? { pools4: [...conf] } : {}), message);
      assert.deepEqual(api.records('ens192-v4'), {});
    });
  }

  it('refuses a pod that is going', async () => {
    const api = walkthroughApi();
    api.addPod('a', { deletionTimestamp: '2026-01-01T00:00:00Z' });
    await assert.rejects(api.agent()('ADD', 'a', { pools4 }), /dead Pod default\/a/);
  });

  it('leaves addresses of an older overlapping pool alone', async () => {
    const api = walkthroughApi();
    api.addPool('young', { ipVersion: 4, subnet: '172.51.0.0/16', ips: ['172.51.0.108-172.51.0.109'] });
    api.addPod('a');
    const result = await api.agent()('ADD', 'a', { pools4: ['young'] });
    assert.deepEqual(result?.ips, [{ address: '172.51.0.109/16' }]);
  });
});

describe('spiderpool under contention', () => {
  it('gives 4 agents with 20 pods each exactly the 80 addresses there are', async () => {
    const api = new IpamTestApi();
    api.addPool('p', { ipVersion: 4, subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.80'] });
    const agents = [1, 2, 3, 4].map((n) => api.agent({ node: `node${n}` }));
    const pods = Array.from({ length: 80 }, (_, n) => `pod${n}`);
    for (const pod of pods) api.addPod(pod);
    const results = await Promise.all(
      pods.map((pod, n) => (agents[n % 4] ?? assert.fail())('ADD', pod, { pools4: ['p'] })),
    );
    assert.equal(new Set(results.map((result) => result?.ips[0]?.address)).size, 80);
    assert.equal(Object.keys(api.records('p')).length, 80);
    assert.ok(api.conflicts > 0, 'the agents never met: the test shows nothing');
    assert.ok(api.writes < 40, `${api.writes} writes for 80 addresses: batches do not form`);
  });
});

describe('spiderpool DEL', () => {
  it('returns the address, and succeeds again', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const agent = api.agent();
    await agent('ADD', 'a', { pools4 });
    await agent('DEL', 'a');
    await agent('DEL', 'a');
    assert.deepEqual(api.records('ens192-v4'), {});
    assert.equal(api.pools.get('ens192-v4')?.status?.allocatedIPs, undefined);
    assert.equal(api.pools.get('ens192-v4')?.status?.allocatedIPCount, 0);
  });

  it('returns the address of a pod that is gone, from an agent that knows nothing', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    await api.agent()('ADD', 'a', { pools4 });
    api.pods.clear();
    await api.agent()('DEL', 'a');
    assert.deepEqual(api.records('ens192-v4'), {});
  });

  it("leaves the newer sandbox's address alone", async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const agent = api.agent();
    await agent('ADD', 'a', { pools4, containerId: 'old' });
    await agent('ADD', 'a', { pools4, containerId: 'new' });
    await agent('DEL', 'a', { containerId: 'old' });
    assert.deepEqual(Object.keys(api.records('ens192-v4')), ['172.51.0.100']);
    await agent('DEL', 'a', { containerId: 'new' });
    assert.deepEqual(api.records('ens192-v4'), {});
  });

  it('leaves a living pod its address when it cannot know the sandbox', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    await api.agent()('ADD', 'a', { pools4 });
    await api.agent()('DEL', 'a', { containerId: 'which' });
    assert.deepEqual(Object.keys(api.records('ens192-v4')), ['172.51.0.100']);
  });

  it('returns one interface only', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const agent = api.agent();
    for (const ifName of ['eth0', 'net1']) await agent('ADD', 'a', { pools4, ifName });
    await agent('DEL', 'a', { ifName: 'eth0' });
    assert.deepEqual(api.records('ens192-v4'), { '172.51.0.101': 'default/a net1' });
  });
});

describe('spiderpool CHECK and GC', () => {
  it('CHECK passes while the record is there and fails when it is gone', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    const agent = api.agent();
    const prevResult = await agent('ADD', 'a', { pools4 });
    const config = {
      cniVersion: '1.0.0',
      name: 'n',
      type: 'ipvlan',
      ipam: { type: 'spiderpool' },
      ...(prevResult ? { prevResult } : {}),
    } as const;
    await agent('CHECK', 'a', { config });
    await agent('DEL', 'a');
    await assert.rejects(agent('CHECK', 'a', { config }), /no pool has an address on record for Pod default\/a/);
  });

  it('GC returns what the runtime no longer lists, of this network only', async () => {
    const api = walkthroughApi();
    const attachments: KnownAttachment[] = [];
    const agent = api.agent({ attachments });
    for (const pod of ['kept', 'lost', 'other']) api.addPod(pod);
    await agent('ADD', 'kept', { pools4 });
    await agent('ADD', 'lost', { pools4 });
    const network = {
      cniVersion: '1.1.0',
      name: 'other-net',
      type: 'ipvlan',
      ipam: { type: 'spiderpool', default_ipv4_ippool: pools4 },
    } as const;
    await agent('ADD', 'other', { config: network });
    const config = {
      ...network,
      name: 'spidernet-chainer',
      'cni.dev/valid-attachments': [{ containerID: 'c-kept', ifname: 'eth0' }],
    };
    await agent('GC', '', { containerId: '', ifName: '', args: {}, config });
    assert.deepEqual(Object.values(api.records('ens192-v4')), ['default/kept eth0', 'default/other eth0']);
  });

  it('GC leaves everything alone when it cannot tell which pod a listed container is of', async () => {
    const api = walkthroughApi();
    api.addPod('a');
    await api.agent()('ADD', 'a', { pools4 });
    const config = {
      cniVersion: '1.1.0',
      name: 'spidernet-chainer',
      type: 'ipvlan',
      'cni.dev/valid-attachments': [{ containerID: 'c-a', ifname: 'eth0' }],
    } as const;
    await api.agent()('GC', '', { containerId: '', ifName: '', args: {}, config });
    assert.deepEqual(Object.keys(api.records('ens192-v4')), ['172.51.0.100']);
  });
});
