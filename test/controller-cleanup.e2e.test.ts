/** `sluice controller cleanup`: with no controller left, nothing in the API may wait for one. Against the lab’s API. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { KubeObject } from '../src/api/kubernetes.ts';
import {
  configMaps,
  leases,
  namespaces,
  secrets,
  spiderCoordinators,
  spiderEndpoints,
  spiderIPPools,
  spiderSubnets,
  validatingWebhookConfigurations,
  type GroupVersionResource,
} from '../src/api/resources.ts';
import { spiderFinalizer } from '../src/api/spider.ts';
import { cleanUpCluster, type ClusterCleanupStep } from '../src/controller/cleanup.ts';
import { startController, type RunningController } from '../src/controller/start.ts';
import { systemClock } from '../src/core/clock.ts';
import { silentLogger } from '../src/core/log.ts';
import { createKubeClient, type KubeClient, type ObjectRef } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { unlessNotFound } from '../src/kube/error.ts';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';

const stop = new AbortController();
let server: TestApiServer;
let client: KubeClient;
let controller: RunningController;

before(async () => {
  server = await startTestApiServer();
  const kubeConfig = loadKubeConfig({ path: server.kubeConfigPath });
  client = createKubeClient(kubeConfig);
  await applyDefinitions(client);
  for (const name of ['demo', 'sluice']) await client.create(namespaces, { metadata: { name } });
  controller = await startController({
    ...{ kubeConfig, webhook: { host: '127.0.0.1', port: 0 }, healthPort: 0, namespace: 'sluice' },
    ...{ log: silentLogger, signal: stop.signal },
  });
  await controller.ready;
  await create(spiderSubnets, { name: 's' }, { spec: { subnet: '10.60.0.0/16', ips: ['10.60.0.10-10.60.0.30'] } });
  await create(spiderIPPools, { name: 'p' }, { spec: { subnet: '10.61.0.0/16', ips: ['10.61.0.10'] } });
  await create(spiderIPPools, { name: 'shared', finalizers: ['example.com/audit'] }, pool('10.62.0.0/16'));
  await create(spiderCoordinators, { name: 'default' }, { spec: { podCIDRType: 'none' } });
  // An agent’s, whose DEL never came.
  await create(spiderEndpoints, { namespace: 'demo', name: 'web', finalizers: [spiderFinalizer] }, endpoint);
});
after(async () => {
  stop.abort();
  await controller.stopped;
  client.close();
  await server.close();
});

const endpoint = {
  status: { ownerControllerType: 'Pod', ownerControllerName: 'web', current: { uid: 'u', node: 'n', ips: [] } },
};
const pool = (subnet: string) => ({ spec: { subnet, ips: [] } });

function create(gvr: GroupVersionResource, metadata: object, rest: object): Promise<KubeObject> {
  return client.create(gvr, { metadata, ...rest });
}

const find = (gvr: GroupVersionResource, ref: ObjectRef): Promise<KubeObject | undefined> =>
  unlessNotFound(client.get(gvr, ref));

function clean(flags: { resources?: boolean; force?: boolean; dryRun?: boolean } = {}): Promise<ClusterCleanupStep[]> {
  const chosen = { resources: false, force: false, dryRun: false, ...flags };
  return cleanUpCluster({ ...chosen, client, namespace: 'kube-system', clock: systemClock });
}

const lines = (steps: readonly ClusterCleanupStep[]): string[] => steps.map(({ what, object }) => `${what} ${object}`);

/** Everything that a controller must be there for. */
const expected = [
  'webhooks ValidatingWebhookConfiguration sluice-controller',
  'webhooks MutatingWebhookConfiguration sluice-controller',
  'finalizer SpiderEndpoint demo/web',
  'finalizer SpiderIPPool p',
  'finalizer SpiderIPPool shared',
  'finalizer SpiderSubnet s',
  'finalizer SpiderCoordinator default',
  'state Secret sluice/sluice-controller-webhook',
  'state ConfigMap sluice/sluice-admission-claims',
  'state Lease sluice/sluice-controller',
];

describe('controller cleanup', () => {
  it('refuses while a controller runs, in whatever namespace', async () => {
    await assert.rejects(clean(), /clean up the API: the controller .+ runs, and would put back/);
    assert.ok(await find(validatingWebhookConfigurations, { name: 'sluice-controller' }));
  });

  it('is needed: without a controller users can neither write nor delete', async () => {
    stop.abort();
    await controller.stopped;
    await assert.rejects(create(spiderIPPools, { name: 'new' }, pool('10.63.0.0/16')), /webhook/);
    await client.delete(spiderCoordinators, { name: 'default' });
    await sleep(300);
    assert.ok(await find(spiderCoordinators, { name: 'default' }), 'its finalizer keeps it');
  });

  it('tells with --dry-run what it would remove, for programs too, and changes nothing', async () => {
    const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
    const args = ['--import', 'tsx', main, 'controller', 'cleanup', '--kubeconfig', server.kubeConfigPath];
    const { stdout } = await promisify(execFile)(process.execPath, [...args, '--dry-run', '--json']);
    assert.deepEqual(lines(JSON.parse(stdout) as ClusterCleanupStep[]), expected);
    assert.deepEqual(lines(await clean({ dryRun: true })), expected);
  });

  it('leaves alone what another controller keeps', async () => {
    const rule = { apiGroups: ['spiderpool.spidernet.io'], apiVersions: ['v2beta1'], resources: ['spiderippools'] };
    const webhook = {
      ...{ name: 'pool.example.com', admissionReviewVersions: ['v1'], sideEffects: 'None', failurePolicy: 'Ignore' },
      ...{ clientConfig: { url: 'https://127.0.0.1:9/' }, rules: [{ ...rule, operations: ['UPDATE'] }] },
    };
    const name = 'spiderpool-controller';
    await create(validatingWebhookConfigurations, { name }, { webhooks: [webhook] });
    const steps = await clean({ dryRun: true });
    const kept = steps.filter((step) => step.kept !== undefined);
    assert.deepEqual(lines(kept), expected.slice(2, 7));
    assert.match(kept[0]?.kept ?? '', /ValidatingWebhookConfiguration spiderpool-controller/);
    assert.deepEqual(
      (await clean({ dryRun: true, force: true })).filter((step) => step.kept !== undefined),
      [],
    );
    await client.delete(validatingWebhookConfigurations, { name });
  });

  it('removes them, and users can write and delete', async () => {
    assert.deepEqual(lines(await clean()), expected);
    assert.equal(await find(spiderCoordinators, { name: 'default' }), undefined, 'what was deleted before is gone');
    await create(spiderIPPools, { name: 'new' }, pool('10.63.0.0/16'));
    for (const name of ['new', 'p']) await client.delete(spiderIPPools, { name });
    assert.equal(await find(spiderIPPools, { name: 'p' }), undefined);
    assert.deepEqual((await find(spiderIPPools, { name: 'shared' }))?.metadata?.finalizers, ['example.com/audit']);
    for (const gvr of [secrets, configMaps, leases])
      assert.deepEqual((await client.listAll(gvr, { namespace: 'sluice' })).items, [], gvr.kind);
    assert.deepEqual(await clean(), [], 'a second time there is nothing');
  });

  it('deletes the resources too when it is asked to, and names who still holds one', async () => {
    const steps = await clean({ resources: true });
    const what = ['resource SpiderEndpoint demo/web', 'resource SpiderIPPool shared', 'resource SpiderSubnet s'];
    assert.deepEqual(lines(steps), what);
    assert.match(steps[1]?.kept ?? '', /others remove example\.com\/audit/);
    assert.equal(await find(spiderEndpoints, { namespace: 'demo', name: 'web' }), undefined);
    await client.patch(spiderIPPools, { name: 'shared' }, { type: 'merge', body: { metadata: { finalizers: null } } });
    assert.deepEqual(await clean({ resources: true }), []);
  });
});
