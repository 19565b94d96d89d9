/**
 * Two pods on one parent, each with a peer of its own behind one slow wire; the experiment behind
 * docs/decisions/0009-no-aggregate-limit.md.
 *
 *   guaranteed ─┐                                                              ┌─ guaranteed's peer
 *               ├─ parent (eth0, the node's) ═ switch, the wire's rate both ways ═┤
 *   flood ──────┘                                                              └─ flood's peer
 */
import { execFileSync } from 'node:child_process';
import { randomSuffix } from '../src/datapath/test-bed.ts';
import { createNamedNetns, removeNamedNetns } from '../src/kernel/index.ts';
import type { Direction } from './bandwidth-mechanisms.ts';

export const addresses = {
  ...{ guaranteed: '10.0.0.10', flood: '10.0.0.11' },
  ...{ 'guaranteed-peer': '10.0.0.20', 'flood-peer': '10.0.0.21' },
} as const;
const ends = ['node', 'switch', 'guaranteed', 'flood', 'guaranteed-peer', 'flood-peer'] as const;
type End = (typeof ends)[number];

export interface Aggregate {
  readonly rateBps: number;
  readonly guaranteedBps: number;
}

export class AggregateBed implements Disposable {
  readonly #suffix = randomSuffix();

  constructor(link: 'macvlan' | 'ipvlan') {
    try {
      for (const end of ends) createNamedNetns(this.path(end));
      this.#buildWire();
      for (const end of ['guaranteed', 'flood'] as const) {
        const mode = link === 'macvlan' ? 'bridge' : 'l2';
        this.ip('node', `link add pod0 link eth0 type ${link} mode ${mode}`);
        this.ip('node', `link set pod0 netns ${this.path(end)} name eth0`);
      }
      for (const [end, address] of Object.entries(addresses)) {
        this.ip(end as End, `addr add ${address}/24 dev eth0`);
        this.ip(end as End, 'link set eth0 up');
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #buildWire(): void {
    for (const bridge of ['br0', 'br1']) this.ip('switch', `link add ${bridge} up type bridge`);
    this.ip('switch', 'link add trunk0 type veth peer name trunk1');
    this.ip('switch', 'link set trunk0 master br0 up');
    this.ip('switch', 'link set trunk1 master br1 up');
    for (const [port, end, bridge] of [
      ['tonode', 'node', 'br0'],
      ['peer0', 'guaranteed-peer', 'br1'],
      ['peer1', 'flood-peer', 'br1'],
    ] as const) {
      this.ip('switch', `link add ${port} type veth peer name eth0 netns ${this.path(end)}`);
      this.ip('switch', `link set ${port} master ${bridge} up`);
      this.ip(end, 'link set eth0 up');
    }
  }

  /** A switch port's buffer is shallow: 40 ms here. */
  limitWire(rateBps: number): void {
    const bytes = Math.ceil(rateBps / 8 / 50);
    for (const port of ['tonode', 'trunk0'])
      this.#tc('switch', `qdisc replace dev ${port} root tbf rate ${rateBps}bit burst ${bytes} limit ${2 * bytes}`);
  }

  /** HTB in front of all that the parent sends, or of an ifb through which all passes that it receives. Packets are told by address. */
  limitParent(direction: Direction, { rateBps, guaranteedBps }: Aggregate): void {
    const device = direction === 'egress' ? 'eth0' : 'ifb0';
    if (direction === 'ingress') this.ip('node', 'link add ifb0 type ifb');
    if (direction === 'ingress') this.ip('node', 'link set ifb0 up');
    const size = `burst ${Math.ceil(rateBps / 8 / 50)} cburst ${Math.ceil(rateBps / 8 / 50)} quantum 1514`;
    const others = rateBps - guaranteedBps;
    this.#tc('node', `qdisc add dev ${device} root handle 9: htb default 3`);
    this.#tc('node', `class add dev ${device} parent 9: classid 9:9 htb rate ${rateBps}bit ceil ${rateBps}bit ${size}`);
    for (const [minor, bps] of [
      [1, guaranteedBps],
      [3, others],
    ] as const) {
      this.#tc(
        'node',
        `class add dev ${device} parent 9:9 classid 9:${minor} htb rate ${bps}bit ceil ${rateBps}bit prio ${minor} ${size}`,
      );
      this.#tc(
        'node',
        `qdisc add dev ${device} parent 9:${minor} handle 9${minor}: bfifo limit ${Math.ceil(rateBps / 8 / 40)}`,
      );
    }
    const field = direction === 'egress' ? 'src' : 'dst';
    const match = `u32 match ip ${field} ${addresses.guaranteed}`;
    this.#tc('node', `filter add dev ${device} parent 9: protocol ip prio 1 ${match} flowid 9:1`);
    if (direction === 'egress') return;
    this.#tc('node', 'qdisc add dev eth0 clsact');
    const redirect = 'u32 match u32 0 0 action mirred egress redirect dev ifb0';
    this.#tc('node', `filter add dev eth0 ingress protocol all prio 1 ${redirect}`);
  }

  path(end: End): string {
    return `/run/netns/sluice-test-${this.#suffix}-${end}`;
  }

  ip(end: End, line: string): void {
    this.#run(end, 'ip', line);
  }

  #tc(end: End, line: string): void {
    this.#run(end, 'tc', line);
  }

  #run(end: End, command: string, line: string): void {
    execFileSync('nsenter', [`--net=${this.path(end)}`, command, ...line.split(' ')], { stdio: 'pipe' });
  }

  [Symbol.dispose](): void {
    for (const end of ends) removeNamedNetns(this.path(end));
  }
}
