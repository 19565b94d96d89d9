/**
 * Bandwidth limits in a lab: what receivers count, beside what `sluice bandwidth` says. On ipvlan where the kernel has it (in the
 * small VM, as part of make test-kernels), else on macvlan.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { BandwidthAnswer, BandwidthInfo, EndpointDetail } from '../src/api/agent-api.ts';
import type { Event, KubeObject, Pod } from '../src/api/kubernetes.ts';
import { events, namespaces, networkAttachmentDefinitions, pods, spiderMultusConfigs } from '../src/api/resources.ts';
import { RtNetlink, tcHandle, haveTcx } from '../src/kernel/index.ts';
import { kernelHasLink } from '../src/kernel/link-support.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { labLayout, nodePaths } from '../src/lab/layout.ts';
import { labDown } from '../src/lab/lifecycle/down.ts';
import { cliCommand } from '../src/lab/lifecycle/entry.ts';
import { readLabState, type LabState } from '../src/lab/lifecycle/state.ts';
import { labStatus } from '../src/lab/lifecycle/status.ts';
import { labUp } from '../src/lab/lifecycle/up.ts';
import { waitFor } from '../src/lab/lifecycle/wait.ts';
import { apiCluster } from '../src/lab/walkthrough/api-cluster.ts';
import type { Cluster } from '../src/lab/walkthrough/cluster.ts';
import { eventually } from '../src/lab/walkthrough/wait.ts';
import { pause } from './traffic.ts';

const path = process.env['PATH'] ?? '';
const link: LabState['link'] = kernelHasLink('ipvlan') ? 'ipvlan' : 'macvlan';
/** Under emulation even the start of a process takes its time. */
const slowness = process.env['SLUICE_VM'] === '1' ? 10 : 1;
const patience = { timeoutMs: 120_000 * slowness };
const egress = 'kubernetes.io/egress-bandwidth';
const ingress = 'kubernetes.io/ingress-bandwidth';
/** Payload of a frame of 1514 bytes: TCP with timestamps, UDP as iperf3 sends it. */
const tcpShare = 1448 / 1514;
const udpShare = 1448 / 1490;
/** Several times every limit here; the machine may be busy with other things. */
const freeMbps = 250;
/** Egress and ingress. An emulated CPU sends 12 to 23 Mbit/s of datagrams where nothing limits them, TCP's large ones many times that. */
const udpLimitsMbps = slowness === 1 ? ([40, 20] as const) : ([6, 3] as const);
const ports = [5201, 5202, 5203, 5204];
/** Limits of two pods, and what one without passes beside them: three flows share one emulated CPU. */
const besideMbps = slowness === 1 ? { a: 50, b: 10, free: freeMbps } : { a: 10, b: 4, free: 40 };

interface Flow {
  readonly receivedMbps: number;
  /** As the receiver counts them. */
  readonly intervalMbps: readonly number[];
}

describe('bandwidth limits, in a lab', () => {
  const home = mkdtempSync(join(tmpdir(), 'sluice-bandwidth-'));
  const dir = join(home, 'lab');
  const options = {
    ...{ dir, nodes: 2, link, apiHost: '127.0.0.1', apiPort: 0, path },
    ...{ vmCacheDir: join(dir, 'no-vm'), uid: process.getuid?.(), onProgress: () => undefined },
  };
  const [program = '', ...programArgs] = cliCommand();
  let kube: KubeClient;
  let cluster: Cluster;
  let state: LabState;

  before(async () => {
    const kubeconfig = await labUp(options);
    kube = createKubeClient(loadKubeConfig({ path: kubeconfig }));
    cluster = apiCluster(kubeconfig);
    const found = readLabState(dir);
    assert.ok(found);
    state = found;
    await kube.create(namespaces, { metadata: { name: 'demo' } });
    await kube.create(namespaces, { metadata: { name: 'defaults', annotations: { [egress]: '30M' } } });
    await Promise.all([
      createPod('demo', 'a', 'node1'),
      createPod('demo', 'b', 'node1'),
      createPod('demo', 'free', 'node1'),
      createPod('demo', 'peer', 'node2'),
      createPod('defaults', 'd', 'node2'),
    ]);
    await Promise.all(['a', 'b', 'free', 'peer'].map((name) => ready('demo', name)));
    await ready('defaults', 'd');
  });
  after(async () => {
    kube?.close();
    await labDown(options);
    rmSync(home, { recursive: true, force: true });
  });

  function createPod(namespace: string, name: string, nodeName: string, annotations = {}): Promise<Pod> {
    const servers = ports.map((port) => `iperf3 -s -p ${port} >/dev/null & `).join('');
    const containers = [{ name: 'c', image: 'none', command: ['sh', '-c', `${servers}wait`] }];
    const spec = { nodeName, terminationGracePeriodSeconds: 0, containers };
    return kube.create<Pod>(pods, { metadata: { namespace, name, annotations }, spec });
  }

  async function ready(namespace: string, name: string): Promise<void> {
    const isReady = async (): Promise<boolean> => {
      const { status } = await kube.get<Pod>(pods, { namespace, name });
      return status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true;
    };
    await waitFor(`pod ${name}`, isReady, patience).catch(async (error: unknown) => {
      throw new Error((await eventsOf(name)).join('\n'), { cause: error });
    });
  }

  async function ipOf(name: string, namespace = 'demo'): Promise<string> {
    return (await kube.get<Pod>(pods, { namespace, name })).status?.podIP ?? '';
  }

  function sluice(...args: readonly string[]): Promise<string> {
    const env = { PATH: path, HOME: home };
    const all = [...programArgs, ...args, '--lab', dir];
    return new Promise((resolve, reject) =>
      execFile(program, all, { env, timeout: patience.timeoutMs }, (error, stdout, stderr) =>
        error === null ? resolve(stdout) : reject(new Error(`sluice ${args.join(' ')}: ${stderr}`)),
      ),
    );
  }

  async function limits(sample = 0): Promise<BandwidthInfo[]> {
    const answers = JSON.parse(await sluice('bandwidth', 'list', '--sample', String(sample), '--json')) as unknown;
    return (answers as BandwidthAnswer[]).flatMap((answer) => answer.limits);
  }

  /** Asks for limits and waits until the kernel has them. */
  async function limit(name: string, wanted: { readonly [egress]: string | null; readonly [ingress]: string | null }) {
    await annotate(name, wanted);
    const texts = [wanted[egress], wanted[ingress]].map((text) => (text === null ? undefined : Number.parseInt(text)));
    await waitFor(
      `limits of ${name}`,
      async () => {
        const own = (await limits()).filter((one) => one.pod.name === name && one.interface === 'eth0');
        const found = (['egress', 'ingress'] as const).map((direction) => {
          const one = own.find((candidate) => candidate.direction === direction);
          return one?.mechanism === undefined ? undefined : one.limitBps / 1e6;
        });
        return found[0] === texts[0] && found[1] === texts[1];
      },
      patience,
    );
  }

  async function annotate(name: string, annotations: Record<string, string | null>): Promise<void> {
    await kube.patch(pods, { namespace: 'demo', name }, { type: 'merge', body: { metadata: { annotations } } });
  }

  /** What `to` receives from `from`: the client runs at the receiver, since it is the client that reports each interval. */
  async function flow(from: string, to: string, change: FlowOptions = {}): Promise<Flow> {
    const { seconds = 3, port = ports[0], udpMbps, namespace = 'demo' } = change;
    const udp = udpMbps === undefined ? [] : ['-u', '-b', `${udpMbps}M`, '-l', '1448'];
    const args = [
      '-J',
      '-R',
      '-c',
      await ipOf(from, namespace),
      '-p',
      String(port),
      '-t',
      String(seconds),
      '-i',
      '0.5',
    ];
    const call = ['iperf3', ...args, '--connect-timeout', '5000', ...udp];
    const { stdout, stderr } = await cluster.exec({ namespace: 'demo', name: to }, call, (seconds + 60) * 1000);
    return readReport(stdout, stderr);
  }

  /** Never above the limit; up to it in one of three runs, since the machine may be what limits. */
  async function carries(wantedMbps: number, run: () => Promise<Flow>): Promise<void> {
    const seen: number[] = [];
    for (let round = 0; round < 3; round++) {
      const { receivedMbps } = await run();
      seen.push(receivedMbps);
      assert.ok(receivedMbps <= wantedMbps * 1.04, `${receivedMbps} Mbit/s, more than ${wantedMbps}`);
      if (receivedMbps >= wantedMbps * 0.9) return;
    }
    assert.fail(`${seen.map((mbps) => mbps.toFixed(1)).join(', ')} Mbit/s, wanted ${wantedMbps.toFixed(1)}`);
  }

  async function isFree(run: () => Promise<Flow>, wantedMbps = freeMbps): Promise<void> {
    const seen: number[] = [];
    for (let round = 0; round < 3; round++) {
      seen.push((await run()).receivedMbps);
      if ((seen.at(-1) ?? 0) > wantedMbps) return;
    }
    assert.fail(`${seen.map((mbps) => mbps.toFixed(0)).join(', ')} Mbit/s, wanted more than ${wantedMbps}`);
  }

  async function detail(name: string): Promise<EndpointDetail> {
    const found = JSON.parse(await sluice('endpoint', 'get', `demo/${name}`, '--json')) as EndpointDetail[];
    const primary = found.find((one) => one.interface === 'eth0');
    assert.ok(primary);
    return primary;
  }

  async function eventsOf(name: string): Promise<string[]> {
    const { items } = await kube.list<Event>(events, { namespace: 'demo' });
    return items
      .filter(({ involvedObject }) => involvedObject.name === name)
      .map(({ reason, message }) => `${reason ?? ''}: ${message ?? ''}`);
  }

  async function killAgent(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const pidOf = async (): Promise<number> =>
      (await labStatus({ dir })).processes.find(({ name }) => name === 'agent-node1')?.pid ?? 0;
    const pid = await pidOf();
    assert.ok(pid > 1);
    process.kill(pid, signal);
    await waitFor(
      'the next agent',
      async () => ![0, pid].includes(await pidOf()) && (await limits().catch(() => [])).some(isOf('a')),
      patience,
    );
  }

  it('limits each direction alone, on the same node and across nodes, and both together', async () => {
    await limit('a', { [egress]: '100M', [ingress]: null });
    await carries(100 * tcpShare, () => flow('a', 'peer'));
    await carries(100 * tcpShare, () => flow('a', 'free'));
    await isFree(() => flow('peer', 'a', { seconds: 1 }));
    await limit('a', { [egress]: null, [ingress]: '50M' });
    await carries(50 * tcpShare, () => flow('peer', 'a'));
    await carries(50 * tcpShare, () => flow('free', 'a'));
    await isFree(() => flow('a', 'peer', { seconds: 1 }));
    await limit('a', { [egress]: '40M', [ingress]: '20M' });
    await carries(40 * tcpShare, () => flow('a', 'peer'));
    await carries(20 * tcpShare, () => flow('peer', 'a'));
  });

  it('limits UDP, whatever is sent', async () => {
    const [out, into] = udpLimitsMbps;
    await limit('a', { [egress]: `${out}M`, [ingress]: `${into}M` });
    await carries(out * udpShare, () => flow('a', 'peer', { udpMbps: out * 3 }));
    await carries(into * udpShare, () => flow('peer', 'a', { udpMbps: into * 3 }));
  });

  it('does not limit the node’s own way to the pod', async () => {
    const nodeNetns = nodePaths(labLayout(state), 'node1').netns;
    const ip = await ipOf('a');
    const run = (reverse: readonly string[]) => async (): Promise<Flow> => {
      const args = [`--net=${nodeNetns}`, 'iperf3', '-J', '-c', ip, '-p', String(ports[1]), '-t', '1', ...reverse];
      return readReport(
        await new Promise<string>((resolve) => execFile('nsenter', args, (_, stdout) => resolve(stdout))),
      );
    };
    await isFree(run([]));
    await isFree(run(['-R']));
  });

  it('gives two pods on one parent NIC their own limits, and an unlimited one beside them its speed', async () => {
    const { a, b, free } = besideMbps;
    await limit('a', { [egress]: `${a}M`, [ingress]: null });
    await limit('b', { [egress]: `${b}M`, [ingress]: null });
    const runs = new Map([
      ['a', a * tcpShare],
      ['b', b * tcpShare],
    ]);
    await isFree(async () => {
      const [unlimited] = await Promise.all([
        flow('free', 'peer', { port: ports[2] }),
        ...[...runs].map(([name, wanted], index) => carries(wanted, () => flow(name, 'peer', { port: ports[index] }))),
      ]);
      return unlimited;
    }, free);
  });

  it('changes 100M to 20M to none during one run, seen in its interval reports', async () => {
    await limit('a', { [egress]: '100M', [ingress]: null });
    const running = flow('a', 'peer', { seconds: slowness === 1 ? 12 : 20 });
    await pause(4_000);
    await annotate('a', { [egress]: '20M' });
    await pause(4_000);
    await annotate('a', { [egress]: null });
    const { intervalMbps } = await running;
    const shown = intervalMbps.map((mbps) => mbps.toFixed(0)).join(' ');
    const at = (low: number, high: number) => (mbps: number) => mbps > low && mbps < high;
    const phases = [at(85, 100), at(15, 21), at(freeMbps, Infinity)];
    const counts = phases.map((phase) => intervalMbps.filter(phase).length);
    assert.ok(
      counts.every((count) => count >= 3),
      `intervals of 0.5 s: ${shown}`,
    );
    const order = phases.map((phase) => intervalMbps.findIndex(phase));
    assert.ok(
      order.every((first, index) => index === 0 || first > (order[index - 1] ?? 0)),
      shown,
    );
    // A limit that is lifted for a moment while it changes would show, and so would a flow that stalls.
    assert.ok(neverLifted(intervalMbps.slice(0, 12), 100), shown);
    assert.ok(intervalMbps.slice(0, 12).filter((mbps) => mbps > 5).length >= 9, shown);
  });

  it('keeps the limit over a stopped and a killed agent during a run', async () => {
    await limit('a', { [egress]: '20M', [ingress]: '20M' });
    let running = true;
    const restarts = (async () => {
      await killAgent('SIGTERM');
      await killAgent('SIGKILL');
      running = false;
    })();
    while (running) {
      const { receivedMbps, intervalMbps } = await flow('a', 'peer', { seconds: 6 });
      const shown = `${receivedMbps.toFixed(1)} Mbit/s: ${intervalMbps.map((mbps) => mbps.toFixed(1)).join(' ')}`;
      assert.ok(receivedMbps < 20 * 1.04 && receivedMbps > 5, shown);
      assert.ok(neverLifted(intervalMbps, 20), shown);
    }
    await restarts;
    assert.deepEqual(
      (await eventsOf('a')).filter((text) => text.startsWith('NetworkRepaired')),
      [],
    );
  });

  it('puts back what a process in the pod removes, and says so', async () => {
    const { netns } = await detail('a');
    using netlink = RtNetlink.open(netns);
    const inKernel = async (): Promise<boolean> => {
      const own = (await limits()).filter(isOf('a'));
      return own.length === 2 && own.every(({ mechanism }) => mechanism !== undefined);
    };
    const repaired = async (what: string): Promise<void> => {
      await waitFor('both limits', inKernel, { timeoutMs: 20_000 * slowness });
      await waitFor(
        `an event that tells of "${what}"`,
        async () => (await eventsOf('a')).some((text) => text.startsWith('NetworkRepaired') && text.includes(what)),
        patience,
      );
    };
    // One after the other: the agent may look between two changes, and then tells of each.
    netlink.deleteQdisc(netlink.mustLink('eth0').ifindex, tcHandle.root);
    await repaired('ingress 20000000 bit/s, egress none instead');
    const ifb = netlink.links().find(({ kind }) => kind === 'ifb');
    assert.ok(ifb);
    netlink.deleteLink(ifb.ifindex);
    await repaired('ingress none, egress 20000000 bit/s instead');
    await carries(20 * tcpShare, () => flow('a', 'peer'));
  });

  it('list, top and endpoint get agree with the packets', async () => {
    // One flow after another for as long as the commands need; between two of them there is no rate.
    let wanted = true;
    const running = (async (): Promise<void> => {
      while (wanted) await flow('a', 'peer', { seconds: 8 * slowness });
    })();
    try {
      const isOfA = (one: BandwidthInfo): boolean => isOf('a')(one) && one.direction === 'egress';
      const own = await eventually('a rate in bandwidth list', patience.timeoutMs, async () =>
        (await limits(2)).find((one) => isOfA(one) && (one.rateBps ?? 0) > 15e6),
      );
      // Two seconds of a clock and a CPU that are emulated: 20.9 Mbit/s were read of a flow whose receiver counted less than 20.
      assert.ok((own.rateBps ?? Infinity) < (slowness === 1 ? 20.5e6 : 22e6), `${own.rateBps} bit/s`);
      assert.ok(own.statistics !== undefined);
      assert.deepEqual([own.node, own.source, own.limitBps], ['node1', 'pod-annotation', 20_000_000]);
      await eventually('the pod at the head of bandwidth top', patience.timeoutMs, async () => {
        const top = await sluice('bandwidth', 'top', '--rounds', '1', '--interval', '1', '--json');
        const [first] = JSON.parse(top) as { readonly pod: object }[];
        return isDeepStrictEqual(first?.pod, { namespace: 'demo', name: 'a' }) || undefined;
      });
      const row = /^node1 +demo\/a +eth0 +egress +20 Mbit\/s +pod annotation +\S+ +\S+ Mbit\/s/m;
      await eventually(
        'its row in the table',
        patience.timeoutMs,
        async () => row.exec(await sluice('bandwidth', 'list')) ?? undefined,
      );
    } finally {
      wanted = false;
    }
    assert.match(
      await sluice('endpoint', 'get', 'demo/a'),
      /^Bandwidth: .*egress 20 Mbit\/s \(.*, from pod annotation\)/m,
    );
    await running;
  });

  it('gives another interface the limit of its network selection, live', async () => {
    const networks = (egressRate: number): Record<string, string> => ({
      'k8s.v1.cni.cncf.io/networks': JSON.stringify([
        { name: 'second', namespace: 'kube-system', bandwidth: { egressRate } },
      ]),
    });
    const spec = {
      ...{ cniType: link, enableCoordinator: false, chainCNIJsonData: ['{"type":"sluice"}'] },
      [link]: { master: ['ens192'], ippools: { ipv4: ['lab-default-v4'], ipv6: ['lab-default-v6'] } },
    };
    const name = { namespace: 'kube-system', name: 'second' };
    await kube.create(spiderMultusConfigs, { metadata: name, spec } as KubeObject);
    await waitFor(
      'the attachment',
      async () => (await kube.find(networkAttachmentDefinitions, name)) !== undefined,
      patience,
    );
    await createPod('demo', 'two', 'node1', networks(20_000_000));
    await ready('demo', 'two');
    const second = async (): Promise<BandwidthInfo | undefined> =>
      (await limits()).find((one) => one.pod.name === 'two' && one.interface === 'net1');
    const { direction, limitBps, source, mechanism } = (await second()) ?? {};
    assert.deepEqual([direction, limitBps, source], ['egress', 20_000_000, 'network-selection']);
    assert.ok(mechanism);
    await annotate('two', networks(0));
    await waitFor('no limit', async () => (await second()) === undefined, patience);
  });

  it('takes and follows the default of a namespace', async () => {
    const ofD = async (): Promise<BandwidthInfo | undefined> => (await limits()).find(isOf('d'));
    const setDefault = (text: string | null): Promise<unknown> =>
      kube.patch(
        namespaces,
        { name: 'defaults' },
        { type: 'merge', body: { metadata: { annotations: { [egress]: text } } } },
      );
    assert.equal((await ofD())?.source, 'namespace-annotation');
    await carries(30 * tcpShare, () => flow('d', 'free', { namespace: 'defaults' }));
    await setDefault('60M');
    await waitFor('the new default', async () => (await ofD())?.limitBps === 60_000_000, patience);
    await carries(60 * tcpShare, () => flow('d', 'free', { namespace: 'defaults' }));
    await setDefault(null);
    await waitFor('no limit', async () => (await ofD()) === undefined, patience);
    await isFree(() => flow('d', 'free', { namespace: 'defaults', seconds: 1 }));
  });

  it('refuses a malformed value of a new pod with an event', async () => {
    await createPod('demo', 'bad', 'node1', { [ingress]: '100Mbit' });
    const told = /FailedCreatePodSandBox: .*ingress-bandwidth.*"100Mbit" is not a quantity/;
    await waitFor('the event', async () => (await eventsOf('bad')).some((text) => told.test(text)), patience);
    await kube.delete(pods, { namespace: 'demo', name: 'bad' }, { gracePeriodSeconds: 0 });
  });

  it('leaves no trace when the annotations go', async () => {
    const { netns } = await detail('a');
    const { netns: unlimited } = await detail('free');
    await limit('a', { [egress]: null, [ingress]: null });
    assert.deepEqual(traces(netns), traces(unlimited));
    await isFree(() => flow('a', 'peer', { seconds: 1 }));
  });
});

interface FlowOptions {
  readonly seconds?: number;
  readonly port?: number | undefined;
  readonly udpMbps?: number;
  /** Of the sender. */
  readonly namespace?: string;
}

/**
 * Whether half seconds are those of a limit that was there throughout. A receiver that had to wait for a busy machine
 * reads what came meanwhile at once; a limit that is gone for a tenth of a second lets through more than that.
 */
function neverLifted(halves: readonly number[], limitMbps: number): boolean {
  return halves.every((mbps) => mbps < limitMbps * 4);
}

function isOf(name: string): (one: BandwidthInfo) => boolean {
  return ({ pod }) => pod.name === name;
}

/** Interfaces and qdiscs of a pod; without tcx, hooks need clsact. */
function traces(netns: string): string[] {
  using netlink = RtNetlink.open(netns);
  return netlink.links().flatMap(({ name, ifindex }) => {
    const kinds = netlink.qdiscs(ifindex).map(({ kind }) => kind);
    return [name, ...kinds.filter((kind) => haveTcx() || kind !== 'clsact').map((kind) => `${name} ${kind}`)];
  });
}

interface Report {
  readonly error?: string;
  readonly intervals?: readonly { readonly sum: { readonly bits_per_second: number; readonly seconds: number } }[];
  readonly end?: Readonly<Record<string, { readonly bits_per_second: number } | undefined>>;
}

function readReport(stdout: string, stderr = ''): Flow {
  const { error, intervals = [], end } = JSON.parse(stdout === '' ? '{}' : stdout) as Report;
  const sum = end?.['sum_received'] ?? end?.['sum'];
  assert.ok(sum !== undefined && error === undefined, `iperf3: ${error ?? stderr}`);
  // The last one may be a few milliseconds long.
  const whole = intervals.filter(({ sum: { seconds } }) => seconds > 0.4);
  return {
    receivedMbps: sum.bits_per_second / 1e6,
    intervalMbps: whole.map(({ sum: { bits_per_second: bps } }) => bps / 1e6),
  };
}
