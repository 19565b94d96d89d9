/**
 * Spiderpool's own CNI executables against our agent's socket: a pod's interface by the `macvlan` plugin, its addresses by their
 * `spiderpool`, its connection to the node by their `coordinator`; real namespaces and packets.
 *
 *   peer  eth0 172.51.0.20 ═══ ens192 172.51.0.2  node ── veth ── veth0  pod
 *                                 └──────── macvlan ───────────── eth0  (from the pool)
 *
 * The executables are not ours and nothing here builds them: they are looked for in SLUICE_SPIDERPOOL_BIN, else in
 * ~/.cache/sluice/spiderpool (docs/reference/spiderpool-socket.md).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import type { KubeObject } from '../src/api/kubernetes.ts';
import { pods, spiderCoordinators, spiderEndpoints, spiderIPPools } from '../src/api/resources.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import { randomSuffix, whyNoKernelTests } from '../src/datapath/test-bed.ts';
import { decodeAllocatedIps } from '../src/ipam/allocated-ips.ts';
import { createNamedNetns, Netns, removeNamedNetns, RtNetlink } from '../src/kernel/index.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';
import { AgentBed, namespace, type RunningAgent, until } from './agent-bed.ts';

const given = process.env['SLUICE_SPIDERPOOL_BIN'];
const binDir = given ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'sluice', 'spiderpool');
const pluginDirs = ['/usr/lib/cni', '/opt/cni/bin'];
const macvlan = pluginDirs.map((dir) => join(dir, 'macvlan')).find((path) => existsSync(path));

function whyNot(): string | undefined {
  const missing = ['spiderpool', 'coordinator'].filter((name) => !existsSync(join(binDir, name)));
  // Who names a directory wants them tested.
  if (missing.length > 0 && given === undefined)
    return `no Spiderpool executables (${missing.join(', ')}) in ${binDir}`;
  if (macvlan === undefined) return `no CNI plugin macvlan in ${pluginDirs.join(', ')}`;
  return whyNoKernelTests();
}

interface CniResult {
  readonly ips?: readonly { readonly address: string }[];
  readonly msg?: string;
}

interface Output {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

describe('Spiderpool’s own executables', { skip: whyNot() ?? false }, () => {
  const suffix = randomSuffix();
  const netns = (name: string): string => `/run/netns/sluice-sp-${suffix}-${name}`;
  const made = ['node', 'peer', 'a', 'b', 'c'].map(netns);
  const containerOf = (pod: string): string => `${suffix}${pod}`.padEnd(64, '0');
  const results = new Map<string, CniResult>();
  const uids = new Map<string, string>();
  let bed: AgentBed;
  let agent: RunningAgent;
  let spiderSocketPath: string;

  before(async () => {
    for (const path of made) createNamedNetns(path);
    bed = await AgentBed.create();
    await applyDefinitions(bed.kube);
    for (const object of pools()) await bed.kube.create(spiderIPPools, object);
    await bed.kube.create(spiderCoordinators, { metadata: { name: 'default' }, spec: { mode: 'auto' } } as KubeObject);
    const status = { phase: 'Synced', overlayPodCIDR: [], serviceCIDR: ['10.96.0.0/12'] };
    const patch = { type: 'merge', body: { status } } as const;
    await bed.kube.patch(spiderCoordinators, { name: 'default' }, patch, { subresource: 'status' });
    spiderSocketPath = join(bed.dir, 'spiderpool.sock');
    await buildLink();
    agent = await bed.startReady({ spiderSocketPath });
  });
  after(async () => {
    await bed.close();
    for (const path of made) removeNamedNetns(path);
  });

  function pools(): KubeObject[] {
    const gateway = { 4: '172.51.0.20', 6: 'fd00:51::20' };
    return [
      { ipVersion: 4, subnet: '172.51.0.0/16', ips: ['172.51.0.100-172.51.0.101'], gateway: gateway[4] },
      { ipVersion: 6, subnet: 'fd00:51::/64', ips: ['fd00:51::100-fd00:51::101'], gateway: gateway[6] },
    ].map((spec) => ({ metadata: { name: `p${spec.ipVersion}` }, spec }) as KubeObject);
  }

  async function buildLink(): Promise<void> {
    using peer = Netns.openPath(netns('peer'));
    using link = RtNetlink.open(netns('node'));
    link.addLink({ kind: 'veth', name: 'ens192', up: true, peer: { name: 'eth0', netnsFd: peer.fd } });
    for (const [where, dev, host] of [
      ['node', 'ens192', 2],
      ['peer', 'eth0', 20],
    ] as const) {
      for (const up of ['lo', dev]) await must(where, 'ip', 'link', 'set', up, 'up');
      await must(where, 'ip', 'addr', 'add', `172.51.0.${host}/16`, 'dev', dev);
      await must(where, 'ip', 'addr', 'add', `fd00:51::${host}/64`, 'dev', dev, 'nodad');
    }
  }

  /** Not synchronous: the API server that the agent asks is in this process. */
  async function run(where: string, env: NodeJS.ProcessEnv, stdin: string, ...command: string[]): Promise<Output> {
    const child = spawn('nsenter', [`--net=${netns(where)}`, ...command], { env: { ...process.env, ...env } });
    // Not every program reads it to the end.
    child.stdin.on('error', () => undefined).end(stdin);
    const status = new Promise<number | null>((resolve) => child.once('close', resolve));
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    return { status: await status, stdout, stderr };
  }

  async function must(where: string, ...command: string[]): Promise<string> {
    const { status, stdout, stderr } = await run(where, {}, '', ...command);
    assert.equal(status, 0, `${command.join(' ')} in ${where}: ${stderr}`);
    return stdout;
  }

  /**
   * The coordinator knows its agent's socket by one path only, so it gets a /run of its own in which that path is the test's, with the
   * namespaces where they are.
   */
  const inOwnRun = [
    'mkdir -p "$1/netns" && mount --rbind /run/netns "$1/netns" && mount -t tmpfs tmpfs /run',
    'mkdir -p /run/netns /run/spidernet && mount --rbind "$1/netns" /run/netns',
    'ln -s "$2" /run/spidernet/spiderpool.sock && shift 2 && exec "$@"',
  ].join(' && ');

  async function cni(command: string, pod: string, executable: string, config: object): Promise<Output> {
    const env = {
      ...{ CNI_COMMAND: command, CNI_CONTAINERID: containerOf(pod), CNI_NETNS: netns(pod), CNI_IFNAME: 'eth0' },
      CNI_PATH: [binDir, ...pluginDirs].join(':'),
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${pod};K8S_POD_UID=${uids.get(pod) ?? ''};K8S_POD_INFRA_CONTAINER_ID=${containerOf(pod)}`,
    };
    const inside = ['sh', '-c', inOwnRun, 'sh', bed.dir, spiderSocketPath, executable];
    return run('node', env, JSON.stringify(config), 'unshare', '--mount', ...inside);
  }

  const common = { cniVersion: '1.0.0', name: 'spidernet' };
  const ipam = () => ({
    type: 'spiderpool',
    ipam_unix_socket_path: spiderSocketPath,
    log_file_path: join(bed.dir, 'spiderpool.log'),
    default_ipv4_ippool: ['p4'],
    default_ipv6_ippool: ['p6'],
  });
  const main = () => ({ ...common, type: 'macvlan', master: 'ens192', mode: 'bridge', ipam: ipam() });
  const chained = () => ({
    ...{ ...common, type: 'coordinator' },
    logOptions: { logLevel: 'debug', logFile: join(bed.dir, 'coordinator.log') },
  });

  /** As a runtime goes through the two, with what ADD answered. */
  async function chain(command: 'ADD' | 'CHECK' | 'DEL', pod: string): Promise<Output> {
    const plugins = [
      [macvlan ?? '', main()],
      [join(binDir, 'coordinator'), chained()],
    ] as const;
    let output: Output = { status: null, stdout: '', stderr: '' };
    for (const [executable, config] of command === 'DEL' ? plugins.toReversed() : plugins) {
      output = await cni(command, pod, executable, { ...config, prevResult: results.get(pod) });
      if (output.status !== 0) return output;
      if (command === 'ADD') results.set(pod, JSON.parse(output.stdout) as CniResult);
    }
    return output;
  }

  async function createPod(name: string): Promise<void> {
    const { metadata } = await bed.createPod(name, { app: name });
    uids.set(name, metadata?.uid ?? '');
  }

  const addressesOf = (result: CniResult | undefined): string[] =>
    (result?.ips ?? []).map(({ address }) => address).sort();

  /** "pod address", of both pools. */
  async function recorded(): Promise<string[]> {
    const found = await Promise.all(['p4', 'p6'].map((name) => bed.kube.get(spiderIPPools, { name })));
    return (found as SpiderIPPool[])
      .flatMap(({ metadata, status }) => [...decodeAllocatedIps(status?.allocatedIPs, metadata.name ?? '')])
      .map(([address, record]) => `${record.pod} ${address}`)
      .sort();
  }

  it('ADD gives a pod addresses of its pools, and packets pass: on the link, to its node and back', async () => {
    for (const pod of ['a', 'b']) {
      await createPod(pod);
      const { status, stdout, stderr } = await chain('ADD', pod);
      assert.equal(status, 0, `${stdout}${stderr}`);
    }
    assert.deepEqual(addressesOf(results.get('a')), ['172.51.0.100/16', 'fd00:51::100/64']);
    assert.deepEqual(await recorded(), [
      ...[`${namespace}/a 172.51.0.100`, `${namespace}/a fd00:51::100`],
      ...[`${namespace}/b 172.51.0.101`, `${namespace}/b fd00:51::101`],
    ]);
    const found = await must('a', 'ip', '-o', 'addr', 'show', 'dev', 'eth0', 'scope', 'global');
    for (const address of addressesOf(results.get('a'))) assert.ok(found.includes(` ${address} `), found);
    // The first packets may wait for duplicate address detection.
    const reaches = async (from: string, to: string): Promise<void> => {
      const ping = async (): Promise<boolean> =>
        (await run(from, {}, '', 'ping', '-q', '-c', '1', '-W', '2', to)).status === 0;
      await until(`${from} reaches ${to}`, ping);
    };
    for (const to of ['172.51.0.20', 'fd00:51::20', '172.51.0.101', 'fd00:51::101', '172.51.0.2'])
      await reaches('a', to);
    for (const to of ['172.51.0.100', 'fd00:51::100']) for (const from of ['node', 'peer']) await reaches(from, to);
    assert.match(await must('a', 'ip', 'route', 'get', '10.96.0.1'), / dev veth0 /, 'services go to the node');
    assert.match(await must('a', 'ip', 'route', 'get', '8.8.8.8'), / via 172\.51\.0\.20 dev eth0 /);
  });

  it('CHECK succeeds, and an ADD that is tried again, after the agent was killed too, gets the same addresses', async () => {
    const check = await chain('CHECK', 'a');
    assert.equal(check.status, 0, check.stdout + check.stderr);
    await bed.stop(agent, 'SIGKILL');
    agent = await bed.startReady({ spiderSocketPath });
    const again = await cni('ADD', 'a', join(binDir, 'spiderpool'), main());
    assert.equal(again.status, 0, again.stdout + again.stderr);
    assert.deepEqual(addressesOf(JSON.parse(again.stdout) as CniResult), addressesOf(results.get('a')));
    assert.equal((await recorded()).length, 4);
  });

  it('a pool without addresses is an error that names it, and costs nothing', async () => {
    await createPod('c');
    const { status, stdout } = await chain('ADD', 'c');
    assert.notEqual(status, 0);
    const { msg = '' } = JSON.parse(stdout) as CniResult;
    assert.match(msg, /all IPs? .*used out|used out/i, msg);
    assert.match(msg, /p4|p6/);
    assert.equal((await recorded()).length, 4);
  });

  it('DEL gives everything back, and succeeds again', async () => {
    await bed.kube.delete(pods, { namespace, name: 'a' }, { gracePeriodSeconds: 0 });
    for (let time = 0; time < 2; time++) {
      const { status, stdout, stderr } = await chain('DEL', 'a');
      assert.equal(status, 0, stdout + stderr);
    }
    assert.deepEqual(await recorded(), [`${namespace}/b 172.51.0.101`, `${namespace}/b fd00:51::101`]);
    assert.equal(await bed.kube.find(spiderEndpoints, { namespace, name: 'a' }), undefined);
    const left = await must('node', 'ip', '-o', 'link', 'show', 'type', 'veth');
    assert.equal(left.split('\n').filter((line) => line.includes('veth')).length, 1, `only b’s is left: ${left}`);
  });
});
