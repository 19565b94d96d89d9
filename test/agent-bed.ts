/** What tests of the agent stand on: an API server, a bpffs, the agent as a process, the real CNI executable. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { Event, KubeObject, NetworkPolicySpec, Pod } from '../src/api/kubernetes.ts';
import { customResourceDefinitions, events, namespaces, networkPolicies, pods } from '../src/api/resources.ts';
import { address, randomSuffix, TestBpffs, TestPair } from '../src/datapath/test-bed.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';
import type { AgentProcessData } from './agent-process.ts';
import { callShim, type CniAnswer } from './cni-shim.ts';

export const namespace = 'demo';
export const node = 'node1';

export interface RunningAgent {
  readonly child: ChildProcess;
  readonly healthUrl: string;
}

export class AgentBed {
  readonly bpffs = new TestBpffs();
  readonly dir = mkdtempSync(join(tmpdir(), 'sluice-agent-'));
  readonly #agents: RunningAgent[] = [];
  readonly #pairs: TestPair[] = [];
  #api: TestApiServer;
  kube: KubeClient;

  private constructor(api: TestApiServer) {
    this.#api = api;
    this.kube = createKubeClient(loadKubeConfig({ path: api.kubeConfigPath }));
  }

  static async create(): Promise<AgentBed> {
    const root = packageRoot();
    execFileSync('make', ['-s', '-C', join(root, 'shim')], { stdio: 'inherit' });
    const bed = new AgentBed(await startTestApiServer());
    writeFileSync(bed.#kubeConfigPath, bed.#api.kubeConfig, { mode: 0o600 });
    await bed.#restartWithJournal();
    const crd = readFileSync(join(root, 'deploy/crds/spiderpool.spidernet.io_spiderippools.yaml'), 'utf8');
    await bed.kube.create(customResourceDefinitions, parse(crd) as KubeObject);
    await bed.kube.create(namespaces, { metadata: { name: namespace } });
    // Whoever talks to the pod is a pod of another node, so that selectors find it.
    await bed.createPod('peer', { app: 'peer' }, { ips: [address.peer4, address.peer6] });
    return bed;
  }

  /** Outlives the API server. */
  get #kubeConfigPath(): string {
    return join(this.dir, 'kubeconfig');
  }

  /** As it runs now. */
  get api(): TestApiServer {
    return this.#api;
  }

  get bpffsDir(): string {
    return join(this.bpffs.path, 'sluice');
  }

  async close(): Promise<void> {
    for (const agent of this.#agents) await this.stop(agent, 'SIGTERM');
    for (const pair of this.#pairs) pair[Symbol.dispose]();
    this.kube.close();
    await this.#api.close().catch(() => undefined);
    this.bpffs[Symbol.dispose]();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** A pod's namespace and its peer's. */
  pair(kind: ConstructorParameters<typeof TestPair>[0] = 'veth'): TestPair {
    const pair = new TestPair(kind);
    this.#pairs.push(pair);
    return pair;
  }

  /** Ends the API server at once; its objects stay. */
  async killApi(): Promise<void> {
    this.kube.close();
    await this.#api.close();
  }

  /** On the same port with the same objects. */
  async reviveApi(): Promise<void> {
    const { credentials } = this.#api;
    const port = Number(new URL(this.#api.url).port);
    this.#api = await startTestApiServer({ credentials, port, stateDir: join(this.dir, 'api') });
    this.kube = createKubeClient(loadKubeConfig({ path: this.#api.kubeConfigPath }));
  }

  async #restartWithJournal(): Promise<void> {
    await this.killApi();
    await this.reviveApi();
  }

  async createPod(
    name: string,
    labels: Record<string, string>,
    where: { readonly ips?: readonly string[]; readonly nodeName?: string } = {},
  ): Promise<Pod> {
    const nodeName = where.nodeName ?? (where.ips === undefined ? node : 'elsewhere');
    const spec = { nodeName, containers: [{ name: 'c', image: 'none' }] };
    const pod = await this.kube.create<Pod>(pods, { metadata: { namespace, name, labels }, spec });
    if (where.ips !== undefined) await this.setRunning(name, where.ips);
    return pod;
  }

  /** As the kubelet writes it. */
  async setRunning(name: string, ips: readonly string[]): Promise<void> {
    const status = { phase: 'Running', podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) };
    await this.kube.patch(pods, { namespace, name }, { type: 'merge', body: { status } }, { subresource: 'status' });
  }

  async createPolicy(name: string, spec: NetworkPolicySpec): Promise<void> {
    await this.kube.create(networkPolicies, { metadata: { namespace, name }, spec });
  }

  async replacePolicy(name: string, spec: NetworkPolicySpec): Promise<void> {
    // A JSON patch: a merge would keep what the new one leaves out.
    const body = [{ op: 'replace', path: '/spec', value: spec }];
    await this.kube.patch(networkPolicies, { namespace, name }, { type: 'json', body });
  }

  async deletePolicy(name: string): Promise<void> {
    await this.kube.delete(networkPolicies, { namespace, name });
  }

  /** Events about a pod, or whatever has that name: "Reason: message". */
  async eventsOf(pod: string): Promise<string[]> {
    const { items } = await this.kube.list<Event>(events);
    return items
      .filter((event) => event.involvedObject.name === pod)
      .map((event) => `${event.reason ?? ''}: ${event.message ?? ''}`);
  }

  /** Resolves when it serves CNI calls; rejects with its log when it ends before. */
  async start(change: Partial<AgentProcessData> = {}): Promise<RunningAgent> {
    const options: AgentProcessData = {
      kubeConfigPath: this.#kubeConfigPath,
      nodeName: node,
      bpffsDir: this.bpffsDir,
      stateDir: join(this.dir, 'state'),
      cniSocketPath: join(this.dir, 'cni.sock'),
      healthAddress: '127.0.0.1:0',
      ...change,
    };
    const root = packageRoot();
    const args = [...agentProcess(), JSON.stringify(options)];
    const child = spawn(process.execPath, args, { cwd: root, stdio: ['pipe', 'pipe', 'pipe'] });
    const log: Buffer[] = [];
    child.stderr.on('data', (chunk: Buffer) => log.push(chunk));
    const healthUrl = await new Promise<string>((resolve, reject) => {
      child.once('exit', () => reject(new Error(`the agent ended: ${Buffer.concat(log).toString()}`)));
      child.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString().trim().split(' ')[1] ?? ''));
    });
    const agent = { child, healthUrl };
    this.#agents.push(agent);
    return agent;
  }

  async startReady(change: Partial<AgentProcessData> = {}): Promise<RunningAgent> {
    const agent = await this.start(change);
    await until('the agent is ready', async () => (await fetch(`${agent.healthUrl}/readyz`)).ok);
    return agent;
  }

  stop({ child }: RunningAgent, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    return new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.once('exit', () => resolve());
      child.kill(signal);
    });
  }

  async metric({ healthUrl }: RunningAgent, sample: string): Promise<number> {
    const text = await (await fetch(`${healthUrl}/metrics`)).text();
    const line = text.split('\n').find((candidate) => candidate.startsWith(`${sample} `));
    return Number(line?.split(' ')[1] ?? 0);
  }

  /** Runs the real executable on the pod's side of the pair. */
  cni(command: string, podName: string, pair: TestPair, change: object = {}): Promise<CniAnswer> {
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: `c-${podName}`,
      CNI_NETNS: pair.pod,
      CNI_IFNAME: 'eth0',
      CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${podName}`,
      SLUICE_CNI_SOCKET: join(this.dir, 'cni.sock'),
    };
    const prevResult = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'eth0', sandbox: pair.pod }],
      ips: [address.pod4, address.pod6].map((ip) => ({
        address: `${ip}/${ip.includes(':') ? 64 : 24}`,
        interface: 0,
      })),
    };
    const config = { cniVersion: '1.0.0', name: 'spidernet-chainer', type: 'sluice', prevResult, ...change };
    return callShim('sluice', env, config);
  }

  /** A pod of this node through ADD. */
  async add(name: string, pair: TestPair, labels: Record<string, string> = { app: name }): Promise<void> {
    await this.createPod(name, labels);
    const answer = await this.cni('ADD', name, pair);
    assert.equal(answer.status, 0, JSON.stringify(answer.body));
  }

  /** Names below `<bpffs>/endpoint`. */
  endpointPins(): string[] {
    const path = join(this.bpffsDir, 'endpoint');
    return existsSync(path) ? readdirSync(path) : [];
  }
}

let ownBundle: string | undefined;

/** Bundled, as dist/ is: from the sources each start would take seconds. In the small VM all is bundled (scripts/testing/run.mjs). */
export function agentProcess(): string[] {
  const bundles = process.env['SLUICE_TEST_BUNDLES'];
  return [bundles === undefined ? (ownBundle ??= bundleAgent()) : join(bundles, 'test/agent-process.mjs')];
}

/** Below the checkout, so that packageRoot() holds in it; gone with this process. */
function bundleAgent(): string {
  const root = packageRoot();
  mkdirSync(join(root, '.cache'), { recursive: true });
  const dir = mkdtempSync(join(root, '.cache', 'agent-'));
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  const outfile = join(dir, 'agent-process.mjs');
  const require = "import { createRequire as __r } from 'node:module'; const require = __r(import.meta.url);";
  const flags = ['--bundle', '--format=esm', '--platform=node', '--target=node20.19', '--external:koffi'];
  execFileSync(
    join(root, 'node_modules/.bin/esbuild'),
    ['test/agent-process.ts', ...flags, `--banner:js=${require}`, `--outfile=${outfile}`, '--log-level=warning'],
    { cwd: root, stdio: 'inherit' },
  );
  return outfile;
}

/** An address that no other test of this machine has. */
export function randomPodIps(): [string, string] {
  const suffix = randomSuffix();
  const [a, b, c] = [0, 2, 4].map((at) => Number.parseInt(suffix.slice(at, at + 2), 16));
  return [`10.${a}.${b}.${c}`, `fd77::${suffix.slice(0, 4)}:${suffix.slice(4)}`];
}

/** How many times longer the emulated CPU of the VM may take, on a busy machine. */
export const slowness = process.env['SLUICE_VM'] === '1' ? 10 : 1;

export async function until<T>(
  what: string,
  condition: () => T | Promise<T>,
  timeoutMs = 60_000 * slowness,
): Promise<NonNullable<T>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== null && value !== false) return value;
    if (Date.now() > deadline) assert.fail(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
