/** Duplicate address detection of the kernel itself, on a wire with somebody at the other end. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { CniRequest } from '../api/cni.ts';
import { ipToBytes, parseIp, type IpAddress } from '../core/ip.ts';
import { silentLogger } from '../core/log.ts';
import { TestPair, whyNoKernelTests } from '../datapath/test-bed.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { PacketCapture } from '../kernel/packet-capture.ts';
import { leaveOutDetection, settleAddresses, type SettlingPlace } from './address-settling.ts';
import { createSluicePlugin } from './sluice.ts';

const own = 'fd00::77';

describe('IPv6 addresses of a pod', { skip: whyNoKernelTests() ?? false }, () => {
  let pair: TestPair;
  let place: SettlingPlace;
  const signal = AbortSignal.timeout(60_000);

  beforeEach(() => {
    pair = new TestPair('veth');
    place = { netns: pair.pod, interfaceName: pair.interfaceName };
  });
  afterEach(() => pair[Symbol.dispose]());

  const ip = (text: string): IpAddress => parseIp(text) ?? assert.fail(text);

  function setAddress(netns: string, noDad: boolean): void {
    using rt = RtNetlink.open(netns);
    const { ifindex } = rt.mustLink(pair.interfaceName);
    rt.setAddress({ ifindex, address: ip(own), prefixLen: 64, noDad });
  }

  function isTentative(): boolean {
    using rt = RtNetlink.open(pair.pod);
    const found = rt.addresses(rt.mustLink(pair.interfaceName).ifindex).find(({ address }) => sameAs(address));
    return (found ?? assert.fail('the address is gone')).tentative;
  }
  const sameAs = (address: IpAddress): boolean => address.family === 6 && address.value === ip(own).value;

  function names(capture: PacketCapture): boolean {
    return capture.drain(200).some((frame) => Buffer.from(frame).includes(Buffer.from(ipToBytes(ip(own)))));
  }

  it('can be used when the wait is over', async () => {
    using asked = PacketCapture.open(pair.peer, pair.interfaceName);
    setAddress(pair.pod, false);
    assert.ok(isTentative());
    await settleAddresses(place, [ip(own)], silentLogger, signal);
    assert.ok(!isTentative());
    assert.ok(names(asked), 'the kernel has asked the link');
  });

  it('are named when somebody else has them', async () => {
    setAddress(pair.peer, true);
    setAddress(pair.pod, false);
    await assert.rejects(
      settleAddresses(place, [ip(own)], silentLogger, signal),
      (error: Error & { details?: string }) => {
        assert.match(error.message, /eth0: somebody else on the link has fd00::77/);
        assert.match(error.details ?? '', /excludeIPs.*enableIPConflictDetection/);
        return true;
      },
    );
  });

  it('can be used at once where the agent has asked', async () => {
    using asked = PacketCapture.open(pair.peer, pair.interfaceName);
    leaveOutDetection(place, silentLogger);
    setAddress(pair.pod, false);
    await settleAddresses(place, [ip(own)], silentLogger, signal);
    assert.ok(!isTentative());
    assert.ok(!names(asked), 'the kernel has not asked again');
  });

  it('are not waited for without a carrier, nor with IPv4 alone', async () => {
    using peer = RtNetlink.open(pair.peer);
    peer.setLink(peer.mustLink(pair.interfaceName).ifindex, { up: false });
    setAddress(pair.pod, false);
    await settleAddresses(place, [ip(own)], silentLogger, signal);
    assert.ok(isTentative());
    await settleAddresses({ netns: '/nowhere', interfaceName: 'eth0' }, [ip('10.0.0.1')], silentLogger, signal);
  });

  it('can be used when ADD has answered, and policy is in force before the wait', async () => {
    setAddress(pair.pod, false);
    const seen: boolean[] = [];
    const endpoints = {
      create: async () => void seen.push(isTentative()),
      remove: async () => undefined,
      removeOthers: async () => undefined,
      check: async () => [],
      unavailable: () => [],
    };
    const request: CniRequest = {
      plugin: 'sluice',
      command: 'ADD',
      containerId: 'c',
      netns: pair.pod,
      ifName: pair.interfaceName,
      args: { K8S_POD_NAMESPACE: 'demo', K8S_POD_NAME: 'a' },
      path: '',
      config: {
        ...{ cniVersion: '1.0.0', name: 'spidernet-chainer', type: 'sluice' },
        prevResult: {
          cniVersion: '1.0.0',
          interfaces: [{ name: pair.interfaceName, sandbox: pair.pod }],
          ips: [{ address: `${own}/64`, interface: 0 }],
          routes: [],
          dns: {},
        },
      },
    };
    await createSluicePlugin({ endpoints, log: silentLogger })(request, signal);
    assert.deepEqual(seen, [true]);
    assert.ok(!isTentative());
  });
});
