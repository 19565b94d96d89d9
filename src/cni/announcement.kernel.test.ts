import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { parseIp } from '../core/ip.ts';
import { address, TestPair, whyNoKernelTests } from '../datapath/test-bed.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { announce } from './announcement.ts';

describe('announcing addresses', { skip: whyNoKernelTests() ?? false }, () => {
  let pair: TestPair;
  before(() => (pair = new TestPair('veth')));
  after(() => pair[Symbol.dispose]());

  const neighbour = (args: readonly string[]): string =>
    execFileSync('nsenter', [`--net=${pair.peer}`, 'ip', 'neigh', ...args], { encoding: 'utf8' });

  it('corrects a neighbour that still sends to the last owner, in both families', () => {
    const { pod4, pod6 } = address;
    const lastOwner = '02:00:00:00:00:01';
    for (const ip of [pod4, pod6])
      neighbour(['replace', ip, 'lladdr', lastOwner, 'nud', 'reachable', 'dev', pair.interfaceName]);
    assert.ok(!pair.ping('peer', pod4) && !pair.ping('peer', pod6), 'the pod is not reached');
    // The peer has asked nobody: what it believes is reachable.
    announce(
      pair.pod,
      pair.interfaceName,
      [pod4, pod6].map((text) => parseIp(text) ?? assert.fail(text)),
    );
    using netlink = RtNetlink.open(pair.pod);
    const { mac } = netlink.mustLink(pair.interfaceName);
    for (const ip of [pod4, pod6]) assert.ok(neighbour(['show', ip]).includes(mac), neighbour(['show', ip]));
    assert.ok(pair.ping('peer', pod4) && pair.ping('peer', pod6), 'the pod is reached');
  });
});
