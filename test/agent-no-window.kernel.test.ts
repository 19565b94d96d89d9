/**
 * Stop, crash, upgrade, a lost API server, a wiped bpffs, an intruder in the pod, pods that ran before, two agents: no
 * forbidden packet passes and no allowed one is lost. Packets are counted beside the pod.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, appendFileSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { EndpointSummary } from '../src/api/agent-api.ts';
import type { NetworkPolicySpec } from '../src/api/kubernetes.ts';
import { ABI_VERSION, directions } from '../src/datapath/abi.ts';
import { filterPrograms } from '../src/datapath/clsact-filters.ts';
import { pods } from '../src/api/resources.ts';
import { askAgent, unixAgent } from '../src/cli/agent-client.ts';
import { renderEndpoints } from '../src/cli/render.ts';
import { readBandwidth } from '../src/datapath/shaper.ts';
import { endpointObjectPath } from '../src/datapath/programs.ts';
import { address, type TestPair, TestStack, whyNoKernelTests } from '../src/datapath/test-bed.ts';
import { BpfLink, BpfProgram, haveTcx, ProgramType, queryTcx, RtNetlink, withNetns } from '../src/kernel/index.ts';
import { ensureBpffs, isOnBpffs, unmount } from '../src/kernel/mount.ts';
import { PacketCapture } from '../src/kernel/packet-capture.ts';
import { AgentBed, namespace, node, randomPodIps, type RunningAgent, slowness, until } from './agent-bed.ts';
import { framesOf, pause, Traffic, unheardDatagrams } from './traffic.ts';

const allowedPort = 4711;
const deniedPort = 4712;
const onlyAllowedPort: NetworkPolicySpec = {
  podSelector: { matchLabels: { app: 'web' } },
  policyTypes: ['Egress'],
  egress: [
    { to: [{ podSelector: { matchLabels: { app: 'peer' } } }], ports: [{ protocol: 'UDP', port: allowedPort }] },
  ],
};
const reason = whyNoKernelTests();
const noTcx = reason === undefined && !haveTcx() ? 'this kernel has no tcx (6.6)' : false;

describe('the agent leaves no window', { skip: reason ?? false }, () => {
  let bed: AgentBed;
  let stack: TestStack;

  beforeEach(async () => {
    stack = new TestStack();
    bed = await AgentBed.create();
  });
  afterEach(async () => {
    stack[Symbol.dispose]();
    await bed.close();
  });

  /** Allowed questions in flight and forbidden packets sent all the time, both families, until the end of the test. */
  async function flows(pair: TestPair): Promise<{ check(): Promise<void>; leaked(): number }> {
    stack.use(await Traffic.start(pair.peer, 'echo', '::', allowedPort));
    const leaked = unheardDatagrams(pair.peer);
    const allowed = [address.peer4, address.peer6].map((to) =>
      stack.use(Traffic.launch(pair.pod, 'udp-ask', to, allowedPort)),
    );
    for (const flow of allowed) await flow.ready();
    const forbidden = stack.use(await Traffic.start(pair.pod, 'udp-fire', address.peer4, deniedPort));
    stack.use(await Traffic.start(pair.pod, 'udp-fire', address.peer6, deniedPort));
    const check = async (): Promise<void> => {
      assert.equal(leaked(), 0, 'a forbidden packet arrived');
      for (const flow of allowed) {
        const count = await flow.stop();
        assert.deepEqual([count.lost, count.errors], [0, 0], JSON.stringify(count));
        assert.ok(count.answered > 100, JSON.stringify(count));
      }
      assert.ok((await forbidden.stop()).sent > 100);
    };
    return { check, leaked };
  }

  async function policedPod(options: Parameters<AgentBed['start']>[0] = {}): Promise<[RunningAgent, TestPair]> {
    const agent = await bed.startReady(options);
    const pair = bed.pair('veth');
    await bed.createPolicy('only', onlyAllowedPort);
    await bed.add('web', pair);
    return [agent, pair];
  }

  async function addsAnAllow(pair: TestPair): Promise<void> {
    await bed.createPolicy('ping', { podSelector: {}, policyTypes: ['Egress'], egress: [{}] });
    await until('a new allow takes effect', () => pair.ping('pod', address.peer4));
    await bed.deletePolicy('ping');
    await until('its end takes effect', () => !pair.ping('pod', address.peer4));
  }

  it('stopped, killed and started again under traffic: nothing lost, nothing passed, changes take effect', async () => {
    const [first, pair] = await policedPod();
    const traffic = await flows(pair);
    await bed.stop(first, 'SIGTERM');
    await pause(200);
    const second = await bed.startReady();
    await bed.stop(second, 'SIGKILL');
    await pause(200);
    const third = await bed.startReady();
    await pause(200);
    await traffic.check();
    assert.equal(await bed.metric(third, 'sluice_endpoint_repairs_total{problem="wrong_program"}'), 0);
    await addsAnAllow(pair);
  });

  it('upgraded to another version of the programs under traffic: nothing lost, nothing passed, no alarm', async () => {
    const next = join(bed.dir, 'next.bpf.o');
    copyFileSync(endpointObjectPath(), next);
    appendFileSync(next, 'another version');
    const [first, pair] = await policedPod();
    const before = programPins();
    const traffic = await flows(pair);
    await bed.stop(first, 'SIGTERM');
    await bed.startReady({ endpointObjectPath: next });
    await pause(1_500); // a sweep over the new programs
    await traffic.check();
    assert.equal(programPins().length, 2);
    assert.ok(
      programPins().every((name) => !before.includes(name)),
      'the programs are the new ones',
    );
    assert.deepEqual(await bed.eventsOf('web'), []);
    await addsAnAllow(pair);

    function programPins(): string[] {
      const [endpoint = ''] = bed.endpointPins();
      return readdirSync(join(bed.bpffsDir, 'endpoint', endpoint)).filter((name) => name.startsWith('program-'));
    }
  });

  it('upgraded to another layout of the maps, the API server away at first, and back: nothing lost, nothing passed, no alarm', async () => {
    const first = await bed.startReady();
    const pair = bed.pair('veth');
    // Isolated both ways, so that only who remembers the connections lets the answers in.
    await bed.createPolicy('only', { ...onlyAllowedPort, policyTypes: ['Ingress', 'Egress'] });
    await bed.createPolicy('tcp', {
      ...onlyAllowedPort,
      egress: [{ ports: [{ protocol: 'TCP', port: allowedPort }] }],
    });
    await bed.add('web', pair);
    const traffic = await flows(pair);
    stack.use(await Traffic.start(pair.peer, 'udp-fire', address.pod4, deniedPort));
    const enteredPod = unheardDatagrams(pair.pod);
    const stream = stack.use(await Traffic.start(pair.pod, 'tcp-stream', address.peer4, allowedPort));
    const before = hookPrograms();
    await bed.stop(first, 'SIGTERM');
    await bed.killApi();

    const second = await bed.start({ abiVersion: ABI_VERSION + 1 });
    await pause(2_500); // two sweeps
    assert.deepEqual(hookPrograms(), before, 'what was in force goes on until the new maps have the policy');
    const waiting = await endpointLines();
    assert.match(waiting[1] ?? '', /web .*taking over +taking over/);
    assert.match(waiting.at(-1) ?? '', /^! .*agent before enforce.*list/);
    assert.equal(traffic.leaked(), 0);
    await bed.reviveApi();
    await until('the new maps are in force', () => hookPrograms().every((id) => !before.includes(id)));
    await until('and the tools say so', async () => / isolated +isolated /.test((await endpointLines())[1] ?? ''));
    await pause(300);
    assert.ok(await streams(), 'a running TCP stream goes on');
    await traffic.check();
    assert.deepEqual(await bed.eventsOf('web'), []);

    // Back to a version that knows nothing of the later one's maps: connections are judged as if they were new.
    await bed.stop(second, 'SIGKILL');
    const later = hookPrograms();
    const third = await bed.startReady();
    await until('the older version is in force', () => hookPrograms().every((id) => !later.includes(id)));
    await until('the stream goes on', streams);
    assert.equal(traffic.leaked(), 0);
    assert.equal(enteredPod(), 0);
    assert.equal((await stream.stop()).errors, 0);
    assert.deepEqual(await bed.eventsOf('web'), []);
    assert.equal(await bed.metric(third, 'sluice_endpoint_repairs_total{problem="hook_missing"}'), 0);
    await addsAnAllow(pair);

    function hookPrograms(): number[] {
      using netlink = RtNetlink.open(pair.pod);
      const { ifindex } = netlink.mustLink('eth0');
      return directions.flatMap((direction) =>
        haveTcx()
          ? withNetns(pair.pod, () => queryTcx(ifindex, direction)).map(({ programId }) => programId)
          : filterPrograms(netlink, ifindex, direction),
      );
    }
    async function endpointLines(): Promise<string[]> {
      const found = await askAgent(unixAgent(node, join(bed.dir, 'agent.sock')), { path: '/v1/endpoints' });
      return renderEndpoints(found as EndpointSummary[]).split('\n');
    }
    async function streams(): Promise<boolean> {
      using capture = PacketCapture.open(pair.peer, 'eth0');
      await pause(300);
      return framesOf(capture.drain(), { protocol: 'tcp', port: allowedPort, source: address.peer4 }).length > 0;
    }
  });

  it('enforces without the API server, tells ADD to try again, and catches up', async () => {
    const [agent, pair] = await policedPod();
    await bed.createPod('late', { app: 'web' });
    const traffic = await flows(pair);
    await bed.killApi();
    await until('the agent notices', async () => !(await fetch(`${agent.healthUrl}/readyz`)).ok);
    const late = bed.pair('veth');
    const refused = await bed.cni('ADD', 'late', late);
    assert.equal(refused.status, 1);
    assert.equal(refused.body['code'], 11, JSON.stringify(refused.body));
    assert.equal(bed.endpointPins().length, 1, 'nothing of the refused pod stays');
    const gone = await bed.cni('DEL', 'late', late);
    assert.equal(gone.status, 0, JSON.stringify(gone.body));
    // An agent that starts now knows nothing of the API, and leaves in force what it finds.
    await bed.stop(agent, 'SIGKILL');
    await bed.start();
    await pause(500);
    await traffic.check();

    await bed.reviveApi();
    await until('ADD works again', async () => (await bed.cni('ADD', 'late', late)).status === 0);
    await addsAnAllow(pair);
  });

  it(
    'bpffs wiped while the agent runs: nothing opens, all names come back, counted and told',
    { skip: noTcx },
    async () => {
      const [agent, pair] = await policedPod();
      const traffic = await flows(pair);
      rmSync(bed.bpffsDir, { recursive: true });
      await until('the pins are back', () => bed.endpointPins().length === 1, 5_000 * slowness);
      await until('it is told', async () =>
        (await bed.eventsOf('web')).some((event) => /NetworkRepaired.*bpffs/.test(event)),
      );
      assert.equal(await bed.metric(agent, 'sluice_endpoint_repairs_total{problem="pin_missing"}'), 1);
      await bed.stop(agent, 'SIGKILL');
      await pause(300); // the kernel lets go of links without a name from a work queue
      await traffic.check();
      await bed.startReady();
      await addsAnAllow(pair);
    },
  );

  it('bpffs unmounted while the agent runs: nothing opens, another one is mounted', { skip: noTcx }, async () => {
    const [agent, pair] = await policedPod();
    const traffic = await flows(pair);
    unmount(bed.bpffs.path, { lazy: true });
    try {
      await until(
        'the pins are back',
        () => isOnBpffs(bed.bpffsDir) && bed.endpointPins().length === 1,
        5_000 * slowness,
      );
      await traffic.check();
      await addsAnAllow(pair);
      await bed.stop(agent, 'SIGTERM');
    } finally {
      if (isOnBpffs(bed.bpffsDir)) unmount(bed.bpffsDir, { lazy: true });
      rmdirSync(bed.bpffsDir);
      ensureBpffs(bed.bpffs.path);
    }
  });

  it('bpffs wiped while no agent runs: closed until programmed, from the start of the next agent', async () => {
    const [agent, pair] = await policedPod();
    await bed.killApi();
    await bed.stop(agent, 'SIGTERM');
    rmSync(bed.bpffsDir, { recursive: true });
    await bed.start();
    assert.ok(!pair.ping('pod', address.peer4), 'without the API nobody knows its policy: it is closed');
    assert.ok(!pair.ping('peer', address.pod4));
    await bed.reviveApi();
    await until('policy is back', () => pair.ping('peer', address.pod4));
    assert.ok(!pair.ping('pod', address.peer4));
  });

  it(
    'an intruder before our program, or our hook taken off: put back within two seconds, counted and told',
    { skip: noTcx },
    async () => {
      const [agent, pair] = await policedPod();
      const traffic = await flows(pair);
      const intruder = stack.use(attachPass(pair.pod));
      const openMs = await msUntilSilence(() => traffic.leaked());
      assert.ok(openMs > 0, 'the intruder did skip us');
      assert.ok(openMs < 2_000, `open for ${openMs} ms`);
      assert.ok(!pair.ping('pod', address.peer4));
      intruder[Symbol.dispose]();
      const events = await until('it is told', async () => {
        const found = (await bed.eventsOf('web')).filter((event) => event.includes('runs before our program'));
        return found.length > 0 ? found : undefined;
      });
      assert.match(events[0] ?? '', /^NetworkRepaired: /);
      assert.equal(await bed.metric(agent, 'sluice_endpoint_repairs_total{problem="not_first"}'), 1);
    },
  );

  it('hooks and limits that a process in the pod takes off are back at once, each time, counted and told', async (t) => {
    const [agent, pair] = await policedPod({ attachMechanism: 'clsact' });
    await bed.kube.patch(
      pods,
      { namespace, name: 'web' },
      { type: 'merge', body: { metadata: { annotations: { 'kubernetes.io/egress-bandwidth': '1G' } } } },
    );
    const rate = (): number | undefined => readBandwidth({ netns: pair.pod, interfaceName: 'eth0' }).egressBps;
    await until('the limit is there', () => rate() === 1e9);
    const leaked = unheardDatagrams(pair.peer);
    stack.use(await Traffic.start(pair.pod, 'udp-fire', address.peer4, deniedPort));
    const passed: number[] = [];
    for (const remove of [
      'qdisc del dev eth0 clsact',
      'filter del dev eth0 egress',
      'qdisc del dev eth0 clsact',
      'filter del dev eth0 egress pref 1',
      'qdisc del dev eth0 root',
    ]) {
      await pause(100 + Math.random() * 900); // at any time between two looks
      assert.equal(leaked(), 0);
      let count = 0;
      pair.run('pod', 'tc', ...remove.split(' '));
      await until('all is back', () => {
        const since = leaked();
        count += since;
        return since === 0 && rate() === 1e9 && pair.isCut('pod', address.peer4);
      });
      passed.push(count + leaked());
    }
    assert.ok((await bed.metric(agent, 'sluice_endpoint_repairs_total{problem="hook_missing"}')) >= 3);
    assert.ok((await bed.metric(agent, 'sluice_endpoint_repairs_total{problem="bandwidth"}')) >= 1);
    await until('it is told', async () =>
      (await bed.eventsOf('web')).some((event) => /NetworkRepaired.*nothing is attached/.test(event)),
    );
    assert.ok(Math.min(...passed) < 500 && Math.max(...passed) < 4_000, passed.join());
    t.diagnostic(`forbidden packets passed after each removal, one sent a millisecond: ${passed.join(', ')}`);
  });

  it('pods that ran before are adopted without a restart, with no allowed packet lost', async () => {
    const pair = bed.pair('macvlan');
    const ips = addAddresses(pair, randomPodIps());
    await bed.createPod('web', { app: 'web' }, { ips, nodeName: node });
    await bed.createPolicy('only', onlyAllowedPort);
    stack.use(await Traffic.start(pair.peer, 'echo', '::', allowedPort));
    const allowed = stack.use(await Traffic.start(pair.pod, 'udp-ask', address.peer4, allowedPort));
    assert.ok(pair.ping('pod', address.peer4), 'nobody enforces yet');
    const agent = await bed.startReady();
    await until('the pod is policed', () => !pair.ping('pod', address.peer4));
    await pause(200);
    const count = await allowed.stop();
    assert.deepEqual([count.lost, count.errors], [0, 0], JSON.stringify(count));
    await until('it is told', async () =>
      (await bed.eventsOf('web')).some((event) => event.startsWith('NetworkAdopted')),
    );
    assert.equal(await bed.metric(agent, 'sluice_pod_adoptions_total{outcome="success"}'), 1);
    await bed.stop(agent, 'SIGTERM');
    await bed.startReady();
    assert.ok(!pair.ping('pod', address.peer4), 'the next agent has its record');
    await addsAnAllow(pair);
    pair[Symbol.dispose]();
    await until('it goes with its namespace', () => bed.endpointPins().length === 0);
  });

  it('adopts neither veth pods of another network, nor whom it cannot find for certain', async () => {
    const [veth, twins] = [bed.pair('veth'), [bed.pair('macvlan'), bed.pair('macvlan')]];
    const twinIps = randomPodIps();
    const vethIps = addAddresses(veth, randomPodIps());
    for (const twin of twins) addAddresses(twin, twinIps);
    await bed.createPod('other', {}, { ips: vethIps, nodeName: node });
    await bed.createPod('twin', {}, { ips: twinIps, nodeName: node });
    await bed.createPod('ghost', {}, { ips: randomPodIps(), nodeName: node });
    await bed.startReady();
    for (const [name, what] of [
      ['twin', /AdoptionFailed: .*are in 2 places/],
      ['ghost', /AdoptionFailed: .*no network namespace .*delete it/],
    ] as const) {
      await until(`${name} is told`, async () => (await bed.eventsOf(name)).some((event) => what.test(event)));
    }
    assert.deepEqual(await bed.eventsOf('other'), []);
    assert.deepEqual(bed.endpointPins(), []);
  });

  it('records lost, pins kept: the pod stays closed, is adopted, and what the lost agent left goes', async () => {
    const [agent, pair] = await policedPod();
    const ips = addAddresses(pair, randomPodIps());
    await bed.stop(agent, 'SIGTERM');
    rmSync(join(bed.dir, 'state'), { recursive: true });
    const [orphan = ''] = bed.endpointPins();
    const traffic = await flows(pair);
    await bed.setRunning('web', ips);
    await bed.startReady({ adoptExistingPods: 'all' });
    await until('the orphan is gone', () => bed.endpointPins().length === 1 && !bed.endpointPins().includes(orphan));
    await pause(200);
    assert.equal(traffic.leaked(), 0);
    await addsAnAllow(pair);
  });

  it('a second agent is refused by whichever directory or socket it shares, and disturbs nothing', async () => {
    const [, pair] = await policedPod();
    const traffic = await flows(pair);
    const other = {
      stateDir: join(bed.dir, 'state2'),
      bpffsDir: join(bed.bpffs.path, 'sluice2'),
      cniSocketPath: join(bed.dir, 'cni2.sock'),
    };
    const { stateDir, bpffsDir, cniSocketPath } = other;
    await assert.rejects(bed.start(), /another agent runs with it/);
    await assert.rejects(bed.start({ bpffsDir, cniSocketPath }), /lock state directory .*another agent runs with it/);
    await assert.rejects(bed.start({ stateDir, cniSocketPath }), /lock bpffs directory .*another agent runs with it/);
    await assert.rejects(bed.start({ stateDir, bpffsDir }), /lock CNI socket .*another agent runs with it/);
    await traffic.check();
    assert.equal((await bed.cni('CHECK', 'web', pair)).status, 0);
    await addsAnAllow(pair);
  });

  it('a policy that does not fit closes what it isolates instead of leaving the old one, and says so', async () => {
    const [agent, pair] = await policedPod({ mapSizes: { policy: 8 } });
    stack.use(await Traffic.start(pair.peer, 'echo', '::', allowedPort));
    stack.use(await Traffic.start(pair.pod, 'udp-ask', address.peer4, allowedPort));
    const ports = Array.from({ length: 20 }, (_, i) => ({ protocol: 'TCP' as const, port: 7000 + 2 * i }));
    const [rule] = onlyAllowedPort.egress ?? [];
    await bed.replacePolicy('only', { ...onlyAllowedPort, egress: [{ ...rule, ports }] });
    await until('the pod is told', async () =>
      (await bed.eventsOf('web')).some((event) => /^MapFull: .*closed.*select fewer peers/.test(event)),
    );
    await until('the node is told', async () =>
      (await bed.eventsOf(node)).some((event) => event.startsWith('MapFull: ')),
    );
    const capture = stack.use(PacketCapture.open(pair.peer, 'eth0'));
    await pause(2_500); // the questions are asked again every 2 s
    assert.equal(framesOf(capture.drain(), { protocol: 'udp', port: allowedPort, source: address.pod4 }).length, 0);
    assert.ok(pair.ping('peer', address.pod4), 'what the policy does not isolate stays open');
    assert.equal(await bed.metric(agent, 'sluice_map_entries_max{map="policy"}'), 8);
    await bed.replacePolicy('only', onlyAllowedPort);
    await until(
      'one that fits is in force',
      () => framesOf(capture.drain(), { protocol: 'udp', port: allowedPort }).length > 0,
    );
  });

  function addAddresses(pair: TestPair, ips: [string, string]): [string, string] {
    for (const ip of ips) {
      const flags = ip.includes(':') ? ['nodad'] : [];
      const prefix = ip.includes(':') ? 128 : 32;
      execFileSync('nsenter', [
        `--net=${pair.pod}`,
        'ip',
        'address',
        'add',
        `${ip}/${prefix}`,
        'dev',
        'eth0',
        ...flags,
      ]);
    }
    return ips;
  }
});

/** How long packets kept coming before there was none for a second. */
async function msUntilSilence(packets: () => number): Promise<number> {
  const startMs = performance.now();
  let lastMs = startMs;
  while (performance.now() - lastMs < 1_000 || performance.now() - startMs < 1_500) {
    if (packets() > 0) lastMs = performance.now();
    await pause(10);
  }
  return lastMs - startMs;
}

/** `r0 = TCX_PASS; exit`, first on both hooks of eth0. */
function attachPass(netns: string): Disposable {
  const instructions = Uint8Array.of(0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);
  using program = BpfProgram.load({ name: 'intruder', type: ProgramType.schedCls, instructions, license: 'GPL' });
  const links = withNetns(netns, () => {
    using netlink = RtNetlink.open();
    const { ifindex } = netlink.mustLink('eth0');
    return (['ingress', 'egress'] as const).map((hook) => BpfLink.attachTcx({ program, ifindex, hook }));
  });
  return {
    [Symbol.dispose]: () => {
      for (const link of links.splice(0)) {
        link.detach();
        link.close();
      }
    },
  };
}
