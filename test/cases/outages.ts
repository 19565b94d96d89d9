/** Groups R and G where processes are killed or stand still: one after another, after the cases that run side by side. */
import assert from 'node:assert/strict';
import { deployments, nodes, pods, spiderIPPools } from '../../src/api/resources.ts';
import type { KubeObject, Node, Pod } from '../../src/api/kubernetes.ts';
import { decodeAllocatedIps, encodeAllocatedIps, type AllocationRecord } from '../../src/ipam/allocated-ips.ts';
import { startController } from '../../src/controller/start.ts';
import { silentLogger } from '../../src/core/log.ts';
import { loadKubeConfig } from '../../src/kube/config.ts';
import { labLayout } from '../../src/lab/layout.ts';
import { mustLabState } from '../../src/lab/lifecycle/state.ts';
import { labStatus } from '../../src/lab/lifecycle/status.ts';
import { readReport } from '../../src/lab/lifecycle/supervise.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, fromPools, ipsOf, type Bed, type CaseSpace } from './bed.ts';
import { killAll, processes } from './processes.ts';
import { workload } from './workloads.ts';

const patience = { timeoutMs: 180_000 };

/** Until the API server and the webhooks behind it answer again. */
async function admitted(c: CaseSpace, name: string): Promise<string> {
  let pool = '';
  const create = async (): Promise<boolean> =>
    c.pool(name).then(
      (made) => ((pool = made), true),
      () => false,
    );
  await waitFor(`pool ${name} to be admitted`, create, patience);
  return pool;
}

/** What an agent or an operator of another time may have left behind. */
async function addRecords(
  c: CaseSpace,
  pool: string,
  records: Readonly<Record<string, AllocationRecord>>,
): Promise<void> {
  const found = await c.readPool(pool);
  const all = new Map([...decodeAllocatedIps(found.status?.allocatedIPs, pool), ...Object.entries(records)]);
  const status = { ...found.status, allocatedIPs: encodeAllocatedIps(all), allocatedIPCount: all.size };
  await c.kube.replaceStatus(spiderIPPools, { ...found, status } as KubeObject);
}

export function outageCases(bed: () => Bed): void {
  controllerCases(bed);
  serverCases(bed);
  nodeCases(bed);
}

function controllerCases(bed: () => Bed): void {
  caseOf(
    'R00001',
    'the controller is killed: pods start meanwhile, and its successor removes dirty records (with G00005, G00007)',
    bed,
    async (c) => {
      const net = c.subnet();
      const pool = await c.poolOf('p', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.19`] });
      const annotations = fromPools([pool]);
      const pod = await c.pod('web', { annotations });
      await addRecords(c, pool, {
        [`${net}.15`]: { pod: `${c.namespace}/nobody`, podUid: 'no-such-uid', interface: 'eth0' },
        [`${net}.16`]: { pod: `${c.namespace}/web`, podUid: 'an-earlier-uid', interface: 'eth0' },
      });
      const [killed] = await Promise.all([killAll(c.bed, /^controller$/), c.pod('meanwhile', { annotations })]);
      assert.equal(killed, undefined);
      await c.recordsBecome(pool, 2);
      const held = await c.records(pool);
      assert.equal(held.get(ipsOf(pod)[0] ?? ''), `${c.namespace}/web`);
      assert.ok([...held.values()].includes(`${c.namespace}/meanwhile`));
      await c.attachment('net');
    },
  );

  caseOf(
    'R00007',
    'the controller stands still: another one takes over, and it ends when it wakes up',
    bed,
    async (c) => {
      const [frozen] = await processes(c.bed, /^controller$/);
      assert.ok(frozen);
      const stop = new AbortController();
      process.kill(frozen.pid, 'SIGSTOP');
      try {
        const standby = await startController({
          kubeConfig: loadKubeConfig({ path: c.bed.kubeconfig }),
          webhook: { host: '127.0.0.1', port: 0 },
          healthPort: 0,
          log: silentLogger,
          signal: stop.signal,
        });
        // The lease runs out, and not before: 15 s after its last renewal.
        await standby.ready;
        await c.attachment('by-standby');
        process.kill(frozen.pid, 'SIGCONT');
        const hasEnded = async (): Promise<boolean> => {
          const [now] = await processes(c.bed, /^controller$/);
          return now !== undefined && now.pid !== frozen.pid;
        };
        await waitFor('the one that woke up to end', hasEnded, patience);
        stop.abort();
        await standby.stopped;
      } finally {
        stop.abort();
        // Again: for the case that something failed before.
        if ((await processes(c.bed, /^controller$/)).some(({ pid }) => pid === frozen.pid))
          process.kill(frozen.pid, 'SIGCONT');
      }
      await admitted(c, 'after');
      await c.attachment('after');
    },
  );
}

function serverCases(bed: () => Bed): void {
  caseOf(
    'R00003',
    'the API server and its store are killed: pods keep what they have, new ones start (with R00002)',
    bed,
    async (c) => {
      const pool = await c.pool('p');
      const annotations = fromPools([pool]);
      const [ip = ''] = ipsOf(await c.pod('web', { annotations, node: 'node1' }));
      const ping = { name: 'c', image: 'none', command: ['sh', '-c', `exec ping -i 0.2 ${ip} > /mnt/seen`] };
      const spec = {
        terminationGracePeriodSeconds: 0,
        volumes: [{ name: 'v', emptyDir: {} }],
        containers: [{ ...ping, volumeMounts: [{ name: 'v', mountPath: '/mnt' }] }],
      };
      await c.pod('pinger', { annotations, node: 'node2', spec });
      const before = [...(await c.records(pool))];
      await killAll(c.bed, /^control-plane$/);
      await waitFor(
        'the API',
        () =>
          c.records(pool).then(
            () => true,
            () => false,
          ),
        patience,
      );
      assert.deepEqual([...(await c.records(pool))], before);
      await c.pod('after', { annotations });
      const numbers = async (): Promise<number[]> =>
        [...(await c.output('pinger', 'cat', '/mnt/seen')).matchAll(/icmp_seq=(\d+)/g)].map(([, n]) => Number(n));
      await waitFor('answers', async () => (await numbers()).length > 10, patience);
      const seen = await numbers();
      const sent = (seen.at(-1) ?? 0) - (seen[0] ?? 0) + 1;
      assert.ok(seen.length >= sent * 0.9, `${seen.length} of ${sent} answers arrived`);
    },
  );

  caseOf(
    'R00004',
    'the agents are killed: what comes and goes meanwhile has its address in the end (with G00008)',
    bed,
    async (c) => {
      const pool = await c.pool('p', 8);
      const annotations = fromPools([pool]);
      await workload(c, deployments, 'web', { annotations, replicas: 3 });
      await c.readyPods('web', 3);
      const at = { namespace: c.namespace, name: 'web' };
      for (const [round, replicas] of [1, 4].entries()) {
        const killed = killAll(c.bed, round === 0 ? /^agent-/ : /^(agent-|controller$)/);
        await c.kube.patch(deployments, at, { type: 'merge', body: { spec: { replicas } } });
        await c.createPod(`meanwhile${round}`, { annotations });
        await killed;
        await c.ready(`meanwhile${round}`);
      }
      const found = [...(await c.readyPods('web', 4)), await c.ready('meanwhile0'), await c.ready('meanwhile1')];
      await c.recordsBecome(pool, 6);
      assert.deepEqual(found.flatMap(ipsOf).sort(), [...(await c.records(pool)).keys()].sort());
      for (const pod of found) assert.deepEqual(await c.addressesOn(pod.metadata?.name ?? ''), ipsOf(pod));
    },
  );
}

function nodeCases(bed: () => Bed): void {
  caseOf(
    'R00006',
    'a node stands still: its pod’s address goes to another pod, which keeps it when the node is back (with G00009)',
    bed,
    async (c) => {
      const pool = await c.pool('p', 1);
      const annotations = fromPools([pool]);
      const [address] = ipsOf(await c.pod('old', { annotations, node: 'node2' }));
      const still = await processes(c.bed, /-node2$/);
      assert.equal(still.length, 2);
      try {
        for (const { pid } of still) process.kill(pid, 'SIGSTOP');
        await nodeIsLost(c, 'node2');
        await c.kube.delete(pods, { namespace: c.namespace, name: 'old' }, { gracePeriodSeconds: 1 });
        await c.recordsBecome(pool, 0);
        const next = await c.pod('new', { annotations, node: 'node1' });
        assert.deepEqual(ipsOf(next), [address]);
      } finally {
        for (const { pid } of still) process.kill(pid, 'SIGCONT');
      }
      await c.gone(pods, 'old', c.namespace);
      assert.deepEqual([...(await c.records(pool))], [[address, `${c.namespace}/new`]]);
      assert.deepEqual(await c.addressesOn('new'), [address]);
      await nodeIsBack(c, 'node2');
    },
  );

  caseOf(
    'G00008',
    'the agent is dead, then its node too: pods end without it, their addresses go to others, who keep them (with R00004, R00006)',
    bed,
    async (c) => {
      const pool = await c.pool('p', 3);
      const annotations = fromPools([pool]);
      const here = { annotations, node: 'node2' };
      const [stays, ...ending] = await Promise.all(['stays', 'alone', 'dead'].map((name) => c.pod(name, here)));
      const goes = (name: string): Promise<void> =>
        c.kube.delete(pods, { namespace: c.namespace, name }, { gracePeriodSeconds: 1 });
      const restart = holdRestarts(c.bed);
      const others: Pod[] = [];
      try {
        await kill(c.bed, /^agent-node2$/);
        await goes('alone');
        await c.gone(pods, 'alone', c.namespace);
        await kill(c.bed, /^kubelet-node2$/);
        await nodeIsLost(c, 'node2');
        await goes('dead');
        await c.recordsBecome(pool, 1);
        for (const name of ['one', 'two']) others.push(await c.pod(name, { annotations, node: 'node1' }));
        assert.deepEqual(others.flatMap(ipsOf).sort(), ending.flatMap(ipsOf).sort());
        assert.equal(await alive(c.bed, /-node2$/), 0);
      } finally {
        restart();
      }
      await c.gone(pods, 'dead', c.namespace);
      await nodeIsBack(c, 'node2');
      const expected = [stays ?? assert.fail(), ...others].map((pod) => [
        ipsOf(pod)[0] ?? '',
        `${c.namespace}/${pod.metadata?.name ?? ''}`,
      ]);
      assert.deepEqual([...(await c.records(pool))].sort(), expected.sort());
      for (const pod of others) {
        assert.deepEqual(await c.addressesOn(pod.metadata?.name ?? ''), ipsOf(pod));
        await c.output('stays', 'ping', '-c', '1', '-W', '10', ipsOf(pod)[0] ?? '');
      }
    },
  );
}

async function nodeIsBack(c: CaseSpace, name: string): Promise<void> {
  const isReady = async (): Promise<boolean> => readiness(await c.kube.get<Node>(nodes, { name })) === 'True';
  await waitFor('the node to be back', isReady, patience);
}

/** Nothing that ends in the lab starts again until what is answered is called. */
function holdRestarts({ dir }: Bed): () => void {
  const { pid } = readReport(labLayout(mustLabState(dir)))?.supervisor ?? assert.fail('no supervisor');
  process.kill(pid, 'SIGSTOP');
  return () => process.kill(pid, 'SIGCONT');
}

async function kill(bed: Bed, name: RegExp): Promise<void> {
  for (const { pid } of await processes(bed, name)) process.kill(pid, 'SIGKILL');
  await waitFor(`${String(name)} to be dead`, async () => (await alive(bed, name)) === 0, patience);
}

async function alive(bed: Bed, name: RegExp): Promise<number> {
  const { processes: all } = await labStatus({ dir: bed.dir });
  return all.filter((each) => name.test(each.name) && each.alive).length;
}

function readiness(node: Node): string | undefined {
  return node.status?.conditions?.find(({ type }) => type === 'Ready')?.status;
}

/** As Kubernetes' node lifecycle controller says it; the lab has none. */
async function nodeIsLost(c: CaseSpace, name: string): Promise<void> {
  const node = await c.kube.get<Node>(nodes, { name });
  const conditions = node.status?.conditions?.map((each) =>
    each.type === 'Ready' ? { ...each, status: 'Unknown' as const } : each,
  );
  await c.kube.replaceStatus(nodes, { ...node, status: { ...node.status, conditions } });
}
