/** VLAN and bond on a node of its own: namespaces with veth pairs for NICs. Where the kernel has neither, the small VM runs this. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { CniRequest, CniResult, PluginConfig } from '../api/cni.ts';
import { silentLogger } from '../core/log.ts';
import type { Link } from '../kernel/netlink/link.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { createNamedNetns, removeNamedNetns, withNetns } from '../kernel/netns.ts';
import { createIfacerPlugin } from './ifacer.ts';

/** Undefined when the kernel can make links of both kinds. */
function whyNoLinks(): string | undefined {
  const path = `/run/netns/sluice-if-${randomBytes(4).toString('hex')}`;
  try {
    createNamedNetns(path);
    using rt = RtNetlink.open(path);
    rt.addLink({ kind: 'bond', name: 'b0', options: { mode: 1 } });
    rt.addLink({ kind: 'vlan', name: 'v', parentIfindex: rt.mustLink('b0').ifindex, vlanId: 7 });
    return undefined;
  } catch (error) {
    // The small VM's kernel has both: there it is a failure.
    if (process.env['SLUICE_VM'] === '1') throw error;
    return `this kernel makes no VLANs or bonds: ${String(error)}`;
  } finally {
    removeNamedNetns(path);
  }
}

describe('ifacer', { skip: process.getuid?.() === 0 ? (whyNoLinks() ?? false) : 'needs root' }, () => {
  let node = '';
  let rt: RtNetlink;
  const plugin = createIfacerPlugin({ log: silentLogger });

  function call(command: CniRequest['command'], config: Record<string, unknown>): Promise<CniResult | undefined> {
    const request: CniRequest = {
      ...{ plugin: 'ifacer', command, containerId: 'c', ifName: 'eth0', args: {}, path: '' },
      config: { cniVersion: '1.0.0', name: 'n', type: 'ifacer', ...config } as unknown as PluginConfig,
    };
    // Boxed: withNetns refuses promises, and the call is synchronous inside.
    return withNetns(node, () => ({ answer: plugin(request, new AbortController().signal) })).answer;
  }
  const link = (name: string): Link => rt.mustLink(name);

  before(() => {
    node = `/run/netns/sluice-if-${randomBytes(4).toString('hex')}`;
  });
  beforeEach(() => {
    createNamedNetns(node);
    rt = RtNetlink.open(node);
    for (const name of ['ens1', 'ens2']) rt.addLink({ kind: 'veth', name, peer: { name: `w${name}` } });
  });
  afterEach(() => {
    rt.close();
    removeNamedNetns(node);
  });
  after(() => removeNamedNetns(node));

  it('makes the VLAN and sets its parent up (N00001, N00005)', async () => {
    assert.equal(link('ens1').up, false);
    const result = await call('ADD', { interfaces: ['ens1'], vlanID: 100 });
    assert.deepEqual([result?.interfaces, result?.ips], [[], []]);
    const { kind, vlanId, up, parentIfindex } = link('ens1.100');
    assert.deepEqual([kind, vlanId, up, parentIfindex], ['vlan', 100, true, link('ens1').ifindex]);
    assert.equal(link('ens1').up, true);
  });

  it('keeps one that is there, sets it up when it is down, and makes it again after it is gone (N00002, N00003, N00006)', async () => {
    const config = { interfaces: ['ens1'], vlanID: 100 };
    await call('ADD', config);
    const { ifindex } = link('ens1.100');
    await call('ADD', config);
    assert.equal(link('ens1.100').ifindex, ifindex);
    rt.setLink(ifindex, { up: false });
    await call('ADD', config);
    assert.deepEqual([link('ens1.100').ifindex, link('ens1.100').up], [ifindex, true]);
    await call('DEL', config);
    assert.equal(link('ens1.100').ifindex, ifindex, 'DEL removes nothing');
    rt.deleteLink(ifindex);
    await call('ADD', config);
    assert.equal(link('ens1.100').up, true);
  });

  it('refuses a second VLAN with the same id, and an impostor of its name (N00004)', async () => {
    await call('ADD', { interfaces: ['ens1'], vlanID: 100 });
    await assert.rejects(
      call('ADD', { interfaces: ['ens2'], vlanID: 100 }),
      /cannot have multiple different vlan interfaces with the same vlanId 100: ens1\.100 has it/,
    );
    rt.addLink({ kind: 'veth', name: 'ens2.200', peer: { name: 'x' } });
    await assert.rejects(call('ADD', { interfaces: ['ens2'], vlanID: 200 }), /ens2\.200 exists .* is not VLAN 200/);
  });

  it('makes one VLAN for two pods that start at once', async () => {
    const config = { interfaces: ['ens1'], vlanID: 100 };
    await Promise.all([1, 2, 3, 4].map(() => call('ADD', config)));
    assert.equal(rt.links().filter(({ kind }) => kind === 'vlan').length, 1);
  });

  const bond = { name: 'bond0', mode: 1, options: 'miimon=100;primary=ens2;unheard_of=1' };

  it('makes the bond of several interfaces, and a VLAN on it', async () => {
    rt.setLink(link('ens1').ifindex, { up: true });
    const config = { interfaces: ['ens1', 'ens2'], vlanID: 30, bond };
    await Promise.all([call('ADD', config), call('ADD', config)]);
    const { ifindex, kind, up } = link('bond0');
    assert.deepEqual([kind, up], ['bond', true]);
    for (const name of ['ens1', 'ens2']) assert.deepEqual([link(name).masterIfindex, link(name).up], [ifindex, true]);
    assert.deepEqual([link('bond0.30').vlanId, link('bond0.30').parentIfindex], [30, ifindex]);
    await call('ADD', config);
    assert.equal(link('bond0').ifindex, ifindex);
  });

  it('refuses a name that is taken, a slave of another, and what is not there', async () => {
    rt.addLink({ kind: 'veth', name: 'bond9', peer: { name: 'y' } });
    const config = { interfaces: ['ens1', 'ens2'], bond: { ...bond, name: 'bond9' } };
    await assert.rejects(call('ADD', config), /a non-bond type interface named bond9 already exists on the host/);
    rt.addLink({ kind: 'bond', name: 'other', options: { mode: 1 } });
    rt.setLink(link('ens2').ifindex, { masterIfindex: link('other').ifindex });
    await assert.rejects(call('ADD', { interfaces: ['ens1', 'ens2'], bond }), /ens2 belongs to other, not to bond0/);
    await assert.rejects(call('ADD', { interfaces: ['ens9'], vlanID: 5 }), /ens9 does not exist on the node/);
  });

  it('does nothing for one interface without a VLAN', async () => {
    const names = rt.links().map(({ name }) => name);
    await call('ADD', { interfaces: ['ens1'] });
    assert.deepEqual(
      rt.links().map(({ name }) => name),
      names,
    );
  });
});
