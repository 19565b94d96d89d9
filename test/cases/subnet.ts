/** Group I, D00008, E00010: addresses out of SpiderSubnets, for applications. The rest is in ../subnets.e2e.test.ts. */
import assert from 'node:assert/strict';
import type { Job, KubeObject, Pod } from '../../src/api/kubernetes.ts';
import {
  cronJobs,
  customResourceDefinitions,
  deployments,
  jobs,
  pods,
  roleBindings,
  roles,
  serviceAccounts,
  spiderIPPools,
  spiderSubnets,
  statefulSets,
  type GroupVersionResource,
} from '../../src/api/resources.ts';
import type { SpiderIPPool } from '../../src/api/spiderippool.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { cloneSets, controlledBy, definitionName, definitionOf } from '../stand-in-kinds.ts';
import { caseOf, fromPools, ipsOf, type Bed, type CaseSpace } from './bed.ts';
import { podTemplate, workload } from './workloads.ts';

const subnetAnnotation = 'ipam.spidernet.io/subnet';

async function subnetOf(c: CaseSpace, net: string, count: number): Promise<string> {
  const name = c.namespace;
  const spec = {
    subnet: `${net}.0/24`,
    ips: [`${net}.10-${net}.${9 + count}`],
    gateway: `${net}.1`,
    routes: [{ dst: '198.18.0.0/16', gw: `${net}.2` }],
  };
  await c.kube.create(spiderSubnets, { metadata: { name }, spec } as KubeObject);
  c.willRemove(spiderSubnets, name);
  return name;
}

async function poolsOf(c: CaseSpace, subnet: string): Promise<SpiderIPPool[]> {
  const { items } = await c.kube.list(spiderIPPools);
  return items.filter(({ metadata }) => metadata?.ownerReferences?.[0]?.name === subnet) as SpiderIPPool[];
}

async function poolsBecome(c: CaseSpace, subnet: string, sizes: readonly number[]): Promise<void> {
  const seen = async (): Promise<boolean> => {
    const found = (await poolsOf(c, subnet)).map(({ status }) => status?.totalIPCount ?? 0);
    return found.sort((a, b) => a - b).join() === [...sizes].sort((a, b) => a - b).join();
  };
  await waitFor(`pools of ${subnet} with ${sizes.join(', ') || 'nothing'}`, seen, { timeoutMs: 120_000 });
}

async function allReturned(c: CaseSpace, subnet: string): Promise<void> {
  const count = async (): Promise<unknown> =>
    ((await c.kube.get(spiderSubnets, { name: subnet })) as { status?: { allocatedIPCount?: number } }).status
      ?.allocatedIPCount;
  await waitFor('all addresses to be back in the subnet', async () => (await count()) === 0, { timeoutMs: 120_000 });
}

export function subnetCases(bed: () => Bed): void {
  caseOf('D00008', 'a pool has gateway and routes of its subnet, and so has the pod', bed, async (c) => {
    const net = c.subnet();
    await subnetOf(c, net, 9);
    const pool = await c.poolOf('p', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.12`] });
    assert.equal((await c.readPool(pool)).spec.gateway, `${net}.1`);
    await c.pod('web', { annotations: fromPools([pool]) });
    const routes = await c.output('web', 'ip', 'route');
    assert.match(routes, new RegExp(`^default via ${net}\\.1 dev eth0`, 'm'));
    assert.match(routes, new RegExp(`^198\\.18\\.0\\.0/16 via ${net}\\.2 dev eth0`, 'm'));
  });

  caseOf('E00010', 'one family by subnet annotation, where both are on (with I00013)', bed, async (c) => {
    const subnet = await subnetOf(c, c.subnet(), 9);
    await workload(c, deployments, 'web', { annotations: { [subnetAnnotation]: `{"ipv4":["${subnet}"]}` } });
    const found = await c.readyPods('web', 2);
    await poolsBecome(c, subnet, [3]);
    const [pool] = await poolsOf(c, subnet);
    const held = [...(await c.records(pool?.metadata.name ?? '')).keys()].sort();
    assert.deepEqual(found.flatMap(ipsOf).sort(), held);
    assert.equal(held.length, 2);
  });

  caseOf(
    'I00003',
    'pools of applications are made, follow restarts and replicas, and go (with I00006, I00008)',
    bed,
    async (c) => {
      const subnet = await subnetOf(c, c.subnet(), 12);
      const annotations = { [subnetAnnotation]: `{"ipv4":["${subnet}"]}` };
      for (const gvr of [deployments, statefulSets]) await workload(c, gvr, gvr.kind.toLowerCase(), { annotations });
      await poolsBecome(c, subnet, [3, 3]);
      const at = { namespace: c.namespace, name: 'deployment' };
      for (const replicas of [3, 1, 3]) {
        await c.kube.patch(deployments, at, { type: 'merge', body: { spec: { replicas } } });
        await c.readyPods('deployment', replicas);
      }
      await poolsBecome(c, subnet, [3, 4]);
      const template = podTemplate('deployment', { annotations: { ...annotations, again: 'yes' } });
      await c.kube.patch(deployments, at, { type: 'merge', body: { spec: { template } } });
      await c.readyPods('statefulset', 2);
      for (const gvr of [deployments, statefulSets])
        await c.kube.delete(gvr, { namespace: c.namespace, name: gvr.kind.toLowerCase() });
      await poolsBecome(c, subnet, []);
      await allReturned(c, subnet);
    },
  );

  caseOf(
    'I00014',
    'owners of kinds that nobody watches and a lone pod have pools that go with them',
    bed,
    async (c) => {
      const subnet = await subnetOf(c, c.subnet(), 12);
      await c.kube.create(customResourceDefinitions, definitionOf(cloneSets));
      c.willRemove(customResourceDefinitions, definitionName(cloneSets));
      const { namespace } = c;
      await mayRead(c, cloneSets);
      const annotations = { [subnetAnnotation]: `{"ipv4":["${subnet}"]}` };
      const owned = async (name: string, size: Record<string, string>): Promise<void> => {
        const owner = await c.kube.create(cloneSets, { metadata: { namespace, name }, spec: {} } as KubeObject);
        for (const pod of [`${name}-1`, `${name}-2`]) {
          const { metadata, ...template } = podTemplate(name, { annotations: { ...annotations, ...size } });
          const own = { ...metadata, ...controlledBy(owner), namespace, name: pod };
          await c.kube.create(pods, { ...template, metadata: own });
        }
      };
      await Promise.all([owned('flexible', {}), owned('fixed', { 'ipam.spidernet.io/ippool-ip-number': '2' })]);
      await c.pod('alone', { annotations });
      const found = (await Promise.all(['flexible', 'fixed'].map((name) => c.readyPods(name, 2)))).flat();
      await poolsBecome(c, subnet, [1, 2, 3]);
      const names = (await poolsOf(c, subnet)).map(({ metadata }) => metadata.name ?? '');
      const held = (await Promise.all(names.map((name) => c.records(name)))).flatMap((records) => [...records.keys()]);
      assert.deepEqual([...found, await c.ready('alone')].flatMap(ipsOf).sort(), held.sort());
      await c.output('alone', 'ping', '-c1', '-W5', ipsOf(found[0] ?? assert.fail())[0] ?? '');
      await c.remove('alone');
      await c.kube.delete(cloneSets, { namespace, name: 'fixed' });
      await poolsBecome(c, subnet, [3]);
      await c.kube.delete(cloneSets, { namespace, name: 'flexible' });
      await poolsBecome(c, subnet, []);
      await allReturned(c, subnet);
    },
  );

  caseOf(
    'I00015',
    'the pool of a Job is kept for its successor, that of a CronJob outlives its Jobs',
    bed,
    async (c) => {
      const subnet = await subnetOf(c, c.subnet(), 12);
      const annotations = { [subnetAnnotation]: `{"ipv4":["${subnet}"]}` };
      const kept = {
        ...annotations,
        'ipam.spidernet.io/ippool-reclaim': 'false',
        'ipam.spidernet.io/ippool-ip-number': '2',
      };
      const first = await run(c, 'again', jobSpec(kept));
      const [pool] = await poolsOf(c, subnet);
      const name = pool?.metadata.name ?? assert.fail('no pool');
      c.willRemove(spiderIPPools, name);
      await c.recordsBecome(name, 0);
      assert.equal(await run(c, 'again', jobSpec(kept)), first);
      const at = { namespace: c.namespace, name: 'nightly' };
      const cronSpec = { schedule: '@daily', jobTemplate: { spec: jobSpec(annotations) } };
      const cron = await c.kube.create(cronJobs, { metadata: at, spec: cronSpec } as KubeObject);
      for (const job of ['nightly-1', 'nightly-2']) await run(c, job, jobSpec(annotations), cron);
      await poolsBecome(c, subnet, [2, 2]);
      await c.kube.delete(cronJobs, at);
      await poolsBecome(c, subnet, [2]);
      assert.deepEqual(await poolsOf(c, subnet).then((left) => left.map(({ metadata }) => metadata.name)), [name]);
    },
  );
}

function jobSpec(annotations: Readonly<Record<string, string>>): object {
  const { metadata, spec } = podTemplate('job', { annotations });
  const containers = [{ name: 'c', image: 'none', command: ['sleep', '1'] }];
  return { template: { metadata, spec: { ...spec, restartPolicy: 'Never', containers } } };
}

/** The address that the pod of the Job had, which has ended by itself; the Job is gone afterwards. */
async function run(c: CaseSpace, name: string, spec: object, owner?: KubeObject): Promise<string> {
  const at = { namespace: c.namespace, name };
  await c.kube.create(jobs, { metadata: { ...at, ...(owner && controlledBy(owner)) }, spec } as KubeObject);
  const complete = async (): Promise<boolean> =>
    (await c.kube.get<Job>(jobs, at)).status?.conditions?.some(({ type }) => type === 'Complete') === true;
  await waitFor(`Job ${name} to complete`, complete, { timeoutMs: 120_000 });
  const labelSelector = `batch.kubernetes.io/job-name=${name}`;
  const { items } = await c.kube.list<Pod>(pods, { namespace: c.namespace, labelSelector });
  const [ip] = ipsOf(items[0] ?? assert.fail(`Job ${name} has no pod`));
  await c.kube.delete(jobs, at);
  await c.gone(jobs, name, c.namespace);
  for (const { metadata } of items) await c.gone(pods, metadata?.name ?? '', c.namespace);
  return ip ?? assert.fail(`the pod of Job ${name} had no address`);
}

/** What an operator grants for kinds that deploy/rbac.yaml does not know (docs/reference/spidersubnet.md). */
async function mayRead(c: CaseSpace, { group, plural }: GroupVersionResource): Promise<void> {
  const metadata = { namespace: c.namespace, name: `read-${plural}` };
  const rules = [{ apiGroups: [group], resources: [plural], verbs: ['get'] }];
  await c.kube.create(roles, { metadata, rules } as KubeObject);
  const roleRef = { apiGroup: roles.group, kind: roles.kind, name: metadata.name };
  const subjects = [{ kind: serviceAccounts.kind, name: 'sluice-controller', namespace: 'kube-system' }];
  await c.kube.create(roleBindings, { metadata, roleRef, subjects } as KubeObject);
}
