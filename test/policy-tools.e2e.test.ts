/** The operator's commands against a lab: what they say, beside what real packets do. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type {
  EndpointPolicyInfo,
  EndpointSummary,
  ExplainAnswer,
  FlowEvent,
  NodeInfo,
  PreviewAnswer,
} from '../src/api/agent-api.ts';
import type { NetworkPolicy, Pod } from '../src/api/kubernetes.ts';
import { namespaces, networkPolicies, pods } from '../src/api/resources.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { labLayout, nodePaths } from '../src/lab/layout.ts';
import { labDown } from '../src/lab/lifecycle/down.ts';
import { readLabState } from '../src/lab/lifecycle/state.ts';
import { labUp } from '../src/lab/lifecycle/up.ts';
import { waitFor } from '../src/lab/lifecycle/wait.ts';
import { apiCluster } from '../src/lab/walkthrough/api-cluster.ts';
import type { Cluster } from '../src/lab/walkthrough/cluster.ts';

const path = process.env['PATH'] ?? '';
const namespace = 'demo';
const patience = { timeoutMs: 120_000 };

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const onlyClientsOn80: NetworkPolicy = {
  ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { namespace, name: 'web' } },
  spec: {
    podSelector: { matchLabels: { app: 'web' } },
    ingress: [
      { from: [{ podSelector: { matchLabels: { app: 'nobody' } } }] },
      { from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 80 }] },
    ],
  },
};

describe('the operator’s commands, in a lab', () => {
  const home = mkdtempSync(join(tmpdir(), 'sluice-tools-'));
  const dir = join(home, 'lab');
  const options = {
    ...{ dir, nodes: 2, link: 'macvlan' as const, apiHost: '127.0.0.1', apiPort: 0, path },
    ...{ vmCacheDir: join(dir, 'no-vm'), uid: process.getuid?.(), onProgress: () => undefined },
  };
  const command = [createRequire(import.meta.url).resolve('tsx'), join(packageRoot(), 'src', 'cli', 'main.ts')];
  let kube: KubeClient;
  let cluster: Cluster;
  let kubeconfig = '';

  before(async () => {
    kubeconfig = await labUp(options);
    kube = createKubeClient(loadKubeConfig({ path: kubeconfig }));
    cluster = apiCluster(kubeconfig);
    await kube.create(namespaces, { metadata: { name: namespace } });
    const serve = { ports: [{ containerPort: 80 }, { containerPort: 81 }] };
    await Promise.all([
      createPod('web', 'node1', serve),
      createPod('client', 'node2', { command: ['sleep', '10000'] }),
      createPod('other', 'node1', { command: ['sleep', '10000'] }),
    ]);
    await Promise.all(['web', 'client', 'other'].map(ready));
  });
  after(async () => {
    kube?.close();
    await labDown(options);
    rmSync(home, { recursive: true, force: true });
  });

  function createPod(name: string, nodeName: string, container: object): Promise<Pod> {
    const containers = [{ name: 'c', image: 'none', ...container }];
    const spec = { nodeName, terminationGracePeriodSeconds: 0, containers };
    return kube.create<Pod>(pods, { metadata: { namespace, name, labels: { app: name } }, spec });
  }

  function ready(name: string): Promise<void> {
    return waitFor(
      `pod ${name}`,
      async () => {
        const { status } = await kube.get<Pod>(pods, { namespace, name });
        return status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true;
      },
      patience,
    );
  }

  /** The real command. */
  function sluice(...args: readonly string[]): Promise<Ran> {
    const env = { PATH: path, HOME: home };
    return new Promise((resolve) =>
      execFile(
        process.execPath,
        ['--import', ...command, ...args],
        { env, timeout: 120_000 },
        (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }),
      ),
    );
  }

  async function json<T>(...args: readonly string[]): Promise<T> {
    const ran = await sluice(...args, '--lab', dir, '--json');
    assert.equal(ran.code, 0, `sluice ${args.join(' ')}: ${ran.stderr}`);
    return JSON.parse(ran.stdout) as T;
  }

  async function ipsOf(name: string): Promise<string[]> {
    return ((await kube.get<Pod>(pods, { namespace, name })).status?.podIPs ?? []).map(({ ip }) => ip);
  }

  /** Whether a TCP connection between the pods comes about. */
  async function connects(from: string, ip: string, port: number): Promise<boolean> {
    const host = ip.includes(':') ? `[${ip}]` : ip;
    const call = ['curl', '-sg', '-m', '2', '-o', '/dev/null', `http://${host}:${port}/`];
    return (await cluster.exec({ namespace, name: from }, call, 30_000)).exitCode === 0;
  }

  async function explained(from: string, to: string, port: string): Promise<ExplainAnswer> {
    return json('policy', 'explain', '--from', from, '--to', to, '--port', port);
  }

  /** Until the agents have seen the last change: the kernel then agrees with the objects. */
  async function settled(): Promise<void> {
    await waitFor(
      'the kernel to agree',
      async () => {
        const { paths } = await explained('demo/client', 'demo/web', '80');
        return paths.every(({ egress, ingress }) => egress.kernel?.agrees === true && ingress.kernel?.agrees === true);
      },
      patience,
    );
  }

  it('the agents’ sockets are root’s alone', () => {
    const state = readLabState(dir);
    assert.ok(state);
    for (const node of ['node1', 'node2']) {
      assert.equal(statSync(nodePaths(labLayout(state), node).agentSocket).mode & 0o777, 0o600);
    }
  });

  it('status and endpoint list merge the nodes', async () => {
    const nodes = await json<NodeInfo[]>('status');
    const states = nodes.map(({ node, synced, problems }) => [node, synced, problems]);
    assert.deepEqual(
      states,
      ['node1', 'node2'].map((node) => [node, true, []]),
    );
    const endpoints = await json<EndpointSummary[]>('endpoint', 'list');
    const found = endpoints.map(({ node, pod, isolated }) => [node, pod.name, isolated.ingress]);
    assert.deepEqual(found.sort(), [
      ['node1', 'other', false],
      ['node1', 'web', false],
      ['node2', 'client', false],
    ]);
  });

  it('explain says what packets do, in both families, and names the rule', async () => {
    await kube.create(networkPolicies, onlyClientsOn80);
    await waitFor(
      'isolation',
      async () => (await json<EndpointSummary[]>('endpoint', 'list')).some(({ isolated }) => isolated.ingress),
      patience,
    );
    await settled();
    const verdicts: string[] = [];
    for (const [from, port] of [
      ['client', 80],
      ['client', 81],
      ['other', 80],
    ] as const) {
      const answer = await explained(`demo/${from}`, 'demo/web', `${port}/tcp`);
      assert.equal(answer.paths.length, 2, 'one path for each family');
      for (const path of answer.paths) {
        const passes = await connects(from, path.to.address, port);
        assert.equal(path.verdict === 'allow', passes, JSON.stringify(path));
        assert.equal(path.ingress.kernel?.agrees, true);
        assert.equal(path.ingress.kernel?.node, 'node1');
      }
      verdicts.push(answer.verdict);
    }
    assert.deepEqual(verdicts, ['allow', 'deny', 'deny']);
    const [allowed] = (await explained('demo/client', 'demo/web', '80')).paths;
    const rule = { kind: 'policy', namespace, policy: 'web', direction: 'ingress', index: 1 };
    assert.deepEqual(allowed?.ingress.rule, rule);
    assert.deepEqual(allowed?.ingress.kernel?.rule, rule);
    const { stdout } = await sluice(
      'policy',
      'explain',
      '--from',
      'demo/other',
      '--to',
      'demo/web',
      '--port',
      '80',
      '--lab',
      dir,
    );
    assert.match(stdout, /^demo\/other → demo\/web 80\/tcp: deny$/m);
    assert.match(
      stdout,
      /demo\/web ingress\[1\]: from\[0\]: podSelector app=client does not match pod demo\/other \(app=other\)/,
    );
  });

  it('policy get shows rules and kernel entries', async () => {
    const [info] = await json<EndpointPolicyInfo[]>('policy', 'get', 'demo/web');
    assert.deepEqual(info?.isolatedBy, { ingress: ['web'], egress: [] });
    assert.equal(info?.rules[1]?.peers, 'pods with app=client in namespace demo');
    const entries = info?.entries.filter(({ rule }) => rule.kind === 'policy' && rule.index === 1) ?? [];
    assert.ok(
      entries.length > 0 && entries.every(({ ports, peer }) => ports === '80/tcp' && peer.startsWith('demo/client')),
    );
  });

  it('drops shows the denied packet with pods, reason and ports, also while following', async () => {
    const [ip = ''] = await ipsOf('web');
    const env = { PATH: path, HOME: home };
    const args = ['--import', ...command, 'drops', '--follow', '--json', '--lab', dir, '--pod', 'demo/other'];
    const following = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      let followed = '';
      following.stdout.on('data', (chunk: Buffer) => (followed += chunk.toString()));
      await waitFor(
        'a followed drop',
        async () => {
          assert.equal(await connects('other', ip, 80), false);
          return followed.includes('\n');
        },
        patience,
      );
      const line = JSON.parse(followed.split('\n')[0] ?? '') as FlowEvent;
      assert.equal(line.source?.name, 'other');
    } finally {
      const ended = new Promise((resolve) => following.once('exit', resolve));
      following.kill('SIGINT');
      assert.equal(await ended, 0);
    }
    const events = await json<FlowEvent[]>('drops', '--pod', 'demo/other', '--reason', 'policy');
    const last = events.at(-1);
    assert.ok(last);
    assert.deepEqual(
      [last.kind, last.reason, last.direction, last.node, last.rule.kind, last.protocol, last.destinationPort],
      ['drop', 'policy', 'ingress', 'node1', 'none', 'tcp', 80],
    );
    assert.deepEqual(
      [last.source?.name, last.destination?.name, last.pod],
      ['other', 'web', { namespace, name: 'web' }],
    );
    assert.ok(Math.abs(Date.parse(last.time) - Date.now()) < 120_000, last.time);
    const counters = (await sluice('endpoint', 'get', 'demo/web', '--lab', dir)).stdout;
    assert.match(counters, /^ingress +policy +\d+ +\d+$/m);
    assert.match(counters, /^ingress +demo\/web ingress\[1\] +\d+$/m);
  });

  it('preview names the flows and connections that the policy then really changes', async () => {
    const file = join(home, 'deny.yaml');
    writeFileSync(file, JSON.stringify({ ...onlyClientsOn80, spec: { ...onlyClientsOn80.spec, ingress: [] } }));
    const ips = await ipsOf('web');
    for (const ip of ips) assert.equal(await connects('client', ip, 80), true);
    const [ip = ''] = ips;
    const hold = ['timeout', '20', 'bash', '-c', `exec 3<>/dev/tcp/${ip}/80; sleep 20`];
    const held = cluster.exec({ namespace, name: 'client' }, hold, 60_000);
    const known = (answer: PreviewAnswer): boolean =>
      answer.connections.some(({ from, to }) => from.name === 'client' && to.name === 'web');
    await waitFor('the connection to be known', async () => known(await json('policy', 'preview', file)), patience);
    const answer = await json<PreviewAnswer>('policy', 'preview', file);
    assert.deepEqual(answer.policies, [{ namespace, name: 'web', change: 'update' }]);
    assert.deepEqual(answer.flows, [
      {
        change: 'deny',
        from: { kind: 'pods', pods: ['demo/client'] },
        to: { kind: 'pods', pods: ['demo/web'] },
        ports: '80/tcp',
      },
    ]);
    assert.deepEqual(answer.connections[0]?.rule, {
      kind: 'policy',
      namespace,
      policy: 'web',
      direction: 'ingress',
      index: 1,
    });
    assert.equal(await connects('client', ip, 80), true, 'a preview changes nothing');
    await cluster.apply(file);
    await settled();
    for (const one of ips) assert.equal(await connects('client', one, 80), false);
    assert.deepEqual((await json<PreviewAnswer>('policy', 'preview', file)).flows, []);
    await held;
  });

  it('audit mode lets the same packet through and reports it', async () => {
    const [ip = ''] = await ipsOf('web');
    assert.equal(await connects('other', ip, 80), false);
    const annotate = (value: string): Promise<unknown> =>
      kube.patch(
        namespaces,
        { name: namespace },
        { type: 'merge', body: { metadata: { annotations: { 'sluice.io/policy-audit': value } } } },
      );
    await annotate('true');
    await waitFor(
      'audit',
      async () => (await json<EndpointSummary[]>('endpoint', 'list')).every(({ audit }) => audit),
      patience,
    );
    assert.equal(await connects('other', ip, 80), true);
    const events = await json<FlowEvent[]>('drops', '--pod', 'demo/other');
    const last = events.at(-1);
    assert.deepEqual(
      [last?.kind, last?.reason, last?.source?.name, last?.destinationPort],
      ['audit', 'audit', 'other', 80],
    );
    const answer = await explained('demo/other', 'demo/web', '80');
    assert.deepEqual(
      [answer.verdict, answer.paths[0]?.ingress.verdict, answer.paths[0]?.ingress.audit],
      ['allow', 'deny', true],
    );
    await annotate('yes');
    await waitFor('enforcement', async () => !(await connects('other', ip, 80)), patience);
    const events2 = await kube.list(
      { group: '', version: 'v1', plural: 'events', kind: 'Event', namespaced: true },
      { namespace: 'default' },
    );
    const about = events2.items.filter((event) => (event as { reason?: string }).reason === 'InvalidPolicyAudit');
    assert.equal(about.length, 1, 'one event, whatever the number of nodes');
  });

  it('errors name object, reason and remedy', async () => {
    const ran = await sluice('policy', 'explain', '--from', 'demo/nope', '--to', 'demo/web', '--lab', dir);
    assert.equal(ran.code, 1);
    assert.match(ran.stderr, /demo\/nope: there is no such pod \(kubectl get pods -n demo lists them\)/);
    const missing = await sluice('endpoint', 'get', 'demo/nope', '--lab', dir);
    assert.match(missing.stderr, /pod demo\/nope: it has no endpoint on node node1/);
    const nobody = await sluice('endpoint', 'list', '--agent', join(home, 'none.sock'));
    assert.match(nobody.stderr, /none\.sock: there is no such socket \(run this on a node/);
  });
});
