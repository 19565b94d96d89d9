/**
 * Pods with several interfaces and their node, with real namespaces and packets:
 *
 *   node  ens192 172.100.0.11/16 ── macvlan eth0 172.100.0.210     overlay:  ovl 10.9.0.1/24 ── veth eth0 10.9.0.5
 *         ens224 172.200.0.11/16 ── macvlan net1 172.200.0.201
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { CniRequest, PluginConfig } from '../api/cni.ts';
import { parseIp, type IpAddress } from '../core/ip.ts';
import { silentLogger } from '../core/log.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { createNamedNetns, Netns, removeNamedNetns, withNetns } from '../kernel/netns.ts';
import { readSysctl, writeSysctl } from '../kernel/sysctl.ts';
import type { ClusterCoordinatorConfig } from './coordinator-cluster.ts';
import { hostVethName } from './coordinator-door.ts';
import { createCoordinatorPlugin } from './coordinator.ts';

function ip(text: string): IpAddress {
  return parseIp(text) ?? assert.fail(text);
}

const cluster: ClusterCoordinatorConfig = {
  mode: 'auto',
  overlayPodCIDR: [],
  serviceCIDR: ['10.96.0.0/12', 'fd00:96::/112'],
  hijackCIDR: ['169.254.0.0/16'],
  tunePodRoutes: true,
};

class Bed {
  readonly #id = randomBytes(4).toString('hex');
  readonly node = `/run/netns/sluice-cn-${this.#id}n`;
  readonly pod = `/run/netns/sluice-cn-${this.#id}p`;
  readonly containerId = randomBytes(32).toString('hex');

  constructor() {
    createNamedNetns(this.node);
    createNamedNetns(this.pod);
    writeSysctl(this.node, 'net.ipv4.conf.all.rp_filter', '0');
    writeSysctl(this.node, 'net.ipv4.conf.default.rp_filter', '0');
  }

  addParent(name: string, prefix: string): void {
    using node = RtNetlink.open(this.node);
    node.addLink({ kind: 'veth', name, peer: { name: `w-${name}` } });
    for (const each of [name, `w-${name}`]) node.setLink(node.mustLink(each).ifindex, { up: true });
    const { ifindex } = node.mustLink(name);
    node.setAddress({ ifindex, address: ip(`172.${prefix}.0.11`), prefixLen: 16 });
    node.setAddress({ ifindex, address: ip(`fd00:${prefix}::11`), prefixLen: 64, noDad: true });
  }

  /** As a main plugin with our pools' gateway leaves it: addresses and default routes of both families. */
  addNic(name: string, parent: string, prefix: string, host: number): void {
    using netns = Netns.openPath(this.pod);
    using node = RtNetlink.open(this.node);
    const parentIfindex = node.mustLink(parent).ifindex;
    node.addLink({ kind: 'macvlan', name, parentIfindex, mode: 'bridge', netnsFd: netns.fd });
    this.configure(
      name,
      [`172.${prefix}.0.${host}/16`, `fd00:${prefix}::${host}/64`],
      [`172.${prefix}.0.1`, `fd00:${prefix}::1`],
    );
  }

  configure(name: string, addresses: readonly string[], gateways: readonly string[]): void {
    this.ip(this.pod, 'link', 'set', name, 'up');
    for (const each of addresses)
      this.ip(this.pod, 'addr', 'add', each, 'dev', name, ...(each.includes(':') ? ['nodad'] : []));
    // "prepend": what the plugins' netlink library does, so that the newest default route comes first.
    for (const each of gateways)
      this.ip(this.pod, ...(each.includes(':') ? ['-6'] : []), 'route', 'prepend', 'default', 'via', each, 'dev', name);
  }

  addOverlay(): void {
    this.#addVeth();
    this.ip(this.node, 'addr', 'add', '10.9.0.1/24', 'dev', 'ovl');
    this.configure('eth0', ['10.9.0.5/24'], ['10.9.0.1']);
  }

  /** As the `ptp` and `bridge` plugins do: the node's end has an address of its own, or is a port of the bridge that has it. */
  addPtp(): void {
    this.#addVeth();
    this.ip(this.node, 'addr', 'add', '10.9.0.1/32', 'dev', 'ovl');
    this.ip(this.node, 'route', 'add', '10.9.0.5/32', 'dev', 'ovl');
    this.configure('eth0', ['10.9.0.5/24'], ['10.9.0.1']);
  }

  addBridge(): void {
    this.#addVeth();
    this.ip(this.node, 'link', 'add', 'cni0', 'type', 'bridge');
    this.ip(this.node, 'link', 'set', 'ovl', 'master', 'cni0');
    this.ip(this.node, 'addr', 'add', '10.9.0.1/24', 'dev', 'cni0');
    this.ip(this.node, 'link', 'set', 'cni0', 'up');
    this.configure('eth0', ['10.9.0.5/24'], ['10.9.0.1']);
  }

  #addVeth(): void {
    using netns = Netns.openPath(this.pod);
    using node = RtNetlink.open(this.node);
    node.addLink({ kind: 'veth', name: 'ovl', peer: { name: 'eth0', netnsFd: netns.fd } });
    node.setLink(node.mustLink('ovl').ifindex, { up: true });
  }

  async call(
    command: CniRequest['command'],
    ifName: string,
    config: Record<string, unknown> = {},
    extra: { cluster?: Partial<ClusterCoordinatorConfig>; coming?: string[] } = {},
  ): Promise<unknown> {
    const plugin = createCoordinatorPlugin({
      log: silentLogger,
      onInterface: () => Promise.resolve(),
      coordination: () =>
        Promise.resolve({ config: { ...cluster, ...extra.cluster }, interfaces: extra.coming ?? ['eth0'] }),
    });
    const sandbox = this.pod;
    const prevResult = { cniVersion: '1.0.0', interfaces: [{ name: ifName, sandbox }], ips: [], routes: [], dns: {} };
    const request: CniRequest = {
      plugin: 'coordinator',
      command,
      containerId: this.containerId,
      netns: this.pod,
      ifName,
      args: { K8S_POD_NAMESPACE: 'demo', K8S_POD_NAME: 'web' },
      path: '',
      config: { cniVersion: '1.0.0', name: 'n', type: 'coordinator', prevResult, ...config } as unknown as PluginConfig,
    };
    const { answer } = withNetns(this.node, () => ({ answer: plugin(request, new AbortController().signal) }));
    return answer;
  }

  ip(netns: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${netns}`, 'ip', ...args], { encoding: 'utf8' });
  }

  inPod(...args: string[]): string {
    return this.ip(this.pod, ...args);
  }

  pings(netns: string, target: string, from?: string): boolean {
    const source = from === undefined ? [] : ['-I', from];
    const args = [`--net=${netns}`, 'ping', '-c', '1', '-W', '1', ...source, target];
    return spawnSync('nsenter', args, { stdio: 'ignore' }).status === 0;
  }

  close(): void {
    removeNamedNetns(this.pod);
    removeNamedNetns(this.node);
  }
}

function rulesHere(): string {
  return execFileSync('ip', ['rule'], { encoding: 'utf8' });
}

describe('coordinator of several interfaces', () => {
  let bed: Bed;
  let rulesBefore = '';
  before(() => (rulesBefore = rulesHere()));
  after(() => assert.equal(rulesHere(), rulesBefore, "the machine's own namespace is untouched"));
  beforeEach(() => {
    bed = new Bed();
    bed.addParent('ens192', '100');
    bed.addParent('ens224', '200');
  });
  afterEach(() => bed.close());

  async function underlayPair(
    extra: Parameters<Bed['call']>[3] = {},
    config: Record<string, unknown> = {},
  ): Promise<void> {
    bed.addNic('eth0', 'ens192', '100', 210);
    await bed.call('ADD', 'eth0', config, extra);
    bed.addNic('net1', 'ens224', '200', 201);
    await bed.call('ADD', 'net1', config, extra);
  }

  it('makes the published state of one and of two underlay interfaces (C00001, C00003, C00011, C00012)', async () => {
    bed.addNic('eth0', 'ens192', '100', 210);
    await bed.call('ADD', 'eth0');
    assert.match(bed.inPod('rule'), /^1000:\s+from all fwmark 0x1 lookup 100/m);
    assert.match(bed.inPod('route'), /^default via 172\.100\.0\.1 dev eth0/m);
    assert.match(bed.inPod('route'), /^10\.96\.0\.0\/12 via 172\.100\.0\.11 dev veth0 .*src 172\.100\.0\.210/m);
    assert.match(bed.inPod('route', 'show', 'table', '100'), /^default via 172\.100\.0\.11 dev veth0/m);
    // A17: each family has its own gateway.
    assert.match(bed.inPod('-6', 'route', 'show', 'table', '100'), /^default via fd00:100::11 dev veth0/m);

    bed.addNic('net1', 'ens224', '200', 201);
    await bed.call('ADD', 'net1');
    assert.match(bed.inPod('rule'), /^999:\s+from 172\.200\.0\.201 lookup 101/m);
    assert.match(bed.inPod('-6', 'rule'), /^999:\s+from fd00:200::201 lookup 101/m);
    const own = bed.inPod('route', 'show', 'table', '101');
    assert.match(own, /^default via 172\.200\.0\.1 dev net1/m);
    assert.match(own, /^172\.200\.0\.0\/16 dev net1 .*scope link src 172\.200\.0\.201/m);
    assert.match(bed.inPod('-6', 'route', 'show', 'table', '101'), /^default via fd00:200::1 dev net1/m);
    const defaults = bed.inPod('route', 'show', 'default') + bed.inPod('-6', 'route', 'show', 'default');
    assert.match(defaults, /default via 172\.100\.0\.1 dev eth0/);
    assert.match(defaults, /default via fd00:100::1 dev eth0/);
    assert.ok(!defaults.includes('net1'), `the default routes stay with eth0: ${defaults}`);
    for (const target of ['172.100.0.210', '172.200.0.201', 'fd00:100::210', 'fd00:200::201'])
      assert.ok(bed.pings(bed.node, target), `node → ${target}`);
    assert.ok(bed.pings(bed.pod, '172.200.0.11', '172.200.0.201'), 'net1 → node');
    await bed.call('CHECK', 'net1');
    const before = bed.inPod('rule') + bed.inPod('route', 'show', 'table', 'all');
    await bed.call('ADD', 'net1');
    assert.equal(bed.inPod('rule') + bed.inPod('route', 'show', 'table', 'all'), before, 'ADD again changes nothing');
  });

  it('gives net2 table 102, under any interface names (C00015)', async () => {
    await underlayPair();
    bed.addNic('dmz', 'ens224', '200', 202);
    await bed.call('ADD', 'dmz');
    assert.match(bed.inPod('rule'), /^998:\s+from 172\.200\.0\.202 lookup 102/m);
    assert.match(bed.inPod('route', 'show', 'table', '102'), /^default via 172\.200\.0\.1 dev dmz/m);
  });

  it('moves the default route to net1 when the pod says so, before net1 is there (C00006, A00012)', async () => {
    await underlayPair({ cluster: { podDefaultRouteNIC: 'net1' }, coming: ['eth0', 'net1'] });
    assert.match(bed.inPod('route', 'get', '8.8.8.8'), /via 172\.200\.0\.1 dev net1/);
    assert.match(bed.inPod('-6', 'route', 'get', '2001:db8::1'), /via fd00:200::1 dev net1/);
    assert.match(bed.inPod('rule'), /^999:\s+from 172\.100\.0\.210 lookup 101/m);
    assert.match(bed.inPod('route', 'get', '8.8.8.8', 'from', '172.100.0.210'), /via 172\.100\.0\.1 dev eth0/);
    assert.ok(bed.pings(bed.node, '172.100.0.210') && bed.pings(bed.node, '172.200.0.201'));
  });

  it('refuses a default-route interface that the pod does not have (C00014)', async () => {
    bed.addNic('eth0', 'ens192', '100', 210);
    const extra = { cluster: { podDefaultRouteNIC: 'net7' } };
    await assert.rejects(bed.call('ADD', 'eth0', {}, extra), /podDefaultRouteNIC: net7 don't exist in pod/);
  });

  it('leaves routes alone with tunePodRoutes false, and uses hostRuleTable (C00016, C00017)', async () => {
    await underlayPair({ cluster: { hostRuleTable: 600 } }, { tunePodRoutes: false });
    assert.doesNotMatch(bed.inPod('rule'), /lookup 101/);
    assert.match(bed.ip(bed.node, 'rule'), /^1000:\s+from all lookup 600/m);
    assert.match(bed.ip(bed.node, 'route', 'show', 'table', '600'), /172\.200\.0\.201 dev veth/);
    await bed.call('DEL', 'net1');
    assert.doesNotMatch(bed.ip(bed.node, 'route', 'show', 'table', '600'), /172\.200\.0\.201/);
    assert.ok(bed.pings(bed.node, '172.100.0.210'), 'DEL of net1 leaves eth0 connected');
  });

  it('puts policy routes where the interface looks, and only where their gateway is (A18)', async () => {
    const policyRoutes = [
      { dst: '203.0.113.0/24', gw: '172.100.0.9' },
      { dst: '198.51.100.0/24', gw: '172.200.0.9' },
    ];
    await underlayPair({ cluster: { policyRoutes } });
    assert.match(bed.inPod('route', 'get', '203.0.113.5'), /via 172\.100\.0\.9 dev eth0/);
    assert.match(bed.inPod('route', 'show', 'table', '101'), /198\.51\.100\.0\/24 via 172\.200\.0\.9 dev net1/);
    assert.doesNotMatch(bed.inPod('route', 'show', 'table', '101'), /203\.0\.113/);
    assert.match(bed.inPod('route', 'get', '198.51.100.5', 'from', '172.200.0.201'), /172\.200\.0\.9 dev net1/);
  });

  it('removes what earlier pods left on the node (C00010)', async () => {
    bed.addNic('eth0', 'ens192', '100', 210);
    bed.ip(bed.node, 'link', 'add', 'dirty', 'type', 'veth', 'peer', 'name', 'dirt');
    bed.ip(bed.node, 'link', 'set', 'dirty', 'up');
    bed.ip(
      bed.node,
      'neigh',
      'add',
      '172.100.0.210',
      'lladdr',
      '02:00:00:00:00:99',
      'dev',
      'dirty',
      'nud',
      'permanent',
    );
    bed.ip(bed.node, 'route', 'add', '172.100.0.210', 'dev', 'dirty', 'table', '500');
    bed.ip(bed.node, 'rule', 'add', 'to', '172.100.0.210', 'lookup', '500');
    await bed.call('ADD', 'eth0');
    assert.doesNotMatch(bed.ip(bed.node, 'rule'), /to 172\.100\.0\.210/);
    assert.doesNotMatch(bed.ip(bed.node, 'route', 'show', 'table', '500'), /dirty/);
    assert.doesNotMatch(bed.ip(bed.node, 'neigh', 'show', 'dev', 'dirty'), /172\.100\.0\.210/);
    assert.ok(bed.pings(bed.node, '172.100.0.210'));
    await bed.call('DEL', 'eth0');
    using node = RtNetlink.open(bed.node);
    assert.equal(node.linkByName(hostVethName(bed.containerId)), undefined);
  });

  it('connects underlay interfaces beside an overlay one (C00002, C00004)', async () => {
    bed.addOverlay();
    bed.addNic('net1', 'ens192', '100', 210);
    await bed.call('ADD', 'net1');
    assert.match(bed.inPod('rule'), /from 172\.100\.0\.210 lookup 101/);
    assert.match(bed.inPod('rule'), /from 10\.9\.0\.5 lookup 100/);
    assert.match(bed.inPod('route', 'show', 'table', '100'), /^default via 10\.9\.0\.1 dev eth0/m);
    assert.match(bed.inPod('route', 'get', '8.8.8.8'), /via 10\.9\.0\.1 dev eth0/);
    assert.match(bed.inPod('route', 'get', '10.96.0.1'), /via 172\.100\.0\.11 dev eth0/);
    assert.ok(bed.pings(bed.node, '172.100.0.210'), 'node → net1 through eth0');
    assert.ok(bed.pings(bed.node, '10.9.0.5'), 'node → eth0');
    bed.addNic('net2', 'ens224', '200', 201);
    await bed.call('ADD', 'net2');
    assert.match(bed.inPod('rule'), /from 172\.200\.0\.201 lookup 102/);
    assert.ok(bed.pings(bed.node, '172.200.0.201'), 'node → net2 through eth0');
    await bed.call('CHECK', 'net2');
    await assert.rejects(bed.call('ADD', 'eth0', { mode: 'overlay' }), /overlay mode is for interfaces beside/);
  });

  it('reaches net1 from the node where its end of ptp’s pair has another address', async () => {
    bed.addPtp();
    bed.addNic('net1', 'ens192', '100', 210);
    await bed.call('ADD', 'net1');
    await bed.call('ADD', 'net1');
    for (const address of ['172.100.0.210', 'fd00:100::210', '10.9.0.5'])
      assert.ok(bed.pings(bed.node, address), address);
    assert.match(bed.ip(bed.node, 'route', 'show', 'table', '500'), /^172\.100\.0\.210 dev ovl .*src 172\.100\.0\.11/m);
  });

  it('reaches net1 from a node that checks reverse paths strictly, beside a bridge', async () => {
    bed.addBridge();
    const read = (name: string): string | undefined => readSysctl(bed.node, `net/ipv4/conf/${name}/rp_filter`);
    writeSysctl(bed.node, 'net.ipv4.conf.all.rp_filter', '1');
    bed.addNic('net1', 'ens192', '100', 210);
    await bed.call('ADD', 'net1');
    for (const address of ['172.100.0.210', 'fd00:100::210', '10.9.0.5'])
      assert.ok(bed.pings(bed.node, address), address);
    assert.deepEqual([read('all'), read('cni0'), read('ens192')], ['1', '2', '0'], 'of the bridge alone');
    await bed.call('CHECK', 'net1');
    await bed.call('DEL', 'net1');
    assert.doesNotMatch(bed.ip(bed.node, 'route', 'show', 'table', '500'), /172\.100\.0\.210/);
  });

  it('moves the default route to net1 in overlay mode (C00005)', async () => {
    bed.addOverlay();
    bed.addNic('net1', 'ens192', '100', 210);
    await bed.call('ADD', 'net1', {}, { cluster: { podDefaultRouteNIC: 'net1' } });
    assert.match(bed.inPod('route', 'get', '8.8.8.8'), /via 172\.100\.0\.1 dev net1/);
    assert.match(bed.inPod('route', 'get', '8.8.8.8', 'from', '10.9.0.5'), /via 10\.9\.0\.1 dev eth0/);
    assert.ok(bed.pings(bed.node, '10.9.0.5') && bed.pings(bed.node, '172.100.0.210'));
  });

  it('refuses modes that do not fit the pod', async () => {
    bed.addOverlay();
    bed.addNic('net1', 'ens192', '100', 210);
    await assert.rejects(bed.call('ADD', 'net1', { mode: 'underlay' }), /veth0 was not created by previous interface/);
    for (const mode of ['disable', 'disabled']) await bed.call('ADD', 'net1', { mode });
    assert.doesNotMatch(bed.inPod('rule'), /lookup 10/);
  });

  it('sets MAC address, MTU, queue length, link address and reverse-path check (C00008, C00022, C00023)', async () => {
    bed.addNic('eth0', 'ens192', '100', 210);
    const config = {
      podMACPrefix: '0a:1b',
      txQueueLen: 77,
      vethMTU: 1400,
      vethLinkAddress: '169.254.100.1',
      podRPFilter: 2,
    };
    const result = (await bed.call('ADD', 'eth0', config)) as { interfaces: { mac?: string }[] };
    assert.equal(result.interfaces[0]?.mac, '0a:1b:ac:64:00:d2');
    using pod = RtNetlink.open(bed.pod);
    assert.deepEqual([pod.mustLink('eth0').mac, pod.mustLink('eth0').txQueueLength], ['0a:1b:ac:64:00:d2', 77]);
    assert.equal(pod.mustLink('veth0').mtu, 1400);
    assert.match(bed.inPod('addr', 'show', 'veth0'), /169\.254\.100\.1\/32/);
    const read = (name: string): string =>
      execFileSync('nsenter', [`--net=${bed.pod}`, 'cat', `/proc/sys/net/ipv4/conf/${name}/rp_filter`], {
        encoding: 'utf8',
      });
    assert.deepEqual([read('all').trim(), read('eth0').trim()], ['2', '2']);
    for (const [bad, message] of [
      [{ podMACPrefix: '01:00' }, /podMACPrefix/],
      [{ vethMTU: 0 }, /vethMTU/],
      [{ podRPFilter: 3 }, /podRPFilter/],
    ] as const)
      await assert.rejects(bed.call('ADD', 'eth0', bad), message);
  });
});
