/** ADD with detection on a real link: the peer has the first address of each pool. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { ManualClock } from '../core/manual-clock.ts';
import { address, TestPair, whyNoKernelTests } from '../datapath/test-bed.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { PacketCapture } from '../kernel/packet-capture.ts';
import { readSysctl } from '../kernel/sysctl.ts';
import { IpamTestApi, type TestAgent } from './ipam-test-api.ts';
import { ETH_P_ARP } from './link-frames.ts';

describe('ADD asks the link', { skip: whyNoKernelTests() ?? false }, () => {
  let pair: TestPair;
  let api: IpamTestApi;
  let clock: ManualClock;
  let told: string[];

  beforeEach(() => {
    pair = new TestPair('veth');
    api = new IpamTestApi();
    api.addPool('p4', { ipVersion: 4, subnet: '10.0.0.0/24', ips: [`${address.peer4}-10.0.0.22`] });
    api.addPool('p6', { ipVersion: 6, subnet: 'fd00::/64', ips: [`${address.peer6}-fd00::22`] });
    clock = new ManualClock();
    told = [];
  });
  afterEach(() => pair[Symbol.dispose]());

  function agent(): TestAgent {
    const onConflict = (pod: string, uid: string, message: string): void => void told.push(`${pod} ${uid} ${message}`);
    return api.agent({ deps: { clock, detection: { conflicts: true, gateways: true, onConflict } } });
  }

  function mac(netns: string): string {
    using rt = RtNetlink.open(netns);
    return rt.mustLink(pair.interfaceName).mac;
  }

  it('takes another address when somebody has the first, says who, and leaves it alone for ten minutes', async () => {
    for (const name of ['a', 'b', 'c']) api.addPod(name);
    const ask = agent();
    const options = { pools4: ['p4'], pools6: ['p6'], netns: pair.pod };
    const addresses = async (pod: string): Promise<string[]> =>
      ((await ask('ADD', pod, options))?.ips ?? []).map((ip) => ip.address);

    assert.deepEqual(await addresses('a'), ['10.0.0.21/24', 'fd00::21/64']);
    assert.deepEqual(api.records('p4'), { '10.0.0.21': 'default/a eth0' });
    assert.deepEqual(api.records('p6'), { 'fd00::21': 'default/a eth0' });
    const said = [address.peer4, address.peer6].map(
      (ip) =>
        `default/a uid-a ip conflict: pod's interface eth0 with an conflicting ip ${ip}, ${ip} is located at ${mac(pair.peer)}`,
    );
    assert.deepEqual(told, said);

    assert.deepEqual(await addresses('b'), ['10.0.0.22/24', 'fd00::22/64'], 'set aside, so not even asked');
    assert.equal(told.length, 2);
    const key = `net/ipv6/conf/${pair.interfaceName}/accept_dad`;
    assert.equal(readSysctl(pair.pod, key), '0', 'the kernel need not ask again');

    await clock.advance(600_001);
    const whose = `and others on the link have 1 of IPPool p4: ${address.peer4} is located at ${mac(pair.peer)}`;
    await assert.rejects(addresses('c'), new RegExp(`all IP addresses used out, ${whose}`));
    assert.equal(told.length, 4, 'asked again');
    assert.deepEqual(
      Object.keys(api.records('p4')),
      ['10.0.0.21', '10.0.0.22'],
      'nothing stays of what could not be used',
    );
  });

  it('fails instead for a pod whose address stays, which keeps it', async () => {
    api.addPod('db-0', {
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'StatefulSet', name: 'db', uid: 'uid-db', controller: true }],
    });
    const add = agent()('ADD', 'db-0', { pools4: ['p4'], netns: pair.pod });
    await assert.rejects(add, new RegExp(`conflicting ip ${address.peer4}`));
    assert.deepEqual(api.records('p4'), { [address.peer4]: 'default/db-0 eth0' });
    assert.equal(told.length, 1);
  });

  it('fails as well for a pod that has the address on record', async () => {
    api.addPod('a');
    api.changePool('p4', { ips: ['10.0.0.22-10.0.0.23'] });
    const ask = agent();
    const add = (): Promise<unknown> => ask('ADD', 'a', { pools4: ['p4'], netns: pair.pod });
    await add();
    pair.run('peer', 'ip', 'address', 'add', '10.0.0.22/24', 'dev', 'eth0');
    await assert.rejects(add(), /conflicting ip 10\.0\.0\.22/);
    assert.deepEqual(api.records('p4'), { '10.0.0.22': 'default/a eth0' });
  });

  it('asks for a conflict before it asks the gateway, and fails when that is silent', async () => {
    api.changePool('p4', { gateway: '10.0.0.99' });
    api.addPod('a');
    using capture = PacketCapture.open(pair.peer, 'eth0');
    const add = agent()('ADD', 'a', { pools4: ['p4'], netns: pair.pod });
    await assert.rejects(
      add,
      /gateway 10\.0\.0\.99 is unreachable from 10\.0\.0\.21.*spec\.gateway of SpiderIPPool p4/s,
    );
    assert.deepEqual(arpTargets(capture.drain(), mac(pair.pod)), [address.peer4, '10.0.0.21', '10.0.0.99']);
  });

  it('gives the address when nobody has it and the gateway answers', async () => {
    api.changePool('p4', { gateway: address.peer4, ips: ['10.0.0.21'] });
    api.addPod('a');
    const result = await agent()('ADD', 'a', { pools4: ['p4'], netns: pair.pod });
    assert.deepEqual(result?.ips, [{ address: '10.0.0.21/24', gateway: address.peer4 }]);
    assert.deepEqual(told, []);
  });
});

/** Whom somebody asked for, in order, repetitions left out. */
function arpTargets(frames: readonly Uint8Array[], sender: string): string[] {
  const requests = frames.filter((frame) => {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    const from = [...frame.subarray(6, 12)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    return view.getUint16(12) === ETH_P_ARP && view.getUint16(20) === 1 && from === sender;
  });
  return [...new Set(requests.map((frame) => frame.subarray(38, 42).join('.')))];
}
