/** Group E: every kind of workload gets addresses, one family or both. */
import assert from 'node:assert/strict';
import type { Job, KubeObject, Pod } from '../../src/api/kubernetes.ts';
import {
  daemonSets,
  deployments,
  jobs,
  pods,
  replicaSets,
  statefulSets,
  type GroupVersionResource,
} from '../../src/api/resources.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, fromPools, ipsOf, type Bed, type CaseSpace } from './bed.ts';
import { podTemplate, workload } from './workloads.ts';

/** Every pod has on its interface exactly what the pools record for it. */
async function agree(c: CaseSpace, found: readonly Pod[], pools: readonly string[]): Promise<void> {
  const recorded = new Map<string, string[]>();
  for (const pool of pools)
    for (const [address, pod] of await c.records(pool)) recorded.set(pod, [...(recorded.get(pod) ?? []), address]);
  for (const pod of found) {
    const name = pod.metadata?.name ?? '';
    const own = recorded.get(`${c.namespace}/${name}`) ?? [];
    assert.equal(own.length, pools.length, `${name} has one address of each pool`);
    assert.deepEqual(ipsOf(pod).sort(), [...own].sort());
    assert.deepEqual((await c.addressesOn(name)).sort(), [...own].sort());
  }
}

async function assigned(c: CaseSpace, gvr: GroupVersionResource): Promise<void> {
  const [v4, v6] = [await c.pool('v4', 8), await c.pool6('v6', 8)];
  for (const [name, pools, annotations] of [
    ['both', [v4, v6], fromPools([v4], [v6])],
    ['four', [v4], fromPools([v4])],
    ['six', [v6], fromPools([], [v6])],
  ] as const) {
    await workload(c, gvr, name, { annotations });
    await agree(c, await c.readyPods(name, 2), pools);
  }
  await c.kube.delete(gvr, { namespace: c.namespace, name: 'both' });
  await c.recordsBecome(v4, 2);
  await c.recordsBecome(v6, 2);
}

export function assignCases(bed: () => Bed): void {
  caseOf('E00001', 'pods get IPv4, IPv6 or both, and reach each other', bed, async (c) => {
    const [v4, v6] = [await c.pool('v4'), await c.pool6('v6')];
    const [four, six, both, peer] = await Promise.all([
      c.pod('four', { annotations: fromPools([v4]), node: 'node1' }),
      c.pod('six', { annotations: fromPools([], [v6]), node: 'node1' }),
      c.pod('both', { annotations: fromPools([v4], [v6]), node: 'node1' }),
      c.pod('peer', { annotations: fromPools([v4], [v6]), node: 'node2' }),
    ]);
    await agree(c, [four], [v4]);
    await agree(c, [six], [v6]);
    await agree(c, [both, peer], [v4, v6]);
    for (const ip of [...ipsOf(four), ...ipsOf(six), ...ipsOf(both)]) await c.output('peer', 'ping', '-c1', '-W5', ip);
  });

  caseOf('E00002', 'pods of a Deployment', bed, (c) => assigned(c, deployments));
  caseOf('E00003', 'pods of a StatefulSet', bed, (c) => assigned(c, statefulSets));
  caseOf('E00004', 'pods of a DaemonSet', bed, (c) => assigned(c, daemonSets));
  caseOf('E00006', 'pods of a ReplicaSet', bed, (c) => assigned(c, replicaSets));

  caseOf('E00005', 'pods of a Job, which end by themselves', bed, async (c) => {
    const pools = [await c.pool('v4', 2), await c.pool6('v6', 2)] as const;
    const { metadata, spec } = podTemplate('job', { annotations: fromPools([pools[0]], [pools[1]]) });
    const containers = [{ name: 'c', image: 'none', command: ['sh', '-c', 'ip -o addr show dev eth0; sleep 1'] }];
    const template = { metadata, spec: { ...spec, restartPolicy: 'Never', containers } };
    const at = { namespace: c.namespace, name: 'job' };
    await c.kube.create(jobs, { metadata: at, spec: { completions: 3, parallelism: 2, template } } as KubeObject);
    await waitFor(
      'the job to end',
      async () =>
        (await c.kube.get<Job>(jobs, at)).status?.conditions?.some(({ type }) => type === 'Complete') === true,
      { timeoutMs: 180_000 },
    );
    const found = (await c.kube.list<Pod>(pods, { namespace: c.namespace })).items;
    assert.deepEqual(
      found.map((pod) => [pod.status?.phase, ipsOf(pod).length, pod.metadata?.ownerReferences?.[0]?.kind]),
      Array.from({ length: 3 }, () => ['Succeeded', 2, 'Job']),
    );
    // Two addresses were enough for three pods: each gave its own back when it had ended.
    for (const pool of pools) await c.recordsBecome(pool, 0);
  });

  caseOf('E00007', 'a pod with a very long manifest', bed, async (c) => {
    const pool = await c.pool('p');
    const filler = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`long-${n}`, 'x'.repeat(10_000)]));
    const pod = await c.pod('web', { annotations: { ...fromPools([pool]), ...filler } });
    await agree(c, [pod], [pool]);
  });

  caseOf('E00008', 'an exhausted pool: the pod fails, and starts when an address is back', bed, async (c) => {
    const pool = await c.pool('p', 1);
    await c.pod('first', { annotations: fromPools([pool]) });
    await c.refused('second', /all IP addresses used out/, { annotations: fromPools([pool]) });
    await c.remove('first');
    await agree(c, [await c.ready('second')], [pool]);
  });

  caseOf('E00009', 'one family by annotation, where both are on', bed, async (c) => {
    const [v4, v6] = [await c.pool('v4'), await c.pool6('v6')];
    const [four, six] = await Promise.all([
      c.pod('four', { annotations: fromPools([v4]) }),
      c.pod('six', { annotations: fromPools([], [v6]) }),
    ]);
    assert.deepEqual([ipsOf(four).length, ipsOf(six).length], [1, 1]);
    await agree(c, [four], [v4]);
    await agree(c, [six], [v6]);
  });
}
