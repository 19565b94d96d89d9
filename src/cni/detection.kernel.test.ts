import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { parseIp, type IpAddress } from '../core/ip.ts';
import { address, TestPair, whyNoKernelTests } from '../datapath/test-bed.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { PacketCapture } from '../kernel/packet-capture.ts';
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

  it('listens to the end and finds owner and gateway while signals interrupt its calls', async () => {
    let signals = 0;
    const count = (): void => void signals++;
    process.on('SIGWINCH', count);
    // A shell of its own: this thread waits in the kernel meanwhile. It ends with this process, or when it is killed.
    const shell = spawn('sh', ['-c', 'while kill -WINCH $PPID; do sleep 0.01; done'], { stdio: 'ignore' });
    try {
      await once(process, 'SIGWINCH');
      const quiet = new TestPair('veth');
      try {
        using capture = PacketCapture.open(quiet.pod, 'lo');
        const startMs = performance.now();
        assert.deepEqual(capture.drain(1_000), []);
        const waitedMs = performance.now() - startMs;
        assert.ok(waitedMs >= 990, `a signal ended the wait after ${waitedMs} ms`);
      } finally {
        quiet[Symbol.dispose]();
      }
      assert.equal(await findOwner(place(), ip(address.peer4), signal), peerMac);
      assert.equal(await findOwner(place(), ip('10.77.99.99'), signal), undefined);
      assert.equal(await findGateway(place(), ip(address.pod6), ip(address.peer6), signal), peerMac);
      assert.ok(signals > 3, `${signals} signals`);
    } finally {
      const ended = once(shell, 'exit');
      shell.kill('SIGKILL');
      await ended;
      process.off('SIGWINCH', count);
    }
  });
});
