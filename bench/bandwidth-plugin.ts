/**
 * A pod as Debian's CNI plugins `bridge` and `bandwidth` make it, on a veth pair; its peer at the other end of the node's wire:
 *
 *   pod eth0 ── veth ─ bridge ─ uplink ═══ eth0 peer
 */
import { execFileSync } from 'node:child_process';
import { address, randomSuffix } from '../src/datapath/test-bed.ts';
import { createNamedNetns, Netns, removeNamedNetns, RtNetlink } from '../src/kernel/index.ts';
import type { Direction } from './bandwidth-mechanisms.ts';

const pluginDir = '/usr/lib/cni';

export interface PluginLimit {
  readonly direction: Direction;
  readonly rateBps: number;
  readonly burstBits: number;
}

export class PluginBed implements Disposable {
  readonly #suffix = randomSuffix();
  readonly pod = this.#path('pod');
  readonly peer = this.#path('peer');
  readonly #node = this.#path('node');

  constructor(limit: PluginLimit) {
    try {
      for (const path of [this.pod, this.peer, this.#node]) createNamedNetns(path);
      this.#buildWire();
      const made = this.#plugin('bridge', {
        ...{ bridge: 'cni0', ipam: { type: 'static', addresses: [{ address: `${address.pod4}/24` }] } },
      });
      this.#ip(this.#node, 'link', 'set', 'uplink', 'master', 'cni0');
      const { direction, rateBps, burstBits } = limit;
      const prevResult: unknown = JSON.parse(made);
      this.#plugin('bandwidth', { [`${direction}Rate`]: rateBps, [`${direction}Burst`]: burstBits, prevResult });
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #buildWire(): void {
    using peer = Netns.openPath(this.peer);
    using node = RtNetlink.open(this.#node);
    node.addLink({ kind: 'veth', name: 'uplink', up: true, peer: { name: 'eth0', netnsFd: peer.fd } });
    this.#ip(this.peer, 'link', 'set', 'eth0', 'up');
    this.#ip(this.peer, 'addr', 'add', `${address.peer4}/24`, 'dev', 'eth0');
  }

  #path(end: string): string {
    return `/run/netns/sluice-test-${this.#suffix}-${end}`;
  }

  #ip(netns: string, ...args: readonly string[]): void {
    execFileSync('nsenter', [`--net=${netns}`, 'ip', ...args], { stdio: 'pipe' });
  }

  #plugin(type: string, config: object): string {
    const env = {
      ...{ PATH: process.env['PATH'], CNI_PATH: pluginDir, CNI_COMMAND: 'ADD', CNI_IFNAME: 'eth0' },
      ...{ CNI_CONTAINERID: `bench-${this.#suffix}`, CNI_NETNS: this.pod },
    };
    const input = JSON.stringify({ cniVersion: '0.4.0', name: 'bench', type, ...config });
    const options = { env, input, encoding: 'utf8', stdio: 'pipe' } as const;
    return execFileSync('nsenter', [`--net=${this.#node}`, `${pluginDir}/${type}`], options);
  }

  [Symbol.dispose](): void {
    for (const path of [this.pod, this.peer, this.#node]) removeNamedNetns(path);
  }
}
