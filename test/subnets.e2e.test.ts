/** Subnets, reserved addresses, coordinators: real admission and reconcilers against the lab's API. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import type { KubeObject } from '../src/api/kubernetes.ts';
import {
  configMaps,
  customResourceDefinitions,
  deployments,
  namespaces,
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

const stop = new AbortController();
let server: TestApiServer;
let client: KubeClient;
let controller: RunningController;

before(async () => {
  server = await startTestApiServer();
  const kubeConfig = loadKubeConfig({ path: server.kubeConfigPath });
  client = createKubeClient(kubeConfig);
  const dir = new URL('../deploy/crds/', import.meta.url);
  for (const file of readdirSync(dir)) {
    await client.create(customResourceDefinitions, parse(readFileSync(new URL(file, dir), 'utf8')) as KubeObject);
  }
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
  const endMs = Date.now() + 10_000;
  while (!(await check().catch(() => false))) {
    assert.ok(Date.now() < endMs, `not within 10 s: ${what}`);
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
