/** What the kernel tests of this folder stand on; everything it makes is its own and is removed again. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  createNamedNetns,
  Errno,
  isErrno,
  Netns,
  removeNamedNetns,
  RtNetlink,
  SyscallError,
  withNetns,
} from '../kernel/index.ts';
import { Cgroup, findCgroup2Mount } from '../kernel/cgroup.ts';
import type { LinkSpec } from '../kernel/netlink/link.ts';
import { ensureBpffs, unmount } from '../kernel/mount.ts';
import { parseIp, parsePrefix, type IpAddress, type IpPrefix } from '../core/ip.ts';

export function randomSuffix(): string {
  return randomBytes(4).toString('hex');
}

/** A bpffs of its own. */
export class TestBpffs implements Disposable {
  readonly path = `/tmp/sluice-test-${randomSuffix()}-bpf`;

  constructor() {
    mkdirSync(this.path, { recursive: true });
    ensureBpffs(this.path);
  }

  [Symbol.dispose](): void {
    unmount(this.path, { lazy: true });
    rmdirSync(this.path);
  }
}

/** Interfaces that a pod may have. `ipvlan-l2` and `ipvlan-l3` are ipvlan in that mode. */
export type PairLink = 'veth' | 'macvlan' | 'ipvlan-l2' | 'ipvlan-l3';

/**
 * Where the other end is. `beside`: on the pod's own parent interface, so that packets never leave the device.
 * `outside`: at the far end of the parent's wire.
 */
export type PeerPlace = 'beside' | 'outside';

/**
 * A pod's netns and the one of whoever talks to it, joined by a veth pair, or by interfaces on a parent:
 *
 *   beside    pod eth0 ── parent ── eth0 peer            (the parent and its wire lie in the peer's netns)
 *   outside   pod eth0 ── parent ═══ eth0 peer           (the parent, 10.0.0.1, lies in a netns of its own)
 */
export class TestPair implements Disposable {
  readonly pod: string;
  readonly peer: string;
  readonly interfaceName = 'eth0';
  readonly #node: string;

  constructor(link: PairLink, place: PeerPlace = 'beside') {
    const suffix = randomSuffix();
    this.pod = `/run/netns/sluice-test-${suffix}-pod`;
    this.peer = `/run/netns/sluice-test-${suffix}-peer`;
    this.#node = `/run/netns/sluice-test-${suffix}-node`;
    try {
      createNamedNetns(this.pod);
      createNamedNetns(this.peer);
      if (link === 'veth') this.#buildVeth();
      else if (place === 'beside') this.#buildBeside(link);
      else this.#buildOutside(link);
      configure(this.pod, 10);
      configure(this.peer, 20);
      if (place === 'outside' && link === 'ipvlan-l3') this.#addNeighbours();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #buildVeth(): void {
    using pod = Netns.openPath(this.pod);
    using netlink = RtNetlink.open(this.peer);
    netlink.addLink({ kind: 'veth', name: 'eth0', up: true, peer: { name: 'eth0', netnsFd: pod.fd } });
  }

  #buildBeside(link: Exclude<PairLink, 'veth'>): void {
    using netlink = RtNetlink.open(this.peer);
    netlink.addLink({ kind: 'veth', name: 'parent', peer: { name: 'other' } });
    const parentIfindex = netlink.mustLink('parent').ifindex;
    for (const name of ['parent', 'other']) netlink.setLink(netlink.mustLink(name).ifindex, { up: true });
    netlink.addLink(slaveOf(parentIfindex, link, 'eth0'));
    this.#addPodLink(netlink, parentIfindex, link);
  }

  #buildOutside(link: Exclude<PairLink, 'veth'>): void {
    createNamedNetns(this.#node);
    using peer = Netns.openPath(this.peer);
    using netlink = RtNetlink.open(this.#node);
    netlink.addLink({ kind: 'veth', name: 'eth0', up: true, peer: { name: 'eth0', netnsFd: peer.fd } });
    this.#addPodLink(netlink, netlink.mustLink('eth0').ifindex, link);
    configure(this.#node, 1);
  }

  #addPodLink(netlink: RtNetlink, parentIfindex: number, link: Exclude<PairLink, 'veth'>): void {
    using pod = Netns.openPath(this.pod);
    netlink.addLink(slaveOf(parentIfindex, link, 'pod0'));
    netlink.setLink(netlink.mustLink('pod0').ifindex, { name: 'eth0', netnsFd: pod.fd });
  }

  /** ipvlan in mode l3 answers neither ARP nor neighbour solicitations: who is outside must know the parent's address. */
  #addNeighbours(): void {
    using node = RtNetlink.open(this.#node);
    const { mac } = node.mustLink('eth0');
    for (const to of [address.pod4, address.pod6])
      this.run('peer', 'ip', 'neigh', 'add', to, 'lladdr', mac, 'dev', 'eth0');
  }

  /** Runs a program inside one of the two and returns its output; throws when it fails. */
  run(where: 'pod' | 'peer', command: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${this[where]}`, command, ...args], { encoding: 'utf8', stdio: 'pipe' });
  }

  /** One packet each; true when all were answered. */
  ping(from: 'pod' | 'peer', to: string, count = 1, waitS = 1): boolean {
    try {
      this.run(from, 'ping', '-q', '-n', '-c', String(count), '-i', '0.2', '-W', String(waitS), to);
      return true;
    } catch {
      return false;
    }
  }

  /** No answer to a packet, in a time that is hundreds of round trips: what is tested a dozen times should not wait a second each. */
  isCut(from: 'pod' | 'peer', to: string): boolean {
    return !this.ping(from, to, 1, 0.4);
  }

  [Symbol.dispose](): void {
    for (const path of [this.pod, this.peer, this.#node]) removeNamedNetns(path);
  }
}

function slaveOf(parentIfindex: number, link: Exclude<PairLink, 'veth'>, name: string): LinkSpec {
  if (link === 'macvlan') return { kind: 'macvlan', name, parentIfindex, mode: 'bridge' };
  return { kind: 'ipvlan', name, parentIfindex, mode: link === 'ipvlan-l2' ? 'l2' : 'l3' };
}

/** Undefined where the kernel has interfaces of this kind. In the VM (SLUICE_VM=1) it must: a skip would hide a failure. */
export function whyNoLink(link: PairLink, env: Readonly<Record<string, string | undefined>>): string | undefined {
  if (whyNoKernelTests() !== undefined) return undefined;
  try {
    new TestPair(link)[Symbol.dispose]();
    return undefined;
  } catch (error) {
    if (env['SLUICE_VM'] === '1' || !isErrno(error, Errno.EOPNOTSUPP)) throw error;
    return `this kernel has no ${link}`;
  }
}

export const address = { pod4: '10.0.0.10', pod6: 'fd00::10', peer4: '10.0.0.20', peer6: 'fd00::20' } as const;

function configure(path: string, host: number): void {
  using netlink = RtNetlink.open(path);
  for (const name of ['lo', 'eth0']) netlink.setLink(netlink.mustLink(name).ifindex, { up: true });
  withNetns(path, () => {
    execFileSync('ip', ['addr', 'add', `10.0.0.${host}/24`, 'dev', 'eth0']);
    execFileSync('ip', ['addr', 'add', `fd00::${host}/64`, 'dev', 'eth0', 'nodad']);
  });
}

export function mustIp(text: string): IpAddress {
  const parsed = parseIp(text);
  if (parsed === undefined) throw new TypeError(`not an address: ${text}`);
  return parsed;
}

export function mustPrefix(text: string): IpPrefix {
  const parsed = parsePrefix(text);
  if (parsed === undefined) throw new TypeError(`not a prefix: ${text}`);
  return parsed;
}

/** "EPERM" and the like, or "done": what the work meets in the cgroup. Sockets belong to the cgroup in which they were made. */
export function errnoIn(cgroup: Cgroup, work: () => void): string {
  const [, own = '/'] = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8')) ?? [];
  cgroup.addProcess(process.pid);
  try {
    work();
    return 'done';
  } catch (error) {
    if (error instanceof SyscallError) return error.errnoName;
    throw error;
  } finally {
    new Cgroup(join(findCgroup2Mount(), own)).addProcess(process.pid);
  }
}

/** Disposes of what it was given, last first. (DisposableStack is not in Node 20.) */
export class TestStack implements Disposable {
  readonly #owned: Disposable[] = [];

  use<T extends Disposable>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }

  [Symbol.dispose](): void {
    for (const resource of this.#owned.splice(0).reverse()) resource[Symbol.dispose]();
  }
}

/** Undefined on a machine that can run the kernel tests. */
export function whyNoKernelTests(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'needs root';
}
