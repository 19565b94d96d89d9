/** Subnets, reserved addresses, coordinators: real admission and reconcilers against the lab's API. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeObject } from '../src/api/kubernetes.ts';
import {
  configMaps,
  cronJobs,
  customResourceDefinitions,
  deployments,
  jobs,
  namespaces,
  pods,
  spiderCoordinators,
  spiderIPPools,
  spiderReservedIPs,
  spiderSubnets,
  type GroupVersionResource,
} from '../src/api/resources.ts';
import type { SpiderCoordinator } from '../src/api/spidercoordinator.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import type { SpiderSubnet } from '../src/api/spidersubnet.ts';
import { silentLogger } from '../src/core/log.ts';
import { startController, type RunningController } from '../src/controller/start.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { isNotFound } from '../src/kube/error.ts';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';
import { cloneSets, controlledBy, definitionOf } from './stand-in-kinds.ts';

const stop = new AbortController();
let server: TestApiServer;
let client: KubeClient;
let controller: RunningController;

before(async () => {
  server = await startTestApiServer();
  const kubeConfig = loadKubeConfig({ path: server.kubeConfigPath });
  client = createKubeClient(kubeConfig);
  await applyDefinitions(client);
  await client.create(customResourceDefinitions, definitionOf(cloneSets));
  await eventually(async () => (await client.list(spiderCoordinators)).items.length === 0, 'definitions served');
  await client.create(namespaces, { metadata: { name: 'demo' } });
  const webhook = { host: '127.0.0.1', port: 0 };
  controller = await startController({ kubeConfig, webhook, healthPort: 0, log: silentLogger, signal: stop.signal });
  await controller.ready;
});

after(async () => {
  stop.abort();
  await controller.stopped;
  client.close();
  await server.close();
});

async function eventually(check: () => Promise<boolean>, what: string): Promise<void> {
  const endMs = Date.now() + 60_000;
  while (!(await check().catch(() => false))) {
    assert.ok(Date.now() < endMs, `not within 60 s: ${what}`);
    await sleep(20);
  }
}

function create(gvr: GroupVersionResource, name: string, spec: object): Promise<KubeObject> {
  return client.create(gvr, { metadata: { name }, spec } as KubeObject);
}

async function read<T>(gvr: GroupVersionResource, name: string): Promise<T> {
  return (await client.get(gvr, { name })) as unknown as T;
}

async function isGone(gvr: GroupVersionResource, name: string): Promise<boolean> {
  return client.get(gvr, { name }).then(
    () => false,
    (error: unknown) => isNotFound(error),
  );
}

describe('subnets', () => {
  const spec = { subnet: '10.60.0.0/16', ips: ['10.60.0.10-10.60.0.30'], gateway: '10.60.0.1' };

  it('admits one of 100 identical pools and one of 100 identical subnets created at once', async () => {
    for (const [gvr, own] of [
      [spiderIPPools, { subnet: '10.61.0.0/16', ips: ['10.61.0.1-10.61.0.9'] }],
      [spiderSubnets, { subnet: '10.62.0.0/16', ips: ['10.62.0.1-10.62.0.9'] }],
    ] as const) {
      const outcomes = await Promise.allSettled(Array.from({ length: 100 }, (_, n) => create(gvr, `race-${n}`, own)));
      const made = outcomes.filter((outcome) => outcome.status === 'fulfilled');
      assert.equal(made.length, 1, gvr.kind);
      const name = made[0]?.value.metadata?.name ?? '';
      await client.delete(gvr, { name });
      await eventually(() => isGone(gvr, name), `${gvr.kind} deleted`);
    }
  });

  it('gives a pool its gateway (D00008), refuses one outside, counts it, and waits for it when deleted', async () => {
    await create(spiderSubnets, 's4', spec);
    await create(spiderIPPools, 'inside', { subnet: spec.subnet, ips: ['10.60.0.10-10.60.0.12'] });
    const pool = await read<SpiderIPPool>(spiderIPPools, 'inside');
    assert.equal(pool.spec.gateway, spec.gateway);
    assert.equal(pool.metadata.ownerReferences?.[0]?.name, 's4');
    const outside = create(spiderIPPools, 'outside', { subnet: spec.subnet, ips: ['10.60.0.31'] });
    await assert.rejects(outside, /\[10\.60\.0\.31\] that are not contained in controller Subnet s4/);
    await assert.rejects(create(spiderSubnets, 'part', { subnet: '10.60.1.0/24' }), /overlap with Subnet s4/);
    const read4 = (): Promise<SpiderSubnet> => read<SpiderSubnet>(spiderSubnets, 's4');
    await eventually(async () => (await read4()).status?.allocatedIPCount === 3, 'addresses counted');
    assert.equal((await read4()).status?.controlledIPPools, '{"inside":{"ips":["10.60.0.10-10.60.0.12"]}}');
    const body = { spec: { ips: ['10.60.0.11-10.60.0.30'] } };
    const shrunk = client.patch(spiderSubnets, { name: 's4' }, { type: 'merge', body });
    await assert.rejects(shrunk, /remove some IP ranges \[10\.60\.0\.10\] that is being used by IPPool inside/);
    await client.delete(spiderSubnets, { name: 's4' });
    await sleep(200);
    assert.equal(await isGone(spiderSubnets, 's4'), false);
    await client.delete(spiderIPPools, { name: 'inside' });
    await eventually(() => isGone(spiderSubnets, 's4'), 'subnet deleted after its last pool');
  });

  it('gives a deployment a pool that follows its replicas and goes with it', async () => {
    await create(spiderSubnets, 's4', spec);
    const labels = { app: 'web' };
    const annotations = { 'ipam.spidernet.io/subnet': '{"ipv4":["s4"]}' };
    const container = { name: 'c', image: 'none' };
    const template = { metadata: { labels, annotations }, spec: { containers: [container] } };
    await client.create(deployments, {
      metadata: { name: 'web', namespace: 'demo' },
      spec: { replicas: 2, selector: { matchLabels: labels }, template },
    } as KubeObject);
    const own = async (): Promise<SpiderIPPool | undefined> =>
      ((await client.list(spiderIPPools)).items as unknown as SpiderIPPool[]).find(({ metadata }) =>
        metadata.name?.startsWith('auto4-web-eth0-'),
      );
    await eventually(async () => (await own())?.spec.ips?.join() === '10.60.0.10-10.60.0.12', 'pool made');
    assert.equal((await own())?.spec.gateway, spec.gateway);
    const at = { namespace: 'demo', name: 'web' };
    await client.patch(deployments, at, { type: 'merge', body: { spec: { replicas: 4 } } });
    await eventually(async () => (await own())?.spec.ips?.join() === '10.60.0.10-10.60.0.14', 'pool grown');
    const application = async (): Promise<string> =>
      (await read<SpiderSubnet>(spiderSubnets, 's4')).status?.controlledIPPools ?? '';
    await eventually(async () => (await application()).includes('apps_v1_Deployment_demo_web'), 'status says whose');
    await client.delete(deployments, at);
    await eventually(async () => (await own()) === undefined, 'pool removed');
  });
});

describe('pools of Jobs, of owners that are not watched, and of lone pods', () => {
  const namespace = 'demo';
  const container = { name: 'c', image: 'none' };
  const annotated = (more: Record<string, string> = {}): object => ({
    annotations: { 'ipam.spidernet.io/subnet': '{"ipv4":["s5"]}', ...more },
  });
  const jobSpec = (parallelism: number, more: Record<string, string> = {}): object => ({
    parallelism,
    template: { metadata: annotated(more), spec: { restartPolicy: 'Never', containers: [container] } },
  });
  const at = (name: string) => ({ namespace, name });
  const make = (gvr: GroupVersionResource, name: string, spec: object): Promise<KubeObject> =>
    client.create(gvr, { metadata: at(name), spec } as KubeObject);
  const makePod = (name: string, owner?: KubeObject, more: Record<string, string> = {}): Promise<KubeObject> => {
    const spec = { containers: [container], nodeName: 'nowhere' };
    return client.create(pods, {
      metadata: { ...at(name), ...annotated(more), ...(owner && controlledBy(owner)) },
      spec,
    } as KubeObject);
  };
  const ended = (name: string): Promise<KubeObject> =>
    client.patch(
      pods,
      at(name),
      { type: 'merge', body: { status: { phase: 'Succeeded' } } },
      { subresource: 'status' },
    );
  const removePod = (name: string): Promise<unknown> => client.delete(pods, at(name), { gracePeriodSeconds: 0 });
  const sizes = async (): Promise<Record<string, number>> => {
    const { items } = await client.list(spiderIPPools);
    const own = (items as unknown as SpiderIPPool[]).filter(({ metadata }) => metadata.name?.startsWith('auto4-'));
    const last = (text = ''): number => Number(text.split('.').at(-1));
    const count = (range: string): number => last(range.split('-').at(-1)) - last(range.split('-')[0]) + 1;
    const total = ({ spec }: SpiderIPPool): number => (spec.ips ?? []).reduce((sum, range) => sum + count(range), 0);
    return Object.fromEntries(own.map((pool) => [pool.metadata.name?.split('-')[1] ?? '', total(pool)]));
  };
  const become = async (wanted: Record<string, number>, what: string): Promise<void> => {
    let seen: Record<string, number> = {};
    const text = (map: Record<string, number>): string => JSON.stringify(Object.entries(map).sort());
    await eventually(async () => text((seen = await sizes())) === text(wanted), what).catch((error: unknown) => {
      assert.fail(`${String(error)}: ${JSON.stringify(seen)}`);
    });
  };

  before(() => create(spiderSubnets, 's5', { subnet: '10.65.0.0/24', ips: ['10.65.0.10-10.65.0.99'] }));

  it('a Job’s goes when it has finished, or is deleted; a CronJob’s grows with its Jobs and outlives them', async () => {
    await make(jobs, 'once', jobSpec(3));
    await make(jobs, 'fixed', jobSpec(3, { 'ipam.spidernet.io/ippool-ip-number': '7' }));
    await make(jobs, 'kept', jobSpec(1, { 'ipam.spidernet.io/ippool-reclaim': 'false' }));
    const cron = await make(cronJobs, 'nightly', { schedule: '@daily', jobTemplate: { spec: jobSpec(2) } });
    await become({ once: 4, fixed: 7, kept: 2, nightly: 3 }, 'pools made');
    const metadata = { ...at('nightly1'), ...controlledBy(cron) };
    await client.create(jobs, { metadata, spec: jobSpec(2) } as KubeObject);
    const active = [{ name: 'nightly1' }, { name: 'nightly2' }];
    const asStatus = { subresource: 'status' };
    await client.patch(cronJobs, at('nightly'), { type: 'merge', body: { status: { active } } }, asStatus);
    const finished = { status: { conditions: [{ type: 'Complete', status: 'True' }] } };
    await client.patch(jobs, at('once'), { type: 'merge', body: finished }, asStatus);
    await client.delete(jobs, at('fixed'));
    await client.delete(jobs, at('kept'));
    await become({ kept: 2, nightly: 5 }, 'pools of what is over gone, and the other grown');
    await client.delete(cronJobs, at('nightly'));
    await become({ kept: 2 }, 'the CronJob’s gone');
    await client.delete(spiderIPPools, { name: await nameOf('kept') });
  });

  it('one of another kind follows its pods, stays while it is there, and goes when it is gone', async () => {
    const owner = await make(cloneSets, 'web', {});
    for (const name of ['web-1', 'web-2']) await makePod(name, owner);
    await make(cloneSets, 'db', {});
    await makePod('db-1', await client.get(cloneSets, at('db')), { 'ipam.spidernet.io/ippool-ip-number': '5' });
    await become({ web: 3, db: 5 }, 'pools made');
    await ended('web-1');
    await become({ web: 2, db: 5 }, 'an ended pod counts no more');
    await client.delete(cloneSets, at('db'));
    for (const name of ['web-1', 'web-2', 'db-1']) await removePod(name);
    await become({ web: 2 }, 'the one without owner gone, the other stays without pods');
    const before = await nameOf('web');
    await makePod('web-3', owner, { 'ipam.spidernet.io/ippool-ip-number': '4' });
    await become({ web: 4 }, 'the next pod asks for more');
    assert.equal(await nameOf('web'), before);
    await client.delete(cloneSets, at('web'));
    await removePod('web-3');
    await become({}, 'the other gone with its owner');
  });

  it('a lone pod’s goes with it, or when it has ended', async () => {
    for (const name of ['alone', 'brief']) await makePod(name);
    await become({ alone: 1, brief: 1 }, 'pools made');
    await ended('brief');
    await become({ alone: 1 }, 'the ended pod’s gone');
    await removePod('alone');
    await become({}, 'the deleted pod’s gone');
    await removePod('brief');
  });

  async function nameOf(application: string): Promise<string> {
    const { items } = await client.list(spiderIPPools);
    const found = items.find(({ metadata }) => metadata?.name?.startsWith(`auto4-${application}-`));
    return found?.metadata?.name ?? assert.fail();
  }
});

describe('reserved addresses and coordinators', () => {
  it('derives the version and refuses a mixture and a change', async () => {
    await create(spiderReservedIPs, 'r', { ips: ['10.60.0.5', '10.60.0.3-10.60.0.4'] });
    const made = await read<{ spec: object }>(spiderReservedIPs, 'r');
    assert.deepEqual(made.spec, { ipVersion: 4, ips: ['10.60.0.3-10.60.0.5'] });
    await assert.rejects(create(spiderReservedIPs, 'mixed', { ips: ['10.60.0.5', 'fd00::1'] }), /it is not IPv4/);
    const body = { spec: { ipVersion: 6 } };
    await assert.rejects(client.patch(spiderReservedIPs, { name: 'r' }, { type: 'merge', body }), /is not changeable/);
  });

  it('fills in a coordinator, follows its source within seconds, and lets it go', async () => {
    await assert.rejects(create(spiderCoordinators, 'default', {}), /PodCIDRType is not allowed to be empty/);
    await create(spiderCoordinators, 'default', { podCIDRType: 'cluster', hijackCIDR: ['10.0.0.1'] });
    const read1 = (): Promise<SpiderCoordinator> => read<SpiderCoordinator>(spiderCoordinators, 'default');
    const { spec } = await read1();
    assert.deepEqual([spec?.vethMTU, spec?.mode, spec?.hijackCIDR], [1500, 'auto', ['10.0.0.1/32']]);
    await eventually(async () => (await read1()).status?.phase === 'NotReady', 'NotReady without a source');
    const ClusterConfiguration = 'networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}';
    const metadata = { namespace: 'kube-system', name: 'kubeadm-config' };
    await client.create(configMaps, { metadata, data: { ClusterConfiguration } } as KubeObject);
    await eventually(async () => (await read1()).status?.phase === 'Synced', 'Synced');
    const { status } = await read1();
    assert.deepEqual([status?.overlayPodCIDR, status?.serviceCIDR], [['10.244.0.0/16'], ['10.96.0.0/12']]);
    assert.equal(status?.reason, undefined);
    await client.delete(spiderCoordinators, { name: 'default' });
    await eventually(() => isGone(spiderCoordinators, 'default'), 'deleted in spite of its finalizer');
  });
});
