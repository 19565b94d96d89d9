/**
 * The pod's connection to its node, with real namespaces and packets:
 *
 *   node netns  ens192 172.51.0.11/16          pod netns  eth0 172.51.0.100/16 (a macvlan of ens192)
 *      └─ veth<container id> ───────────────────────────── veth0
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { CniRequest, PluginConfig } from '../api/cni.ts';
import { parseIp, type IpAddress } from '../core/ip.ts';
import { silentLogger } from '../core/log.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { listenTcp } from '../kernel/listen.ts';
import { tcHandle } from '../kernel/netlink/qdisc.ts';
import { createNamedNetns, Netns, removeNamedNetns, withNetns } from '../kernel/netns.ts';
import { writeSysctl } from '../kernel/sysctl.ts';
import { hostVethName } from './coordinator-door.ts';
import { createCoordinatorPlugin } from './coordinator.ts';

function ip(text: string): IpAddress {
  const parsed = parseIp(text);
  assert.ok(parsed, text);
  return parsed;
}

/** What a TCP server in one namespace says to a client in another; empty when the connection does not come about. */
async function greeting(serverNetns: string, clientNetns: string, host: string): Promise<string> {
  const { fd, port } = listenTcp(serverNetns, '0.0.0.0', 0);
  const server = createServer((socket) => socket.end('welcome'));
  await new Promise<void>((resolve) => server.listen({ fd }, resolve));
  // The limit is for a failing connection; an emulated machine needs seconds only to start Node.
  const ask = `require('net').connect({host:'${host}',port:${port}}).on('error',()=>{}).setTimeout(20000,function(){this.destroy()}).pipe(process.stdout)`;
  const answer = await new Promise<string>((resolve) =>
    execFile('nsenter', [`--net=${clientNetns}`, process.execPath, '-e', ask], (_, stdout) => {
      resolve(stdout);
    }),
  );
  await new Promise((resolve) => server.close(resolve));
  return answer;
}

describe('coordinator', () => {
  let nodePath = '';
  let podPath = '';
  let containerId = '';
  let made: { interfaceName: string; up: boolean }[] = [];

  /** The agent runs in the node's namespace: so does each call here, up to the first await that matters. */
  async function invoke(command: CniRequest['command'], config: Record<string, unknown> = {}): Promise<unknown> {
    const plugin = createCoordinatorPlugin({
      log: silentLogger,
      onInterface: ({ interfaceName, netns }) => {
        using rt = RtNetlink.open(netns);
        made.push({ interfaceName, up: rt.mustLink(interfaceName).up });
        return Promise.resolve();
      },
    });
    const prevResult = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'eth0', sandbox: podPath }],
      ips: [],
      routes: [],
      dns: {},
      extra: 'kept',
    };
    const request: CniRequest = {
      plugin: 'coordinator',
      command,
      containerId,
      netns: podPath,
      ifName: 'eth0',
      args: {},
      path: '',
      config: { cniVersion: '1.0.0', name: 'n', type: 'coordinator', prevResult, ...config } as unknown as PluginConfig,
    };
    // withNetns refuses promises, rightly; boxed, the synchronous part (which opens every socket) runs inside.
    const { answer } = withNetns(nodePath, () => ({ answer: plugin(request, new AbortController().signal) }));
    return answer;
  }

  function pings(netns: string, target: string): boolean {
    return (
      spawnSync('nsenter', [`--net=${netns}`, 'ping', '-c', '1', '-W', '1', target], { stdio: 'ignore' }).status === 0
    );
  }

  beforeEach(() => {
    const id = randomBytes(4).toString('hex');
    nodePath = `/run/netns/sluice-co-${id}n`;
    podPath = `/run/netns/sluice-co-${id}p`;
    containerId = randomBytes(32).toString('hex');
    made = [];
    createNamedNetns(nodePath);
    createNamedNetns(podPath);
    using netns = Netns.openPath(podPath);
    using node = RtNetlink.open(nodePath);
    node.addLink({ kind: 'veth', name: 'ens192', peer: { name: 'wire' } });
    for (const name of ['ens192', 'wire']) node.setLink(node.mustLink(name).ifindex, { up: true });
    const parent = node.mustLink('ens192').ifindex;
    node.setAddress({ ifindex: parent, address: ip('172.51.0.11'), prefixLen: 16 });
    node.setAddress({ ifindex: parent, address: ip('fd00:51::11'), prefixLen: 64, noDad: true });
    node.addLink({ kind: 'macvlan', name: 'eth0', parentIfindex: parent, mode: 'bridge', netnsFd: netns.fd });
    using pod = RtNetlink.open(podPath);
    const eth0 = pod.mustLink('eth0').ifindex;
    pod.setAddress({ ifindex: eth0, address: ip('172.51.0.100'), prefixLen: 16 });
    pod.setAddress({ ifindex: eth0, address: ip('fd00:51::100'), prefixLen: 64, noDad: true });
    pod.setLink(eth0, { up: true });
  });

  afterEach(() => {
    removeNamedNetns(podPath);
    removeNamedNetns(nodePath);
  });

  it('lets the node and the pod reach each other, in both families, which macvlan alone does not', async () => {
    assert.equal(pings(nodePath, '172.51.0.100'), false);
    const result = await invoke('ADD');
    assert.equal((result as { extra?: string }).extra, 'kept');
    assert.ok(pings(nodePath, '172.51.0.100'), 'node → pod, IPv4');
    assert.ok(pings(podPath, '172.51.0.11'), 'pod → node, IPv4');
    assert.ok(pings(nodePath, 'fd00:51::100'), 'node → pod, IPv6');
    assert.ok(pings(podPath, 'fd00:51::11'), 'pod → node, IPv6');
    await invoke('CHECK');
  });

  it('tells the agent about veth0 before a packet can pass', async () => {
    await invoke('ADD');
    assert.deepEqual(made, [{ interfaceName: 'veth0', up: false }]);
  });

  it('makes the published routing layout', async () => {
    await invoke('ADD', { hijackCIDR: ['169.254.0.0/16'], serviceCIDR: ['10.96.0.0/12'] });
    const show = (netns: string, ...args: string[]): string =>
      execFileSync('nsenter', [`--net=${netns}`, 'ip', ...args], { encoding: 'utf8' });
    const main = show(podPath, 'route');
    assert.match(main, /172\.51\.0\.11 dev veth0 .*scope link src 172\.51\.0\.100/);
    assert.match(main, /10\.96\.0\.0\/12 via 172\.51\.0\.11 dev veth0 .*src 172\.51\.0\.100/);
    assert.match(main, /169\.254\.0\.0\/16 via 172\.51\.0\.11 dev veth0/);
    assert.match(show(podPath, 'route', 'show', 'table', '100'), /default via 172\.51\.0\.11 dev veth0/);
    assert.match(show(podPath, 'rule'), /1000:\s+from all fwmark 0x1 lookup 100/);
    assert.match(show(nodePath, 'rule'), /1000:\s+from all lookup 500/);
    assert.match(
      show(nodePath, 'route', 'show', 'table', '500'),
      new RegExp(`172\\.51\\.0\\.100 dev ${hostVethName(containerId)} .*scope link`),
    );
  });

  it('answers through the node what came through the node', async () => {
    // A client behind the node that the pod's own default route does not lead to.
    const clientPath = `${nodePath}c`;
    createNamedNetns(clientPath);
    try {
      using netns = Netns.openPath(clientPath);
      using node = RtNetlink.open(nodePath);
      using client = RtNetlink.open(clientPath);
      using pod = RtNetlink.open(podPath);
      node.addLink({ kind: 'veth', name: 'toclient', peer: { name: 'eth0', netnsFd: netns.fd } });
      const [near, far] = [node.mustLink('toclient').ifindex, client.mustLink('eth0').ifindex];
      node.setAddress({ ifindex: near, address: ip('203.0.113.1'), prefixLen: 24 });
      client.setAddress({ ifindex: far, address: ip('203.0.113.5'), prefixLen: 24 });
      node.setLink(near, { up: true });
      client.setLink(far, { up: true });
      client.addRoute({ family: 4, gateway: ip('203.0.113.1'), ifindex: far });
      pod.addRoute({ family: 4, gateway: ip('172.51.0.1'), ifindex: pod.mustLink('eth0').ifindex });
      writeSysctl(nodePath, 'net.ipv4.ip_forward', '1');
      writeSysctl(podPath, 'net.ipv4.conf.all.rp_filter', '1');

      await invoke('ADD');
      assert.ok(pings(clientPath, '172.51.0.100'), 'ping, although the pod checks reverse paths strictly');
      assert.equal(await greeting(podPath, clientPath, '172.51.0.100'), 'welcome', 'TCP');

      writeSysctl(podPath, 'net.ipv4.conf.all.rp_filter', '0');
      const veth0 = pod.mustLink('veth0').ifindex;
      assert.ok(pod.deleteQdisc(veth0, tcHandle.ingress));
      assert.equal(pings(clientPath, '172.51.0.100'), false, 'without the mark the answer goes astray');
      await assert.rejects(invoke('CHECK'), /veth0 does not mark what comes in/);
    } finally {
      removeNamedNetns(clientPath);
    }
  });

  it('can be called twice, and DEL removes the pair, also twice', async () => {
    await invoke('ADD');
    await invoke('ADD');
    assert.ok(pings(nodePath, '172.51.0.100'));
    await invoke('DEL');
    await invoke('DEL');
    using node = RtNetlink.open(nodePath);
    assert.equal(node.linkByName(hostVethName(containerId)), undefined);
    await assert.rejects(invoke('CHECK'), /veth0 is missing in the pod/);
  });

  it('names the key of a bad configuration', async () => {
    await assert.rejects(invoke('ADD', { mode: 'sideways' }), /coordinator configuration: mode/);
    await assert.rejects(invoke('ADD', { hijackCIDR: ['10.0.0.0/33'] }), /hijackCIDR: "10\.0\.0\.0\/33" is neither/);
    await assert.rejects(invoke('ADD', { podMACPrefix: '01:00' }), /podMACPrefix/);
    await assert.rejects(
      invoke('ADD', { mode: 'overlay' }),
      /overlay mode is for interfaces beside the default network/,
    );
    assert.deepEqual(made, [], 'nothing was made');
  });

  it('sets the MAC address from the prefix and the IPv4 address', async () => {
    await invoke('ADD', { podMACPrefix: '0a:1b', mode: 'underlay' });
    using pod = RtNetlink.open(podPath);
    assert.equal(pod.mustLink('eth0').mac, '0a:1b:ac:33:00:64');
  });
});
