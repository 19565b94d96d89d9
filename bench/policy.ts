/**
 * What policy costs on the wire: throughput, request/response, new connections, small packets between a pod and a peer on the
 * same parent interface, with 1, 1,000 and 10,000 rules; beside the bare interface, and beside an nftables set of as many
 * elements with connection tracking in the pod's namespace. All in one run, each round through every setup in turn.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { Datapath, type PolicyEntry } from '../src/datapath/datapath.ts';
import { address, mustPrefix, TestBpffs, TestPair, type PairLink } from '../src/datapath/test-bed.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { type BenchRow, type Suite, spread } from './report.ts';

const suite = 'policy';
const links: readonly PairLink[] = ['macvlan', 'veth'];
const ruleCounts = [1, 1_000, 10_000] as const;
const endpointId = 7;
const peerIdentity = 1_000;
const [TCP, UDP] = [6, 17];
const ports = { iperf: 5201, sockperf: 11111, connections: 7000 } as const;

type Metric = 'TCP throughput' | 'TCP request/response' | 'new connections' | '64-byte UDP';
const units: Readonly<Record<Metric, string>> = {
  'TCP throughput': 'Gbit/s',
  'TCP request/response': '1/s',
  'new connections': '1/s',
  '64-byte UDP': '1/s',
};
const metrics = Object.keys(units) as Metric[];

interface Setup {
  readonly name: string;
  readonly apply: () => void;
}

export const policySuite: Suite = {
  name: suite,
  describe: 'packets with 1, 1,000 and 10,000 rules, beside the bare interface and nftables (iperf3, sockperf, nft)',
  async run({ quick, log }) {
    const rows: BenchRow[] = [];
    for (const link of links) rows.push(...(await measureLink(link, quick ? 1 : 5, quick ? 1 : 2, log)));
    return rows;
  },
};

/** `seconds` for each figure. */
async function measureLink(
  link: PairLink,
  rounds: number,
  seconds: number,
  log: (line: string) => void,
): Promise<BenchRow[]> {
  using pair = new TestPair(link);
  using bpffs = new TestBpffs();
  using datapath = Datapath.open({ bpffsDir: bpffs.path });
  datapath.updateIpcache({ upsert: [[mustPrefix(`${address.peer4}/32`), peerIdentity]], remove: [] });
  using servers = await Servers.start(pair);
  const figures = new Map<string, number[]>();
  for (let round = 1; round <= rounds; round++) {
    // Another one begins each time, so that nobody always comes after the same neighbour.
    const setups = setupsOf(pair, datapath);
    for (const setup of [...setups.slice(round % setups.length), ...setups.slice(0, round % setups.length)]) {
      log(`${link}, round ${round} of ${rounds}: ${setup.name}`);
      setup.apply();
      for (const metric of metrics) {
        const key = `${setup.name} ${metric}`;
        figures.set(key, [...(figures.get(key) ?? []), servers.measure(metric, seconds)]);
      }
    }
  }
  datapath.detachEndpoint(endpointId);
  return rowsOf(link, figures);
}

// --- setups ---

function setupsOf(pair: TestPair, datapath: Datapath): Setup[] {
  const clear = (): void => {
    pair.run('pod', 'nft', 'flush', 'ruleset');
    if (datapath.endpoints().length > 0) datapath.detachEndpoint(endpointId);
  };
  const ours = (count: number): Setup => ({
    name: ruleText(count),
    apply: () => {
      clear();
      datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
      datapath.setPolicy(endpointId, { isolated: { ingress: true, egress: true }, entries: entries(count) });
    },
  });
  const nftables = (count: number): Setup => ({
    name: `nftables, ${ruleText(count)}`,
    apply: () => {
      clear();
      execFileSync('nsenter', [`--net=${pair.pod}`, 'nft', '-f', '-'], { input: ruleset(count) });
    },
  });
  return [{ name: 'bare', apply: clear }, ...ruleCounts.map(ours), ...ruleCounts.map(nftables)];
}

/** The peer's traffic matches one; the others are for peers that never show up. Replies pass as part of their connection. */
function entries(count: number): PolicyEntry[] {
  const entry = (identity: number, protocol: number, port: number, ruleId: number): PolicyEntry => ({
    ...{ direction: 'egress', identity, protocol, port, portPrefixLen: port === 0 ? 0 : 16, ruleId, action: 'allow' },
  });
  const others = Array.from({ length: count - 1 }, (_, i) => entry(peerIdentity + 1 + i, TCP, 443, 2 + i));
  return [entry(peerIdentity, TCP, 0, 1), entry(peerIdentity, UDP, 0, 1), ...others];
}

function ruleset(count: number): string {
  const elements = [
    `${address.peer4} . tcp`,
    `${address.peer4} . udp`,
    ...Array.from({ length: count - 1 }, (_, i) => `10.${100 + (i >>> 16)}.${(i >>> 8) & 255}.${i & 255} . tcp`),
  ];
  return `table inet bench {
  set allowed { type ipv4_addr . inet_proto; elements = { ${elements.join(', ')} } }
  chain output {
    type filter hook output priority 0; policy drop;
    ct state established,related accept
    oif lo accept
    ip daddr . meta l4proto @allowed accept
  }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iif lo accept
  }
}
`;
}

function ruleText(count: number): string {
  return count === 1 ? '1 rule' : `${count} rules`;
}

// --- measuring ---

/** The far ends, in the peer's namespace. */
class Servers implements Disposable {
  readonly #pair: TestPair;
  readonly #children: readonly ChildProcess[];

  private constructor(pair: TestPair, children: readonly ChildProcess[]) {
    this.#pair = pair;
    this.#children = children;
  }

  static async start(pair: TestPair): Promise<Servers> {
    const start = (command: string, ...args: string[]): ChildProcess =>
      spawn('nsenter', [`--net=${pair.peer}`, command, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
    const connections = start(...script('server', String(ports.connections)));
    const children = [
      start('iperf3', '-s', '-p', String(ports.iperf)),
      start('sockperf', 'sr', '--tcp', '-p', String(ports.sockperf)),
      connections,
    ];
    await new Promise<void>((resolve) => connections.stdout?.once('data', () => resolve()));
    return new Servers(pair, children);
  }

  measure(metric: Metric, seconds: number): number {
    switch (metric) {
      case 'TCP throughput':
        return this.#iperf(seconds).sum_received.bits_per_second / 1e9;
      case '64-byte UDP': {
        // 22 bytes of payload make a frame of 64; what arrived counts.
        const { sum } = this.#iperf(seconds, '-u', '-b', '0', '-l', '22');
        return (sum.packets - sum.lost_packets) / sum.seconds;
      }
      case 'TCP request/response':
        return this.#sockperf(seconds);
      case 'new connections':
        return Number(
          this.#pair.run('pod', ...script('client', address.peer4, String(ports.connections), String(seconds))),
        );
    }
  }

  [Symbol.dispose](): void {
    for (const child of this.#children) child.kill('SIGKILL');
  }

  #iperf(seconds: number, ...more: string[]): IperfEnd {
    const args = ['-c', address.peer4, '-p', String(ports.iperf), '-t', String(seconds), '-J', ...more];
    return (JSON.parse(this.#pair.run('pod', 'iperf3', ...args)) as { readonly end: IperfEnd }).end;
  }

  #sockperf(seconds: number): number {
    const args = ['pp', '--tcp', '-i', address.peer4, '-p', String(ports.sockperf), '-t', String(seconds)];
    const text = this.#pair.run('pod', 'sockperf', ...args);
    const found = /\[Valid Duration\] RunTime=([\d.]+) sec; SentMessages=\d+; ReceivedMessages=(\d+)/.exec(text);
    if (found === null) throw new Error(`sockperf printed no result: ${text}`);
    return Number(found[2]) / Number(found[1]);
  }
}

interface IperfEnd {
  readonly sum_received: { readonly bits_per_second: number };
  readonly sum: { readonly packets: number; readonly lost_packets: number; readonly seconds: number };
}

function script(...args: string[]): [string, ...string[]] {
  return [process.execPath, '--import', 'tsx', join(packageRoot(), 'bench', 'connections.ts'), ...args];
}

// --- results ---

function rowsOf(link: PairLink, figures: ReadonlyMap<string, readonly number[]>): BenchRow[] {
  const of = (setup: string, metric: Metric) => spread(figures.get(`${setup} ${metric}`) ?? []);
  const row = (metric: Metric, setup: string, baseline: string | null): BenchRow => {
    const found = of(setup, metric);
    const ratio = baseline === null ? null : found.value / of(baseline, metric).value;
    return { suite, case: `${link}, ${setup}`, metric, unit: units[metric], ...found, baseline, ratio };
  };
  return metrics.flatMap((metric) => [
    row(metric, 'bare', null),
    ...ruleCounts.flatMap((count) => [
      row(metric, ruleText(count), 'bare'),
      row(metric, ruleText(count), `nftables, ${ruleText(count)}`),
    ]),
    ...ruleCounts.slice(1).map((count) => row(metric, ruleText(count), ruleText(1))),
  ]);
}
