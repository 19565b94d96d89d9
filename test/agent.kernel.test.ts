/** The agent as its runtime meets it: a real process, the real executable, real namespaces, an API server over HTTPS. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, afterEach, describe, it } from 'node:test';
import { parse } from 'yaml';
import type { Event, KubeObject, NetworkPolicy, NetworkPolicySpec, Pod } from '../src/api/kubernetes.ts';
import { customResourceDefinitions, events, namespaces, networkPolicies, pods } from '../src/api/resources.ts';
import { readBandwidth } from '../src/datapath/shaper.ts';
import { address, randomSuffix, TestBpffs, TestPair } from '../src/datapath/test-bed.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { Netns, RtNetlink } from '../src/kernel/index.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { PacketCapture } from '../src/kernel/packet-capture.ts';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';
import { agentProcess, slowness, until } from './agent-bed.ts';
import { callShim, type CniAnswer } from './cni-shim.ts';

const root = packageRoot();
const namespace = 'demo';
const node = 'node1';

interface RunningAgent {
  readonly child: ChildProcess;
  readonly healthUrl: string;
}

describe('the agent', () => {
  let api: TestApiServer;
  let kube: KubeClient;
  let bpffs: TestBpffs;
  let dir: string;
  let agent: RunningAgent;
  let pair: TestPair;
  let containerId: string;

  before(async () => {
    execFileSync('make', ['-s', '-C', join(root, 'shim')], { stdio: 'inherit' });
    api = await startTestApiServer();
    kube = createKubeClient(loadKubeConfig({ path: api.kubeConfigPath }));
    bpffs = new TestBpffs();
    dir = mkdtempSync(join(tmpdir(), 'sluice-agent-'));
    const crd = readFileSync(join(root, 'deploy/crds/spiderpool.spidernet.io_spiderippools.yaml'), 'utf8');
    await kube.create(customResourceDefinitions, parse(crd) as KubeObject);
    await kube.create(namespaces, { metadata: { name: namespace } });
    agent = await startAgentProcess();
    await until('the agent is ready', async () => (await fetch(`${agent.healthUrl}/readyz`)).ok);
  });
  after(async () => {
    await stopAgent(agent, 'SIGTERM');
    kube.close();
    await api.close();
    bpffs[Symbol.dispose]();
    rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(async () => {
    pair = new TestPair('veth');
    containerId = `c${randomSuffix()}`;
    // Whoever talks to the pod is a pod of another node, so that selectors find it.
    await createPod('peer', { app: 'peer' }, {}, address.peer4);
  });
  afterEach(async () => {
    await cni('DEL', 'sluice', 'web');
    pair[Symbol.dispose]();
    for (const gvr of [pods, networkPolicies, events]) {
      for (const { metadata } of (await kube.list<KubeObject>(gvr, { namespace })).items) {
        await kube
          .delete(gvr, { namespace, name: metadata?.name ?? '' }, { gracePeriodSeconds: 0 })
          .catch(() => undefined);
      }
    }
  });

  async function createPod(
    name: string,
    labels: Record<string, string>,
    annotations: Record<string, string> = {},
    ip?: string,
  ) {
    const spec = { nodeName: ip === undefined ? node : 'elsewhere', containers: [{ name: 'c', image: 'none' }] };
    const pod = await kube.create<Pod>(pods, { metadata: { namespace, name, labels, annotations }, spec });
    if (ip !== undefined) {
      const status = { phase: 'Running' as const, podIP: ip, podIPs: [{ ip }] };
      await kube.patch(pods, { namespace, name }, { type: 'merge', body: { status } }, { subresource: 'status' });
    }
    return pod;
  }

  function createPolicy(name: string, spec: NetworkPolicySpec): Promise<NetworkPolicy> {
    return kube.create<NetworkPolicy>(networkPolicies, { metadata: { namespace, name }, spec });
  }

  function annotate(name: string, annotations: Record<string, string | null>): Promise<unknown> {
    return kube.patch(pods, { namespace, name }, { type: 'merge', body: { metadata: { annotations } } });
  }

  async function startAgentProcess(): Promise<RunningAgent> {
    const options = {
      kubeConfigPath: api.kubeConfigPath,
      nodeName: node,
      bpffsDir: join(bpffs.path, 'sluice'),
      stateDir: join(dir, 'state'),
      cniSocketPath: join(dir, 'cni.sock'),
      healthAddress: '127.0.0.1:0',
    };
    const args = [...agentProcess(), JSON.stringify(options)];
    const child = spawn(process.execPath, args, { cwd: root, stdio: ['pipe', 'pipe', 'pipe'] });
    const log: Buffer[] = [];
    child.stderr.on('data', (chunk: Buffer) => log.push(chunk));
    const healthUrl = await new Promise<string>((resolve, reject) => {
      child.once('exit', () => reject(new Error(`the agent ended: ${Buffer.concat(log).toString()}`)));
      child.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString().trim().split(' ')[1] ?? ''));
    });
    return { child, healthUrl };
  }

  function stopAgent({ child }: RunningAgent, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    return new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.once('exit', () => resolve());
      child.kill(signal);
    });
  }

  function prevResult(): object {
    return {
      cniVersion: '0.3.1',
      interfaces: [{ name: 'ens192' }, { name: 'eth0', sandbox: pair.pod, vendor: 'kept' }],
      ips: [{ version: '4', address: `${address.pod4}/24`, gateway: '10.0.0.1', interface: 1 }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.0.0.1' }],
      dns: {},
    };
  }

  /** Runs the real executable. */
  function cni(command: string, plugin: string, podName: string, change: object = {}): Promise<CniAnswer> {
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: pair.pod,
      CNI_IFNAME: 'eth0',
      CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${podName}`,
      SLUICE_CNI_SOCKET: join(dir, 'cni.sock'),
    };
    const config = {
      cniVersion: '0.3.1',
      name: 'spidernet-chainer',
      type: plugin,
      prevResult: prevResult(),
      ...change,
    };
    return callShim(plugin, env, config);
  }

  async function add(
    labels: Record<string, string> = { app: 'web' },
    annotations: Record<string, string> = {},
  ): Promise<void> {
    await createPod('web', labels, annotations);
    const answer = await cni('ADD', 'cilium-cni', 'web');
    assert.equal(answer.status, 0, JSON.stringify(answer.body));
  }

  function limits() {
    const { ingressBps, egressBps } = readBandwidth({ netns: pair.pod, interfaceName: 'eth0' });
    return { ingressBps, egressBps };
  }

  function endpointPins(): string[] {
    const path = join(bpffs.path, 'sluice/endpoint');
    return existsSync(path) ? readdirSync(path) : [];
  }

  it('serves its socket to root only', () => {
    assert.equal(statSync(join(dir, 'cni.sock')).mode & 0o777, 0o600);
  });

  it('refuses to start twice', async () => {
    await assert.rejects(startAgentProcess(), /another agent runs/);
  });

  it('ADD passes the previous result on whole, is idempotent, and CHECK agrees', async () => {
    await add();
    const again = await cni('ADD', 'cilium-cni', 'web');
    assert.deepEqual(again, { status: 0, body: prevResult() });
    assert.equal(endpointPins().length, 1);
    const checked = await cni('CHECK', 'cilium-cni', 'web', { cniVersion: '0.4.0' });
    assert.equal(checked.status, 0, JSON.stringify(checked.body));
    assert(pair.ping('pod', address.peer4), 'a pod without policy reaches everyone');
  });

  it('lets no packet out of a pod that sends from its first instruction under an egress-deny policy', async () => {
    await createPolicy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Egress'] });
    await createPod('web', { app: 'web' });
    using capture = PacketCapture.open(pair.peer, 'eth0');
    const { status } = await cni('ADD', 'sluice', 'web');
    assert.equal(status, 0);
    assert(!pair.ping('pod', address.peer4));
    const seen = capture.drain().filter((packet) => isEchoRequest(packet));
    assert.equal(seen.length, 0);
  });

  it('applies a policy to a running pod, cuts it, and gives it back', async () => {
    await add();
    assert(pair.ping('pod', address.peer4));
    await createPolicy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Egress'] });
    await until('egress is cut', () => !pair.ping('pod', address.peer4));
    assert(pair.ping('peer', address.pod4), 'ingress stays open');
    await kube.delete(networkPolicies, { namespace, name: 'deny' });
    await until('egress returns', () => pair.ping('pod', address.peer4));
  });

  it('follows labels: a policy that names the peer by its labels holds only while it has them', async () => {
    await add();
    await createPolicy('to-peer', {
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ podSelector: { matchLabels: { app: 'peer' } } }] }],
    });
    await createPolicy('other', { podSelector: {}, policyTypes: ['Egress'] });
    await until(
      'both policies are known',
      async () => (await kube.list(networkPolicies, { namespace })).items.length === 2,
    );
    assert(pair.ping('pod', address.peer4));
    await kube.patch(
      pods,
      { namespace, name: 'peer' },
      { type: 'merge', body: { metadata: { labels: { app: 'x' } } } },
    );
    await until('the peer is no longer allowed', () => !pair.ping('pod', address.peer4));
  });

  it('keeps limit and policy when it is killed, and adopts the pod without losing a packet', async () => {
    await createPolicy('only-peer', {
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ podSelector: { matchLabels: { app: 'peer' } } }] }],
    });
    using peer = RtNetlink.open(pair.peer);
    const stranger = '10.0.0.99';
    execFileSync('nsenter', [`--net=${pair.peer}`, 'ip', 'address', 'add', `${stranger}/24`, 'dev', 'eth0']);
    await add({ app: 'web' }, { 'kubernetes.io/egress-bandwidth': '10M', 'kubernetes.io/ingress-bandwidth': '20M' });
    assert.deepEqual(limits(), { egressBps: 10_000_000, ingressBps: 20_000_000 });
    assert(peer.links().length > 0);

    // Until it is interrupted: how long a restart takes depends on the machine.
    const traffic = spawn('nsenter', [`--net=${pair.pod}`, 'ping', '-n', '-q', '-i', '0.01', '-W', '1', address.peer4]);
    let summary = '';
    traffic.stdout.on('data', (chunk: Buffer) => (summary += chunk.toString()));
    const ended = new Promise<void>((resolve) => traffic.once('close', () => resolve()));
    await pause(300);
    await stopAgent(agent, 'SIGKILL');
    assert.deepEqual(limits(), { egressBps: 10_000_000, ingressBps: 20_000_000 });
    assert(!pair.ping('pod', stranger), 'policy holds without an agent');

    agent = await startAgentProcess();
    await until('the agent is ready again', async () => (await fetch(`${agent.healthUrl}/readyz`)).ok);
    await pause(300);
    assert(!pair.ping('pod', stranger), 'policy holds after the restart');
    assert.equal(traffic.exitCode, null, 'the flow spans the restart');
    traffic.kill('SIGINT');
    await ended;
    assert.match(summary, / 0% packet loss/, summary);
    assert.deepEqual(limits(), { egressBps: 10_000_000, ingressBps: 20_000_000 });

    await kube.delete(networkPolicies, { namespace, name: 'only-peer' });
    await until('a policy change takes effect', () => pair.ping('pod', stranger));
  });

  it('takes the namespace’s defaults, follows them, and keeps what is in force over a malformed one', async () => {
    const setDefaults = (annotations: Record<string, string | null>): Promise<unknown> =>
      kube.patch(namespaces, { name: namespace }, { type: 'merge', body: { metadata: { annotations } } });
    await setDefaults({ 'kubernetes.io/egress-bandwidth': '40M', 'kubernetes.io/ingress-bandwidth': '50M' });
    try {
      await add({}, { 'kubernetes.io/ingress-bandwidth': '60M' });
      await until('limits', () => limits().egressBps === 40_000_000 && limits().ingressBps === 60_000_000);
      await setDefaults({ 'kubernetes.io/egress-bandwidth': 'fast' });
      const warning = await until('a warning event', async () => {
        const list = await kube.list<Event>(events);
        return list.items.find(({ involvedObject }) => involvedObject.kind === 'Namespace');
      });
      assert.equal(warning.reason, 'InvalidBandwidth');
      assert.match(warning.message ?? '', /"fast" is not a quantity; .*running pods keep the default they have/);
      assert.deepEqual(limits(), { egressBps: 40_000_000, ingressBps: 60_000_000 });
      await stopAgent(agent, 'SIGKILL');
      agent = await startAgentProcess();
      await until('the agent is ready again', async () => (await fetch(`${agent.healthUrl}/readyz`)).ok);
      await pause(500);
      assert.deepEqual(limits(), { egressBps: 40_000_000, ingressBps: 60_000_000 });
      await annotate('web', { 'kubernetes.io/ingress-bandwidth': null });
      await until('the default', () => limits().ingressBps === 50_000_000);
    } finally {
      await setDefaults({ 'kubernetes.io/egress-bandwidth': null, 'kubernetes.io/ingress-bandwidth': null });
    }
    await until('no limits', () => limits().egressBps === undefined && limits().ingressBps === undefined);
  });

  it('follows changed annotations, and keeps the limit over a malformed one with a warning on the pod', async () => {
    await add({ app: 'web' }, { 'kubernetes.io/egress-bandwidth': '10M' });
    await annotate('web', { 'kubernetes.io/egress-bandwidth': '20M', 'kubernetes.io/ingress-bandwidth': '5M' });
    await until('the new limits', () => limits().egressBps === 20_000_000 && limits().ingressBps === 5_000_000);
    await annotate('web', { 'kubernetes.io/egress-bandwidth': 'fast' });
    const warning = await until('a warning event', async () => {
      const list = await kube.list<Event>(events, { namespace });
      return list.items.find((event) => event.involvedObject.name === 'web' && event.reason === 'InvalidBandwidth');
    });
    assert.match(warning.message ?? '', /egress-bandwidth.*"fast" is not a quantity/);
    assert.equal(limits().egressBps, 20_000_000);
    await annotate('web', { 'kubernetes.io/egress-bandwidth': null, 'kubernetes.io/ingress-bandwidth': null });
    await until('no limits', () => limits().egressBps === undefined && limits().ingressBps === undefined);
  });

  it('refuses a malformed annotation at ADD, naming pod, field and remedy, and leaves nothing behind', async () => {
    for (const [text, problem] of [
      ['fast', /is not a quantity/],
      ['10', /unreasonably small/],
      ['2E', /unreasonably large/],
    ] as const) {
      await createPod('bad', {}, { 'kubernetes.io/ingress-bandwidth': text });
      const { status, body } = await cni('ADD', 'sluice', 'bad');
      assert.equal(status, 1);
      assert.match(String(body['msg']), /pod demo\/bad.*ingress-bandwidth/);
      assert.match(String(body['msg']), problem);
      assert.match(String(body['details']), /for example 100M/);
      await kube.delete(pods, { namespace, name: 'bad' }, { gracePeriodSeconds: 0 });
    }
    assert.deepEqual(endpointPins(), []);
  });

  it("takes the runtime's limit when there is no annotation, and never its burst", async () => {
    await createPod('web', {});
    const bandwidth = { egressRate: 30_000_000, egressBurst: 4_294_967_295 };
    const { status } = await cni('ADD', 'sluice', 'web', { runtimeConfig: { bandwidth } });
    assert.equal(status, 0);
    assert.deepEqual(limits(), { egressBps: 30_000_000, ingressBps: undefined });
  });

  it('does not let the runtime’s copy of an annotation outlive it', async () => {
    await createPod('web', {}, { 'kubernetes.io/egress-bandwidth': '30M' });
    const bandwidth = { egressRate: 30_000_000, egressBurst: 4_294_967_295 };
    assert.equal((await cni('ADD', 'sluice', 'web', { runtimeConfig: { bandwidth } })).status, 0);
    assert.equal(limits().egressBps, 30_000_000);
    await annotate('web', { 'kubernetes.io/egress-bandwidth': null });
    await until('no limit', () => limits().egressBps === undefined);
  });

  it('DEL takes the limits off an interface that stays', async () => {
    await add({}, { 'kubernetes.io/egress-bandwidth': '10M', 'kubernetes.io/ingress-bandwidth': '10M' });
    assert.equal((await cni('DEL', 'sluice', 'web')).status, 0);
    assert.deepEqual(limits(), { egressBps: undefined, ingressBps: undefined });
    using netlink = RtNetlink.open(pair.pod);
    assert.deepEqual(
      netlink.links().filter(({ kind }) => kind === 'ifb'),
      [],
    );
  });

  it('DEL removes everything, and succeeds when there is nothing', async () => {
    await add();
    assert.equal((await cni('DEL', 'sluice', 'web')).status, 0);
    assert.deepEqual(endpointPins(), []);
    assert.deepEqual(readdirSync(join(dir, 'state/endpoints')), []);
    assert.equal((await cni('DEL', 'sluice', 'web')).status, 0);
  });

  it('GC removes the attachments that the runtime does not list', async () => {
    await add();
    const gc = (attachments: object[]) =>
      cni('GC', 'sluice', 'web', {
        cniVersion: '1.1.0',
        prevResult: undefined,
        'cni.dev/valid-attachments': attachments,
      });
    assert.equal((await gc([{ containerID: containerId, ifname: 'eth0' }])).status, 0);
    assert.equal(endpointPins().length, 1);
    assert.equal((await gc([])).status, 0);
    assert.deepEqual(endpointPins(), []);
  });

  it('STATUS is well when the informers are synced', async () => {
    const answer = await cni('STATUS', 'sluice', 'web', { cniVersion: '1.1.0', prevResult: undefined });
    assert.deepEqual(answer, { status: 0, body: {} });
  });

  it('CHECK tells of a limit that somebody removed, and the agent puts it back', async () => {
    await add({}, { 'kubernetes.io/egress-bandwidth': '10M' });
    using netns = Netns.openPath(pair.pod);
    using netlink = RtNetlink.open(netns);
    netlink.deleteQdisc(netlink.mustLink('eth0').ifindex, 0xffff_ffff);
    const { status, body } = await cni('CHECK', 'sluice', 'web', { cniVersion: '0.4.0' });
    if (limits().egressBps === undefined) {
      assert.equal(status, 1);
      assert.equal(body['code'], 102);
      assert.match(String(body['msg']), /egress none instead of egress 10000000|instead of/);
    }
    await until('the limit is back', () => limits().egressBps === 10_000_000, 5_000 * slowness);
    await until('an event', async () => {
      const list = await kube.list<Event>(events, { namespace });
      return list.items.some(
        ({ reason, message }) => reason === 'NetworkRepaired' && /egress none instead of/.test(message ?? ''),
      );
    });
  });

  it('removes the endpoint of a pod whose namespace is gone without DEL', async () => {
    await add();
    pair[Symbol.dispose]();
    await until('the endpoint is removed', () => endpointPins().length === 0, 40_000 * slowness);
  });

  it('tells a pod that the API does not know', async () => {
    const { status, body } = await cni('ADD', 'sluice', 'nobody');
    assert.equal(status, 1);
    assert.equal(body['code'], 3);
    assert.match(String(body['msg']), /pod demo\/nobody/);
  });

  it('exports what it does', async () => {
    await createPod('web', {}, { 'kubernetes.io/egress-bandwidth': '10M' });
    assert.equal((await cni('ADD', 'sluice', 'web')).status, 0);
    const text = await (await fetch(`${agent.healthUrl}/metrics`)).text();
    assert.match(text, /sluice_cni_operations_total\{plugin="sluice",command="ADD",code="0"\} \d+/);
    const place = '{namespace="demo",pod="web",interface="eth0",direction="egress"';
    for (const sample of [
      `limit_bits_per_second${place}} 10000000`,
      `info${place},mechanism="`,
      `bytes_total${place}} `,
      `backlog_bytes${place}} 0`,
    ]) {
      assert.ok(text.includes(`sluice_bandwidth_${sample}`), sample);
    }
    assert.match(text, /sluice_informer_synced\{resource="networkpolicies.networking.k8s.io"\} 1/);
  });
});

function isEchoRequest(frame: Uint8Array): boolean {
  return frame[12] === 0x08 && frame[13] === 0x00 && frame[23] === 1;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
