/** A node's interfaces in a namespace, and the part of /sys that a VF has, as files: no machine of ours has SR-IOV. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatIp, parseIp } from '../core/ip.ts';
import type { PhysicalFunction } from '../ipam/pool-filter.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { createNamedNetns, removeNamedNetns, withNetns } from '../kernel/netns.ts';
import { physicalFunctionOf, type VirtualFunction } from './physical-function.ts';

const vfOfRail = '0000:5e:02.1';
const vfOfPort = '0000:5e:02.2';
const vfOfNobody = '0000:5e:02.3';
const plainDevice = '0000:5e:00.0';

describe('the physical function of a pod’s interface', () => {
  const suffix = randomBytes(4).toString('hex');
  const [node, pod] = [`/run/netns/sluice-pf-${suffix}-node`, `/run/netns/sluice-pf-${suffix}-pod`];
  const sysfs = mkdtempSync(join(tmpdir(), 'sluice-sysfs-'));

  before(() => {
    for (const netns of [node, pod]) createNamedNetns(netns);
    using rt = RtNetlink.open(node);
    rt.addLink({ kind: 'bridge', name: 'bond0' });
    const bond = rt.mustLink('bond0').ifindex;
    rt.addLink({ kind: 'bridge', name: 'rail1' });
    rt.addLink({ kind: 'bridge', name: 'rail1_0' });
    rt.addLink({ kind: 'veth', name: 'port1', masterIfindex: bond, peer: { name: 'port1-far' } });
    for (const [name, address] of [
      ['rail1', '10.1.0.5'],
      ['rail1_0', '10.9.0.5'],
      ['bond0', '10.2.0.5'],
    ] as const)
      rt.setAddress({ ifindex: rt.mustLink(name).ifindex, address: parseIp(address) ?? assert.fail(), prefixLen: 16 });
    fakeDevice(vfOfRail, plainDevice, ['rail1', 'rail1_0']);
    // The VF's representor, beside its PF and first by name.
    writeFileSync(join(sysfs, 'bus/pci/devices', plainDevice, 'net/rail1_0/phys_port_name'), 'pf0vf0\n');
    fakeDevice(vfOfPort, '0000:5e:00.1', ['port1']);
    fakeDevice(vfOfNobody, '0000:5e:00.2', ['elsewhere']);
  });

  after(() => {
    for (const netns of [node, pod]) removeNamedNetns(netns);
    rmSync(sysfs, { recursive: true });
  });

  function fakeDevice(vf: string, pf: string, interfaces: readonly string[]): void {
    const devices = join(sysfs, 'bus/pci/devices');
    for (const name of interfaces) mkdirSync(join(devices, pf, 'net', name), { recursive: true });
    mkdirSync(join(devices, vf), { recursive: true });
    symlinkSync(`../${pf}`, join(devices, vf, 'physfn'));
  }

  function find(config: object, netns?: string): PhysicalFunction {
    const vf: VirtualFunction = {
      ifName: 'eth0',
      config: { cniVersion: '1.0.0', name: 'sriov', type: 'sriov', ...config },
      ...(netns === undefined ? {} : { netns }),
    };
    return withNetns(node, () => physicalFunctionOf(vf, sysfs));
  }

  const textOf = ({ name, addresses }: PhysicalFunction): string =>
    [name, ...addresses.filter(({ family }) => family === 4).map(formatIp)].join(' ');

  it('is what sysfs says of the deviceID, with its addresses on the node, and no representor', () => {
    assert.equal(textOf(find({ deviceID: vfOfRail })), 'rail1 10.1.0.5');
  });

  it('has the addresses of the bond or bridge that it is a port of', () => {
    assert.equal(textOf(find({ deviceID: vfOfPort })), 'port1 10.2.0.5');
  });

  it('that cannot be found is an error with the interface, the reason and the remedy', () => {
    using rt = RtNetlink.open(pod);
    for (const [config, netns, reason] of [
      [{ deviceID: plainDevice }, undefined, /0000:5e:00\.0 is no virtual function/],
      [{ deviceID: '../../../etc' }, undefined, /is no PCI device/],
      [{ deviceID: vfOfNobody }, undefined, /physical function of 0000:5e:02\.3 has no interface on the node/],
      [{}, undefined, /neither a deviceID nor a network namespace/],
      [{}, pod, /there is no eth0 in/],
    ] as const) {
      assert.throws(
        () => find(config, netns),
        (error: Error & { remedy?: string }) => {
          assert.match(error.message, /eth0 of network sriov/);
          assert.match(error.message, reason);
          assert.match(error.remedy ?? '', /SR-IOV.*nodeAffinity/);
          return true;
        },
      );
    }
    rt.addLink({ kind: 'bridge', name: 'eth0' });
    assert.throws(() => find({}, pod), /the kernel names no device of it: it is a virtual interface/);
  });

  it('begins, without a deviceID, at the device that the kernel names: as /sys does for hardware', (test) => {
    using rt = RtNetlink.open();
    const hardware = rt.links().filter(({ parentDevice }) => parentDevice !== undefined);
    if (hardware.length === 0) return test.skip('this kernel names no device of any interface here');
    for (const { name, parentDevice } of hardware)
      assert.equal(parentDevice, basename(readlinkSync(`/sys/class/net/${name}/device`)));
  });
});
