/** What the kernel tests of this folder stand on; everything it makes is its own and is removed again. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmdirSync } from 'node:fs';
import { createNamedNetns, Netns, removeNamedNetns, RtNetlink, withNetns } from '../kernel/index.ts';
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

/** A pod's netns and the one of whoever talks to it, joined by a veth pair or by two macvlans on one end of it. */
export class TestPair implements Disposable {
  readonly pod: string;
  readonly peer: string;
  readonly interfaceName = 'eth0';

  constructor(kind: 'veth' | 'macvlan') {
    const suffix = randomSuffix();
    this.pod = `/run/netns/sluice-test-${suffix}-pod`;
    this.peer = `/run/netns/sluice-test-${suffix}-peer`;
    try {
      this.#build(kind);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #build(kind: 'veth' | 'macvlan'): void {
    createNamedNetns(this.pod);
    createNamedNetns(this.peer);
    using pod = Netns.openPath(this.pod);
    using peer = Netns.openPath(this.peer);
    using netlink = RtNetlink.open(peer);
    if (kind === 'veth') {
      netlink.addLink({ kind: 'veth', name: 'eth0', up: true, peer: { name: 'eth0', netnsFd: pod.fd } });
    } else {
      netlink.addLink({ kind: 'veth', name: 'parent', peer: { name: 'other' } });
      const parentIfindex = netlink.mustLink('parent').ifindex;
      for (const name of ['parent', 'other']) netlink.setLink(netlink.mustLink(name).ifindex, { up: true });
      netlink.addLink({ kind: 'macvlan', name: 'eth0', parentIfindex, mode: 'bridge' });
      netlink.addLink({ kind: 'macvlan', name: 'pod0', parentIfindex, mode: 'bridge' });
      netlink.setLink(netlink.mustLink('pod0').ifindex, { name: 'eth0', netnsFd: pod.fd });
    }
    configure(this.pod, 10);
    configure(this.peer, 20);
  }

  /** Runs a program inside one of the two and returns its output; throws when it fails. */
  run(where: 'pod' | 'peer', command: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${this[where]}`, command, ...args], { encoding: 'utf8', stdio: 'pipe' });
  }

  /** One packet each; true when all were answered. */
  ping(from: 'pod' | 'peer', to: string, count = 1): boolean {
    try {
      this.run(from, 'ping', '-q', '-n', '-c', String(count), '-i', '0.2', '-W', '1', to);
      return true;
    } catch {
      return false;
    }
  }

  [Symbol.dispose](): void {
    removeNamedNetns(this.pod);
    removeNamedNetns(this.peer);
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
