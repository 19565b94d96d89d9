/**
 * An agent with 110 pods that knows 30,000 pods and as many policies: how long from a change at the API server until the
 * kernel's maps answer by it, how long until a starting agent has brought every endpoint up to date, and how much memory.
 * Side by side with a tenth of the cluster.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NetworkPolicy, Pod } from '../src/api/kubernetes.ts';
import { networkPolicies, pods } from '../src/api/resources.ts';
import { stopSignal } from '../src/cli/process.ts';
import { parseIp, type IpAddress } from '../src/core/ip.ts';
import { TestBpffs } from '../src/datapath/test-bed.ts';
import { createNamedNetns, Netns, removeNamedNetns, RtNetlink } from '../src/kernel/index.ts';
import { AgentBuild, type AgentPaths, type BenchAgent } from './agent-process.ts';
import { type FirstPacket, KernelVerdict } from './kernel-verdict.ts';
import { type BenchRow, percentile, type Suite } from './report.ts';
import { ScaleApi } from './scale-api.ts';
import { appName, localNode, namespaceName, podIp, runningPod, scaleWorld, type ScaleWorld } from './scale-world.ts';

const suite = 'scale';
const sizes = [3_000, 30_000] as const;
const TCP = 6;
const enforcedWithinMs = 60_000;

interface MeasureOptions {
  readonly rounds: number;
  readonly stop: AbortSignal;
  readonly log: (line: string) => void;
}

interface Measured {
  readonly size: number;
  readonly coldStartMs: number;
  readonly restartMs: number;
  readonly addMs: readonly number[];
  readonly changes: ReadonlyMap<ChangeKind, readonly number[]>;
  readonly rss: number;
  readonly peak: number;
}

export const scaleSuite: Suite = {
  name: suite,
  describe: 'an agent with 110 pods among 30,000 pods and 30,000 policies: time to enforce a change, start, memory',
  async run({ quick, log }) {
    const stop = stopSignal();
    using program = await AgentBuild.make();
    const results: Measured[] = [];
    for (const size of process.env['SLUICE_BENCH_SIZES']?.split(',').map(Number) ?? sizes) {
      log(`${size} pods and policies`);
      results.push(await measure(program, size, { rounds: quick ? 20 : 200, stop, log }));
    }
    return results.flatMap((result) => rowsOf(result, results[0]));
  },
};

/** The agent, what it is fed with and what it holds; all of it goes with it. */
class Bed implements AsyncDisposable {
  readonly world: ScaleWorld;
  readonly api: ScaleApi;
  readonly paths: AgentPaths;
  readonly netns: readonly string[];
  /** Aborted when the bench is to end: what waits then fails, and the bed is taken away. */
  readonly stop: AbortSignal;
  readonly #bpffs: TestBpffs;
  readonly #dir: string;
  agent: BenchAgent | undefined;

  private constructor(world: ScaleWorld, api: ScaleApi, stop: AbortSignal) {
    this.world = world;
    this.api = api;
    this.stop = stop;
    this.#bpffs = new TestBpffs();
    this.#dir = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
    this.paths = {
      kubeConfigPath: api.kubeConfigPath,
      bpffsDir: join(this.#bpffs.path, 'sluice'),
      stateDir: join(this.#dir, 'state'),
      cniSocketPath: join(this.#dir, 'cni.sock'),
    };
    const tag = this.#dir.slice(-6);
    this.netns = world.local.map((_, i) => `/run/netns/sluice-bench-${tag}-${i}`);
  }

  static async make(size: number, stop: AbortSignal): Promise<Bed> {
    const world = scaleWorld(size);
    const bed = new Bed(world, await ScaleApi.start(world), stop);
    for (const path of bed.netns) makePodNetns(path);
    return bed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent?.stop();
    for (const path of this.netns) removeNamedNetns(path);
    await this.api[Symbol.asyncDispose]();
    this.#bpffs[Symbol.dispose]();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

async function measure(program: AgentBuild, size: number, { rounds, stop, log }: MeasureOptions): Promise<Measured> {
  await using bed = await Bed.make(size, stop);
  log(`  ${(bed.api.size / 2 ** 20).toFixed(0)} MiB of JSON in the API server`);
  const startedMs = performance.now();
  bed.agent = program.start(bed.paths, localNode);
  await until('the agent serves', () => existsSync(bed.paths.cniSocketPath), bed);
  const addMs = await addPods(bed, bed.agent);
  const coldStartMs = performance.now() - startedMs - addMs.slice(1).reduce((sum, ms) => sum + ms, 0);
  log(`  ${addMs.length} pods added, ${bed.agent.memory().rss.toFixed(0)} MiB`);
  using kernel = new KernelVerdict(bed.paths.bpffsDir);
  const changes = await measureChanges(bed, kernel, rounds, log);
  const { rss, peak } = bed.agent.memory();
  log(`  ${rss.toFixed(0)} MiB, at most ${peak.toFixed(0)}; restarting`);
  const restartMs = await measureRestart(program, bed, kernel);
  return { size, coldStartMs, restartMs, addMs, changes, rss, peak };
}

// --- pods ---

function makePodNetns(path: string): void {
  createNamedNetns(path);
  using netns = Netns.openPath(path);
  using netlink = RtNetlink.open(netns);
  netlink.addLink({ kind: 'veth', name: 'eth0', peer: { name: 'other' } });
}

/** Milliseconds of each ADD; the first waits for the agent's informers. Endpoint ids are given in this order, from 1. */
async function addPods(bed: Bed, agent: BenchAgent): Promise<number[]> {
  const times: number[] = [];
  for (const [i, index] of bed.world.local.entries()) {
    bed.stop.throwIfAborted();
    const before = performance.now();
    const pod = mustPod(bed.world, index);
    await addWhenReady(agent, bed.netns[i] ?? '', pod, podIp(index));
    times.push(performance.now() - before);
    bed.api.put(pods, runningPod(pod, podIp(index)));
  }
  return times;
}

async function addWhenReady(agent: BenchAgent, netns: string, { metadata }: Pod, ip: string): Promise<void> {
  const { namespace = '', name = '', uid = '' } = metadata ?? {};
  const environment = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: `bench-${uid}`,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
  };
  const prevResult = {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'eth0', sandbox: netns }],
    ips: [{ address: `${ip}/16`, interface: 0 }],
  };
  const stdin = JSON.stringify({ cniVersion: '1.0.0', name: 'bench', type: 'sluice', prevResult });
  for (let attempt = 1; ; attempt++) {
    try {
      await agent.call({ plugin: 'sluice', environment, stdin });
      return;
    } catch (error) {
      // 11 "try again later": its informers are on their way. Refused: it has made the socket, and does not listen yet.
      if (attempt === 10 || !/"code":11|ECONNREFUSED/.test(String(error))) throw error;
      await pause(100);
    }
  }
}

// --- changes ---

const changeKinds = [
  'another port',
  'another selector',
  'a new ipBlock',
  'an ipBlock around pods',
  'pod label',
] as const;
type ChangeKind = (typeof changeKinds)[number];
const policyChangeKinds: readonly ChangeKind[] = changeKinds.filter((kind) => kind !== 'pod label');

interface Change {
  /** What has to be in force before, and how that shows. */
  readonly before?: { readonly send: () => number; readonly expected: FirstPacket };
  /** Sends it; answers when it was sent. */
  readonly send: () => number;
  /** What the kernel is to allow afterwards, and did not before. */
  readonly expected: FirstPacket;
}

async function measureChanges(
  bed: Bed,
  kernel: KernelVerdict,
  rounds: number,
  log: (line: string) => void,
): Promise<Map<ChangeKind, number[]>> {
  const times = new Map<ChangeKind, number[]>(changeKinds.map((kind) => [kind, []]));
  for (let round = 0; round < rounds; round++) {
    for (const kind of changeKinds) {
      const change = changeOf(kind, bed, round);
      const { before } = change;
      before?.send();
      await until(`${kind} is prepared`, () => before === undefined || kernel.allowed(before.expected), bed);
      if (kernel.allowed(change.expected)) throw new Error(`${kind}, round ${round}: allowed before the change`);
      const sentMs = change.send();
      await until(`${kind} is in the kernel`, () => kernel.allowed(change.expected), bed);
      times.get(kind)?.push(performance.now() - sentMs);
      // So that a run of the agent is not still under way, and changes do not keep step with its pauses.
      await pause(10 + ((round * 7) % 10));
    }
  }
  for (const [kind, samples] of times)
    log(`  ${kind}: p50 ${percentile(samples, 50).toFixed(1)} ms, p99 ${percentile(samples, 99).toFixed(1)} ms`);
  return times;
}

function changeOf(kind: ChangeKind, bed: Bed, round: number): Change {
  const { world, api } = bed;
  const at = round % world.local.length;
  const own = mustPod(world, world.local[at] ?? 0);
  const namespace = own.metadata?.namespace ?? '';
  const neighbour = mustPod(world, (world.local[at] ?? 0) + 5); // the namespace's next application
  const port = 10_000 + round;
  const ingress = (remote: string, to: number): FirstPacket => ({
    endpointId: at + 1,
    direction: 'ingress',
    remote: mustIp(remote),
    protocol: TCP,
    port: to,
  });
  const tcp = (to: number): object[] => [{ protocol: 'TCP', port: to }];
  const policy = (name: string, rules: readonly object[]): (() => number) => {
    const object: NetworkPolicy = {
      metadata: { namespace, name, uid: `${namespace}-${name}` },
      spec: { podSelector: { matchLabels: { app: appName(0) } }, policyTypes: ['Ingress'], ingress: rules },
    };
    return () => api.put(networkPolicies, object);
  };
  switch (kind) {
    case 'another port':
      return { send: policy('changing-port', [{ ports: tcp(port) }]), expected: ingress('203.0.113.7', port) };
    case 'another selector': {
      const rule = {
        from: [{ podSelector: { matchLabels: neighbour.metadata?.labels ?? {} } }],
        ports: tcp(port + 1000),
      };
      return { send: policy('changing-selector', [rule]), expected: ingress(ipOf(neighbour), port + 1000) };
    }
    case 'a new ipBlock': {
      const net = `198.${18 + (round >>> 8)}.${round & 255}`;
      const rule = { from: [{ ipBlock: { cidr: `${net}.0/24` } }], ports: tcp(port + 2000) };
      return { send: policy('changing-block', [rule]), expected: ingress(`${net}.9`, port + 2000) };
    }
    case 'an ipBlock around pods': {
      // A /24 of 256 pods: each gets another identity.
      const first = (round * 256) % world.pods.length;
      const cidr = `${podIp(first - (first % 256))}/24`;
      const rule = { from: [{ ipBlock: { cidr } }], ports: tcp(port + 3000) };
      return { send: policy('changing-pod-block', [rule]), expected: ingress(podIp(first), port + 3000) };
    }
    case 'pod label': {
      const labels = { ...neighbour.metadata?.labels, bench: `round-${round}` };
      const changed = { ...neighbour, metadata: { ...neighbour.metadata, labels } };
      const from = [{ podSelector: { matchLabels: { bench: `round-${round}` } } }];
      const rules = [{ from, ports: tcp(port + 4000) }, { ports: tcp(port + 5000) }];
      return {
        before: { send: policy('changing-label', rules), expected: ingress('203.0.113.7', port + 5000) },
        send: () => api.put(pods, changed),
        expected: ingress(ipOf(neighbour), port + 4000),
      };
    }
  }
}

/** While the agent is away, a policy of every local pod changes; measured until the kernel has all of them. */
async function measureRestart(program: AgentBuild, bed: Bed, kernel: KernelVerdict): Promise<number> {
  await bed.agent?.stop();
  const port = 20_000;
  const expected = bed.world.local.map((_, i): FirstPacket => {
    const rule = { ports: [{ protocol: 'TCP', port }] };
    bed.api.put(networkPolicies, {
      metadata: { namespace: namespaceName(i), name: 'while-away', uid: `away-${i}` },
      spec: { podSelector: {}, policyTypes: ['Ingress'], ingress: [rule] },
    } as NetworkPolicy);
    return { endpointId: i + 1, direction: 'ingress', remote: mustIp('203.0.113.7'), protocol: TCP, port };
  });
  const startedMs = performance.now();
  bed.agent = program.start(bed.paths, localNode);
  const open = new Set(expected);
  await until(
    'every endpoint is up to date',
    () => {
      for (const packet of open) {
        if (!kernel.allowed(packet)) return false;
        open.delete(packet);
      }
      return true;
    },
    bed,
    5,
  );
  return performance.now() - startedMs;
}

// --- results ---

function rowsOf(result: Measured, smallest: Measured | undefined): BenchRow[] {
  const isBase = result === smallest;
  const baseline = isBase ? null : `${smallest?.size} pods`;
  const row = (what: string, metric: string, unit: string, of: (from: Measured) => number): BenchRow => {
    const value = of(result);
    const ratio = isBase || smallest === undefined ? null : value / of(smallest);
    return {
      suite,
      case: `${result.size} pods, ${what}`,
      metric,
      unit,
      value,
      min: value,
      max: value,
      baseline,
      ratio,
    };
  };
  const delays = (what: string, of: (from: Measured) => readonly number[]): BenchRow[] => {
    const samples = of(result);
    const bounds = { min: Math.min(...samples), max: Math.max(...samples) };
    return [50, 99].map((p) => ({ ...row(what, `p${p}`, 'ms', (from) => percentile(of(from), p)), ...bounds }));
  };
  const policyDelays = (from: Measured): number[] => policyChangeKinds.flatMap((kind) => from.changes.get(kind) ?? []);
  return [
    row('start', 'until the first endpoint is programmed', 'ms', ({ coldStartMs }) => coldStartMs),
    row('restart', 'until every endpoint is up to date', 'ms', ({ restartMs }) => restartMs),
    ...delays('policy change', policyDelays),
    ...changeKinds.flatMap((kind) => delays(kind, (from) => from.changes.get(kind) ?? [])),
    ...delays('ADD in the agent', ({ addMs }) => addMs.slice(1)),
    row('memory', 'resident', 'MiB', ({ rss }) => rss),
    row('memory', 'peak', 'MiB', ({ peak }) => peak),
  ];
}

// --- small things ---

/** Looks as often as it can (or every `intervalMs`), and lets the API server of this process work in between. */
async function until(what: string, condition: () => boolean, bed: Bed, intervalMs = 0): Promise<void> {
  const deadlineMs = performance.now() + enforcedWithinMs;
  while (!condition()) {
    bed.stop.throwIfAborted();
    if (bed.agent?.ended) throw new Error(`${what}: the agent ended`);
    if (performance.now() > deadlineMs) throw new Error(`${what}: not within ${enforcedWithinMs} ms`);
    if (intervalMs > 0) await pause(intervalMs);
    else await new Promise((resolve) => setImmediate(resolve));
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function mustPod(world: ScaleWorld, index: number): Pod {
  const pod = world.pods[index];
  if (pod === undefined) throw new RangeError(`no pod ${index}`);
  return pod;
}

function ipOf(pod: Pod): string {
  return pod.status?.podIP ?? '';
}

function mustIp(text: string): IpAddress {
  const ip = parseIp(text);
  if (ip === undefined) throw new TypeError(`not an address: ${text}`);
  return ip;
}
