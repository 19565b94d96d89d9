import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { parseIp, type IpAddress } from '../core/ip.ts';
import { address, TestPair, whyNoKernelTests } from '../datapath/test-bed.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { findGateway, findOwner } from './detection.ts';

const ip = (text: string): IpAddress => parseIp(text) ?? assert.fail(text);
const { signal } = new AbortController();

describe('detection on the link', { skip: whyNoKernelTests() ?? false }, () => {
  let pair: TestPair;
  let peerMac = '';
  const place = (): { netns: string; interfaceName: string } => ({
    netns: pair.pod,
    interfaceName: pair.interfaceName,
  });
  before(() => {
    pair = new TestPair('veth');
    using peer = RtNetlink.open(pair.peer);
    peerMac = peer.mustLink(pair.interfaceName).mac;
  });
  after(() => pair[Symbol.dispose]());

  it('finds who has an address already, in both families (C00007)', async () => {
    assert.equal(await findOwner(place(), ip(address.peer4), signal), peerMac);
    assert.equal(await findOwner(place(), ip(address.peer6), signal), peerMac);
  });

  it('finds nobody at an address that is free, and takes no longer than its probes do', async () => {
    const startMs = Date.now();
    assert.equal(await findOwner(place(), ip('10.77.99.99'), signal), undefined);
    assert.equal(await findOwner(place(), ip('fd00:77::9999'), signal), undefined);
    assert.ok(Date.now() - startMs < 3_000);
  });

  it('finds a gateway that answers, and misses one that does not (C00009)', async () => {
    assert.equal(await findGateway(place(), ip(address.pod4), ip(address.peer4), signal), peerMac);
    assert.equal(await findGateway(place(), ip(address.pod6), ip(address.peer6), signal), peerMac);
    assert.equal(await findGateway(place(), ip(address.pod4), ip('10.77.99.1'), signal), undefined);
  });

  it('poisons nobody: a probe for an address leaves no trace of it at the neighbours', () => {
    using peer = RtNetlink.open(pair.peer);
    assert.ok(!peer.neighbours().some((each) => each.address.family === 4 && each.address.value === 0n));
  });

  it('stops when it is told to', async () => {
    await assert.rejects(findOwner(place(), ip('10.77.99.99'), AbortSignal.abort(new Error('enough'))), /enough/);
  });
});
