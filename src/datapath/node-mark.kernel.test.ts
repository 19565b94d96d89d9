/**
 * Who may call himself the node, with real packets:
 *
 *   client netns 10.1.0.20 ══ 10.1.0.1 node netns 10.0.0.1 ══ veth0 10.0.0.10 pod netns
 *                                forwards, masquerades              10.2.0.10 eth0 ══ 10.2.0.20 neighbour netns
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { createNamedNetns, Netns, removeNamedNetns, RtNetlink, withNetns } from '../kernel/index.ts';
import { listenTcp } from '../kernel/listen.ts';
import { tcHandle } from '../kernel/netlink/qdisc.ts';
import { writeSysctl } from '../kernel/sysctl.ts';
import { reservedIdentity } from './abi.ts';
import { Datapath, type EndpointPolicy, type PolicyEntry } from './datapath.ts';
import { ensureNodeMark, nodeMarkState } from './node-mark.ts';
import { mustPrefix, randomSuffix, TestBpffs, TestStack, whyNoKernelTests } from './test-bed.ts';

const endpointId = 7;
const interfaceName = 'veth0';
const pod4 = '10.0.0.10';
const forgedPort = 9;
const allowAddressOfNode: PolicyEntry = {
  ...{ direction: 'ingress', identity: reservedIdentity.host, protocol: 0, port: 0, portPrefixLen: 0 },
  ...{ ruleId: 300, action: 'allow' },
};
const ingressWith = (...entries: PolicyEntry[]): EndpointPolicy => ({
  isolated: { ingress: true, egress: false },
  entries,
});

class NodeBed implements Disposable {
  readonly #prefix = `/run/netns/sluice-test-${randomSuffix()}`;
  readonly node = `${this.#prefix}-node`;
  readonly pod = `${this.#prefix}-pod`;
  readonly client = `${this.#prefix}-client`;
  readonly neighbour = `${this.#prefix}-neighbour`;

  constructor() {
    try {
      this.#build();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #build(): void {
    for (const path of [this.node, this.pod, this.client, this.neighbour]) createNamedNetns(path);
    this.#join(this.pod, interfaceName, 10, '10.0.0');
    this.#join(this.client, 'eth0', 20, '10.1.0');
    this.#besideTheNode();
    using node = Netns.openPath(this.node);
    writeSysctl(node, 'net.ipv4.ip_forward', '1');
    const masquerade = 'chain out { type nat hook postrouting priority srcnat; oifname "to-10" masquerade; };';
    this.run('node', 'nft', `table ip sluice_test { ${masquerade} }`);
  }

  #join(path: string, name: string, host: number, net: string): void {
    using other = Netns.openPath(path);
    using node = RtNetlink.open(this.node);
    node.addLink({ kind: 'veth', name: `to-${host}`, up: true, peer: { name, netnsFd: other.fd } });
    this.run('node', 'ip', 'addr', 'add', `${net}.1/24`, 'dev', `to-${host}`);
    this.run(path === this.pod ? 'pod' : 'client', 'ip', 'addr', 'add', `${net}.${host}/24`, 'dev', name);
    using netlink = RtNetlink.open(path);
    netlink.setLink(netlink.mustLink(name).ifindex, { up: true });
    this.run(path === this.pod ? 'pod' : 'client', 'ip', 'route', 'add', 'default', 'via', `${net}.1`);
  }

  /** A neighbour on another interface of the pod, with the address of the node. */
  #besideTheNode(): void {
    using pod = Netns.openPath(this.pod);
    using netlink = RtNetlink.open(this.neighbour);
    netlink.addLink({ kind: 'veth', name: 'to-pod', up: true, peer: { name: 'eth0', netnsFd: pod.fd } });
    for (const address of ['10.2.0.20/24', '10.0.0.1/32'])
      this.run('neighbour', 'ip', 'addr', 'add', address, 'dev', 'to-pod');
    this.run('pod', 'ip', 'link', 'set', 'eth0', 'up');
    this.run('pod', 'ip', 'addr', 'add', '10.2.0.10/24', 'dev', 'eth0');
  }

  /** One packet of the neighbour to the pod; nobody answers him. */
  forge(): void {
    const script = `exec 3<>/dev/udp/10.2.0.10/${forgedPort}; echo >&3`;
    this.run('neighbour', 'ip', 'route', 'replace', '10.2.0.10', 'dev', 'to-pod', 'src', '10.0.0.1');
    this.run('neighbour', 'bash', '-c', script);
  }

  run(where: 'node' | 'pod' | 'client' | 'neighbour', command: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${this[where]}`, command, ...args], { encoding: 'utf8', stdio: 'pipe' });
  }

  reaches(from: 'node' | 'client'): boolean {
    try {
      this.run(from, 'ping', '-q', '-n', '-c', '1', '-W', '0.4', pod4);
      return true;
    } catch {
      return false;
    }
  }

  [Symbol.dispose](): void {
    for (const path of [this.node, this.pod, this.client, this.neighbour]) removeNamedNetns(path);
  }
}

class Listening implements Disposable {
  readonly server: Server;

  constructor(fd: number) {
    this.server = createServer().listen({ fd });
  }

  [Symbol.dispose](): void {
    this.server.close();
  }
}

describe('what the node itself sends', { skip: whyNoKernelTests() ?? false }, () => {
  let stack: TestStack;
  let bed: NodeBed;
  let datapath: Datapath;
  const target = () => ({ endpointId, netns: bed.pod, interfaceName });

  beforeEach(() => {
    stack = new TestStack();
    bed = stack.use(new NodeBed());
    datapath = stack.use(Datapath.open({ bpffsDir: stack.use(new TestBpffs()).path, limits: { conntrack: 8192 } }));
    datapath.attach(target());
    datapath.updateIpcache({ upsert: [[mustPrefix('10.0.0.1/32'), reservedIdentity.host]], remove: [] });
    datapath.setPolicy(endpointId, ingressWith());
  });
  afterEach(() => stack[Symbol.dispose]());

  it('is told from what it masquerades, which policy judges by the address it has', () => {
    assert.ok(bed.reaches('node'));
    assert.ok(bed.reaches('client'), 'unmarked, whoever has the address of the node counts as the node');
    withNetns(bed.node, () => datapath.markNode(target()));
    assert.ok(bed.reaches('node'));
    assert.ok(!bed.reaches('client'));
    assert.ok(datapath.dropCounters().some(({ reason, direction }) => reason === 'policy' && direction === 'ingress'));
    datapath.setPolicy(endpointId, ingressWith(allowAddressOfNode));
    assert.ok(bed.reaches('client'), 'an ipBlock may still name the node');
  });

  it('is not what a neighbour sends who writes the same mark, with the address of the node', () => {
    datapath.attach({ ...target(), interfaceName: 'eth0' });
    withNetns(bed.node, () => datapath.markNode(target()));
    assert.notEqual(
      withNetns(bed.neighbour, () => ensureNodeMark(bed.pod, 'eth0')),
      undefined,
    );
    const dropped = (): bigint =>
      datapath
        .dropCounters()
        .filter(({ direction, reason }) => direction === 'ingress' && reason === 'policy')
        .reduce((sum, { packets }) => sum + packets, 0n);
    assert.ok(bed.reaches('node'));
    const before = dropped();
    bed.forge();
    assert.ok(dropped() > before, 'dropped by policy');
    const connections = datapath.connections(100).filter(({ localPort }) => localPort === forgedPort);
    assert.deepEqual(connections, [], 'and not let in as the node');
    assert.ok(bed.reaches('node'));
  });

  it('stays the node for what the pod sends, when that is judged first after a change', async () => {
    withNetns(bed.node, () => datapath.markNode(target()));
    datapath.setPolicy(endpointId, { isolated: { ingress: false, egress: false }, entries: [] });
    const { fd, port } = listenTcp(bed.pod, '0.0.0.0', 0);
    const server = stack.use(new Listening(fd));
    const script = `exec 3<>/dev/tcp/${pod4}/${port}; head -c 7 <&3`;
    const client = promisify(execFile)('nsenter', [`--net=${bed.node}`, 'bash', '-c', script], { timeout: 20_000 });
    const [socket] = (await once(server.server, 'connection')) as [Socket];
    datapath.setPolicy(endpointId, ingressWith());
    socket.end('welcome');
    assert.equal((await client).stdout, 'welcome');
  });

  it('keeps the mark through changes of policy, and is closed, not open, without the filter', () => {
    withNetns(bed.node, () => datapath.markNode(target()));
    assert.ok(withNetns(bed.node, () => datapath.isNodeMarked(target())));
    datapath.setPolicy(endpointId, ingressWith({ ...allowAddressOfNode, identity: 999 }));
    assert.ok(withNetns(bed.node, () => datapath.isNodeMarked(target())));
    using node = RtNetlink.open(bed.node);
    node.deleteQdisc(node.mustLink('to-10').ifindex, tcHandle.ingress);
    assert.equal(
      withNetns(bed.node, () => nodeMarkState(bed.pod, interfaceName)),
      'unmarked',
    );
    assert.ok(!bed.reaches('node'));
    withNetns(bed.node, () => datapath.markNode(target()));
    assert.ok(bed.reaches('node'));
  });

  it('leaves nothing on the node’s end when the endpoint goes', () => {
    withNetns(bed.node, () => datapath.markNode(target()));
    withNetns(bed.node, () => datapath.detachEndpoint(endpointId, [target()]));
    using node = RtNetlink.open(bed.node);
    const kinds = node.qdiscs(node.mustLink('to-10').ifindex).map(({ kind }) => kind);
    assert.ok(!kinds.includes('clsact'), kinds.join());
    assert.ok(bed.reaches('node') && bed.reaches('client'));
  });

  it('leaves an endpoint alone whose other end is not here', () => {
    assert.equal(nodeMarkState(bed.pod, interfaceName), 'elsewhere');
    datapath.markNode(target());
    assert.ok(bed.reaches('client'), 'nothing has changed');
  });
});
