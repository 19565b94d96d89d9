/**
 * Real packets between two network namespaces; the programs are on the pod's interface:
 *
 *     peer netns                pod netns
 *     10.0.0.20  eth0 ======== eth0  10.0.0.10      see PairLink and PeerPlace in test-bed.ts
 *     fd00::20                       fd00::10
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { BpfMap, haveTcx, RtNetlink, tcHandle } from '../kernel/index.ts';
import { hasErrorCode } from '../core/error.ts';
import { Datapath, type EndpointPolicy, type PolicyEntry } from './datapath.ts';
import { address, mustPrefix, TestBpffs, TestPair, TestStack, whyNoKernelTests, whyNoLink } from './test-bed.ts';

const endpointId = 42;
const open: EndpointPolicy = { isolated: { ingress: false, egress: false }, entries: [] };
const egressDenied: EndpointPolicy = { isolated: { ingress: false, egress: true }, entries: [] };
const peerIdentity = 300;
const allowPeer = (direction: 'ingress' | 'egress', ruleId = 1): PolicyEntry => ({
  direction,
  identity: peerIdentity,
  protocol: 0,
  port: 0,
  portPrefixLen: 0,
  ruleId,
  action: 'allow',
});

const reason = whyNoKernelTests();

describe('datapath with real packets', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let bpffs: TestBpffs;

  beforeEach(() => {
    stack = new TestStack();
    bpffs = stack.use(new TestBpffs());
  });
  afterEach(() => stack[Symbol.dispose]());

  const opened = (mechanism?: 'tcx' | 'clsact'): Datapath =>
    stack.use(
      Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 8192 }, ...(mechanism ? { mechanism } : {}) }),
    );
  const target = (pair: TestPair) => ({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
  const check = (datapath: Datapath, pair: TestPair): string[] =>
    datapath.checkEndpoint(endpointId, pair.pod, pair.interfaceName).map((finding) => finding.problem);

  const noIpvlan = whyNoLink('ipvlan-l3', process.env) ?? false;
  const noTcx = reason === undefined && !haveTcx() ? 'this kernel has no tcx (6.6)' : undefined;
  for (const [link, place, mechanisms] of [
    ['veth', 'beside', ['tcx', 'clsact']],
    ['macvlan', 'beside', ['tcx', 'clsact']],
    ['ipvlan-l2', 'beside', ['clsact']],
    ['ipvlan-l2', 'outside', ['tcx', 'clsact']],
    ['ipvlan-l3', 'beside', ['clsact']],
    ['ipvlan-l3', 'outside', ['tcx', 'clsact']],
  ] as const) {
    for (const mechanism of mechanisms) {
      const skip = (mechanism === 'tcx' ? noTcx : undefined) ?? whyNoLink(link, process.env) ?? false;
      it(`${link}, peer ${place}, ${mechanism}: closed until programmed, then what the policy says`, { skip }, () => {
        const pair = stack.use(new TestPair(link, place));
        assert.ok(pair.ping('peer', address.pod4), 'the wire works');
        const datapath = opened(mechanism);
        datapath.attach(target(pair));
        assert.deepEqual(check(datapath, pair), ['not_programmed']);
        assert.ok(pair.isCut('peer', address.pod4), 'drops until programmed');
        assert.ok(pair.isCut('pod', address.peer6), 'drops until programmed, IPv6');
        datapath.setPolicy(endpointId, open);
        assert.deepEqual(check(datapath, pair), []);
        assert.ok(pair.ping('pod', address.peer4));
        datapath.setPolicy(endpointId, egressDenied);
        for (const family of [4, 6] as const) {
          assert.ok(pair.isCut('pod', address[`peer${family}`]), `IPv${family} egress is cut`);
          assert.ok(pair.ping('peer', address[`pod${family}`]), `IPv${family} ingress works, and its replies pass`);
        }
        datapath.updateIpcache({ upsert: [[mustPrefix('10.0.0.20/32'), peerIdentity]], remove: [] });
        datapath.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress')] });
        assert.ok(pair.ping('pod', address.peer4), 'a rule opens it again');
        assert.ok(pair.isCut('pod', address.peer6), 'for that address only');
        const drops = datapath.dropCounters().filter((counter) => counter.endpointId === endpointId);
        const packets = (why: string, direction: string) =>
          Number(drops.find((drop) => drop.reason === why && drop.direction === direction)?.packets ?? 0n);
        assert.ok(
          packets('policy', 'egress') >= 3,
          drops.map((drop) => `${drop.direction} ${drop.reason} ${drop.packets}`).join(),
        );
        assert.ok(packets('not_programmed', 'ingress') >= 1);
        assert.equal(packets('policy', 'ingress'), 0);
      });
    }
  }

  it('refuses ipvlan in mode l3s, whose traffic from outside does not pass the hook', { skip: noIpvlan }, () => {
    const pair = stack.use(new TestPair('ipvlan-l3'));
    pair.run('pod', 'ip', 'link', 'set', 'eth0', 'type', 'ipvlan', 'mode', 'l3s');
    const datapath = opened();
    assert.throws(() => datapath.attach(target(pair)), {
      code: 'invalid_config',
      message: /ipvlan interface in mode l3s/,
    });
  });

  it('holds when the agent is gone, and is adopted by the next', () => {
    const pair = stack.use(new TestPair('veth'));
    const first = opened();
    first.updateIpcache({ upsert: [[mustPrefix('10.0.0.20/32'), peerIdentity]], remove: [] });
    first.attach(target(pair));
    first.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress', 77)] });
    first.setPolicy(endpointId, egressDenied);
    const before = first.endpoints();
    first.close();
    assert.ok(!pair.ping('pod', address.peer4), 'egress stays cut without the agent');
    assert.ok(pair.ping('peer', address.pod4), 'ingress keeps working');
    const second = opened();
    assert.deepEqual(second.endpoints(), before);
    assert.deepEqual(second.ipcache(), [[mustPrefix('10.0.0.20/32'), peerIdentity]]);
    assert.deepEqual(check(second, pair), []);
    second.attach(target(pair));
    assert.deepEqual(second.endpoints(), before, 'attaching again changes nothing');
    second.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress', 78)] });
    assert.deepEqual(second.policyEntries(endpointId), [allowPeer('egress', 78)]);
    assert.ok(pair.ping('pod', address.peer4));
  });

  it('cleans up what an agent left half-written', () => {
    const pair = stack.use(new TestPair('veth'));
    const first = opened();
    first.attach(target(pair));
    for (const ruleId of [1, 2, 3])
      first.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress', ruleId)] });
    first.close();
    using policy = BpfMap.openPinned(`${bpffs.path}/policy`);
    assert.equal([...(policy?.keys() ?? [])].length, 4, 'the policy and the one before it, each with what it derives');
    const second = opened();
    assert.equal([...(policy?.keys() ?? [])].length, 2);
    assert.deepEqual(second.policyEntries(endpointId), [allowPeer('egress', 3)]);
  });

  it('changes policy under traffic without losing a packet of what both allow', async () => {
    const pair = stack.use(new TestPair('veth'));
    const datapath = opened();
    datapath.updateIpcache({ upsert: [[mustPrefix('10.0.0.20/32'), peerIdentity]], remove: [] });
    datapath.attach(target(pair));
    datapath.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress')] });
    const flood = spawn('nsenter', [`--net=${pair.pod}`, 'ping', '-q', '-f', '-w', '120', address.peer4], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let output = '';
    flood.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const ended = once(flood, 'close');
    // By number, not by time: an emulated CPU that others keep busy makes few changes in a second.
    for (let changes = 0; changes < 150; changes++) {
      const isolated = { ingress: changes % 2 === 0, egress: changes % 3 !== 0 };
      datapath.setPolicy(endpointId, {
        isolated,
        entries: [allowPeer('egress', changes), { ...allowPeer('egress'), identity: 400 + changes }],
      });
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    flood.kill('SIGINT');
    await ended;
    const [, sent, received] = (/(\d+) packets transmitted, (\d+) received/.exec(output) ?? []).map(Number);
    assert.ok(sent !== undefined && received !== undefined && received > 100, output);
    // The last one may be under way when the flood is stopped.
    assert.ok(sent - received <= 1, output);
    const drops = datapath.dropCounters().filter((drop) => drop.reason === 'policy' && drop.direction === 'egress');
    // The peer's own neighbour probes and multicast aside, nothing addressed to it may be dropped: none is sent elsewhere.
    assert.deepEqual(drops, []);
  });

  it('puts back hooks that are gone or wrong', () => {
    const pair = stack.use(new TestPair('veth'));
    const datapath = opened('clsact');
    datapath.attach(target(pair));
    datapath.setPolicy(endpointId, egressDenied);
    using netlink = RtNetlink.open(pair.pod);
    const { ifindex } = netlink.mustLink('eth0');
    netlink.deleteFilters(ifindex, tcHandle.clsactEgress, 1);
    assert.deepEqual(check(datapath, pair), ['hook_missing']);
    assert.ok(pair.ping('pod', address.peer4), 'the hook really is gone');
    datapath.attach(target(pair));
    assert.deepEqual(check(datapath, pair), []);
    assert.ok(!pair.ping('pod', address.peer4));
    netlink.deleteQdisc(ifindex, tcHandle.ingress, 0xffff_0000);
    assert.deepEqual(check(datapath, pair), ['hook_missing', 'hook_missing']);
    assert.deepEqual(
      datapath.checkEndpoint(endpointId, pair.pod, 'eth9').map((finding) => finding.problem),
      ['interface_missing'],
    );
  });

  it('a second interface of the endpoint has the same policy', () => {
    const pair = stack.use(new TestPair('veth'));
    const datapath = opened();
    datapath.attach(target(pair));
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: 'lo' });
    datapath.setPolicy(endpointId, egressDenied);
    assert.ok(!pair.ping('pod', '127.0.0.1'));
    if (datapath.mechanism === 'tcx') assert.deepEqual(datapath.endpoints()[0]?.interfaces.toSorted(), ['eth0', 'lo']);
  });

  it('detaching leaves nothing behind, twice over', () => {
    const pair = stack.use(new TestPair('veth'));
    const datapath = opened();
    datapath.attach(target(pair));
    datapath.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress')] });
    pair.ping('pod', address.peer4);
    for (let i = 0; i < 2; i++) datapath.detachEndpoint(endpointId);
    assert.deepEqual(datapath.endpoints(), []);
    assert.deepEqual(datapath.counters(), []);
    using policy = BpfMap.openPinned(`${bpffs.path}/policy`);
    assert.deepEqual([...(policy?.keys() ?? [])], []);
    if (datapath.mechanism === 'tcx') assert.ok(pair.ping('pod', address.peer4), 'the hooks are gone');
    assert.throws(
      () => datapath.setPolicy(endpointId, open),
      (error) => hasErrorCode(error, 'not_found'),
    );
  });

  it('an unchanged policy is not written again', () => {
    const pair = stack.use(new TestPair('veth'));
    const datapath = opened();
    datapath.attach(target(pair));
    const policy = { ...egressDenied, entries: [allowPeer('egress'), allowPeer('ingress')] };
    datapath.setPolicy(endpointId, policy);
    const [before] = datapath.endpoints();
    datapath.setPolicy(endpointId, { ...policy, entries: policy.entries.toReversed() });
    assert.deepEqual(datapath.endpoints(), [before]);
  });

  it('takes in and gives up identities in place, with what it derives from their entries', () => {
    const pair = stack.use(new TestPair('veth'));
    const datapath = opened();
    datapath.attach(target(pair));
    datapath.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress')] });
    using policy = BpfMap.openPinned(`${bpffs.path}/policy`);
    const keys = (): number => [...(policy?.keys() ?? [])].length;
    const before = { revision: datapath.endpoints()[0]?.policyRevision, keys: keys() };
    const added = { ...allowPeer('egress', 9), identity: 4000 };
    datapath.extendPolicies(new Map([[endpointId, [added]]]));
    assert.deepEqual(datapath.policyEntries(endpointId), [allowPeer('egress'), added]);
    assert.equal(keys(), before.keys + 2);
    datapath.forgetIdentities(endpointId, new Set([4000]));
    assert.deepEqual(datapath.policyEntries(endpointId), [allowPeer('egress')]);
    assert.deepEqual({ revision: datapath.endpoints()[0]?.policyRevision, keys: keys() }, before);
  });

  it('refuses a policy that does not fit', () => {
    const pair = stack.use(new TestPair('veth'));
    const small = stack.use(Datapath.open({ bpffsDir: bpffs.path, limits: { policy: 4, conntrack: 1024 } }));
    small.attach(target(pair));
    small.setPolicy(endpointId, { ...egressDenied, entries: [allowPeer('egress')] });
    const many = Array.from({ length: 9 }, (_, i) => ({ ...allowPeer('egress'), identity: 1000 + i }));
    assert.throws(
      () => small.setPolicy(endpointId, { ...egressDenied, entries: many }),
      (error) => hasErrorCode(error, 'limit_exceeded'),
    );
    assert.deepEqual(small.policyEntries(endpointId), [allowPeer('egress')], 'the old policy stays in force');
    assert.throws(
      () => small.extendPolicies(new Map([[endpointId, many]])),
      (error) => hasErrorCode(error, 'limit_exceeded'),
    );
    assert.deepEqual(small.policyEntries(endpointId), [allowPeer('egress')]);
    using policy = BpfMap.openPinned(`${bpffs.path}/policy`);
    assert.equal([...(policy?.keys() ?? [])].length, 2, 'nothing of it stays in the map');
    small.close();
  });
});
