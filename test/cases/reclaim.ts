/** Group G: addresses come back. What needs a process or a node to fail is in ./outages.ts. */
import assert from 'node:assert/strict';
import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Pod } from '../../src/api/kubernetes.ts';
import {
  daemonSets,
  deployments,
  namespaces,
  pods,
  spiderEndpoints,
  statefulSets,
  type GroupVersionResource,
} from '../../src/api/resources.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, defaultNetwork, fromPools, ipsOf, type Bed, type CaseSpace } from './bed.ts';
import { workload } from './workloads.ts';

export function reclaimCases(bed: () => Bed): void {
  podCases(bed);
  workloadCases(bed);
}

function podCases(bed: () => Bed): void {
  caseOf(
    'G00001',
    'a namespace that goes gives back its addresses, a namesake keeps its own (with G00002)',
    bed,
    async (c) => {
      const other = await c.addNamespace(`${c.namespace}-2`);
      const pool = await c.pool('p');
      const annotations = fromPools([pool]);
      const [kept] = await Promise.all([
        c.pod('web', { annotations }),
        c.pod('web', { annotations, namespace: other }),
        c.pod('db', { annotations, namespace: other }),
      ]);
      await c.kube.delete(namespaces, { name: other });
      await c.recordsBecome(pool, 1);
      assert.deepEqual([...(await c.records(pool))], [[ipsOf(kept)[0], `${c.namespace}/web`]]);
      assert.deepEqual(await c.addressesOn('web'), ipsOf(kept));
      await c.gone(namespaces, other);
      const { items } = await c.kube.list(spiderEndpoints, { namespace: c.namespace });
      assert.deepEqual(
        items.map(({ metadata }) => metadata?.name),
        ['web'],
      );
    },
  );

  caseOf('G00003', 'a pod whose CNI executable is gone when it is deleted', bed, async (c) => {
    const pool = await c.pool('p');
    const executable = join(c.bed.dir, 'cni-bin', 'vanishing');
    symlinkSync('/usr/lib/cni/tuning', executable);
    try {
      const network = await c.attachment('net', {
        macvlan: { master: ['ens192'], ippools: { ipv4: [pool] } },
        enableCoordinator: false,
        chainCNIJsonData: ['{"type":"vanishing"}', '{"type":"sluice"}'],
      });
      await c.pod('web', { annotations: { [defaultNetwork]: network } });
      rmSync(executable);
      await c.kube.delete(pods, { namespace: c.namespace, name: 'web' }, { gracePeriodSeconds: 0 });
      await c.recordsBecome(pool, 0);
    } finally {
      rmSync(executable, { force: true });
    }
  });

  caseOf('G00004', 'a pod that is deleted with a grace period of 0, in the middle of its start too', bed, async (c) => {
    const pool = await c.pool('p', 8);
    const annotations = fromPools([pool]);
    const stubborn = { name: 'c', image: 'none', command: ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done'] };
    const spec = { terminationGracePeriodSeconds: 600, containers: [stubborn] };
    await Promise.all([
      c.pod('old', { annotations, spec }),
      ...[1, 2, 3].map((n) => c.createPod(`new${n}`, { annotations })),
    ]);
    for (const name of ['old', 'new1', 'new2', 'new3'])
      await c.kube.delete(pods, { namespace: c.namespace, name }, { gracePeriodSeconds: 0 });
    await c.recordsBecome(pool, 0);
  });

  caseOf('G00006', 'a pod that has finished gives its address back and stays', bed, async (c) => {
    const pool = await c.pool('p', 2);
    const run = (status: number): Pod['spec'] => ({
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'c', image: 'none', command: ['sh', '-c', `exit ${status}`] }],
    });
    await Promise.all([0, 1].map((n) => c.createPod(`job${n}`, { annotations: fromPools([pool]), spec: run(n) })));
    const phase = async (name: string): Promise<string | undefined> =>
      (await c.kube.get<Pod>(pods, { namespace: c.namespace, name })).status?.phase;
    const ended = async (): Promise<boolean> =>
      (await phase('job0')) === 'Succeeded' && (await phase('job1')) === 'Failed';
    await waitFor('both to end', ended, { timeoutMs: 120_000 });
    await c.recordsBecome(pool, 0);
    assert.ok(await ended(), 'the pods are still there');
  });
}

function scale(c: CaseSpace, gvr: GroupVersionResource, name: string, replicas: number): Promise<unknown> {
  return c.kube.patch(gvr, { namespace: c.namespace, name }, { type: 'merge', body: { spec: { replicas } } });
}

/** The pool records exactly these pods, and each has on its interface what is recorded. */
async function heldBy(c: CaseSpace, pool: string, names: readonly string[]): Promise<void> {
  const records = await c.records(pool);
  const wanted = names.map((name) => `${c.namespace}/${name}`).sort();
  assert.deepEqual([...records.values()].sort(), wanted);
  for (const [address, pod] of records)
    assert.deepEqual(await c.addressesOn(pod.slice(c.namespace.length + 1)), [address]);
}

function workloadCases(bed: () => Bed): void {
  caseOf('G00010', 'a StatefulSet gives back what it needs no more: scaled down, deleted', bed, async (c) => {
    const pool = await c.pool('p', 3);
    await workload(c, statefulSets, 'db', { annotations: fromPools([pool]), replicas: 3 });
    await c.readyPods('db', 3);
    await scale(c, statefulSets, 'db', 1);
    await c.recordsBecome(pool, 1);
    await heldBy(c, pool, ['db-0']);
    await c.kube.delete(statefulSets, { namespace: c.namespace, name: 'db' });
    await c.recordsBecome(pool, 0);
  });

  caseOf(
    'G00011',
    'two StatefulSets share a pool that holds neither more, and scale against each other',
    bed,
    async (c) => {
      const pool = await c.pool('p', 4);
      const annotations = fromPools([pool]);
      await workload(c, statefulSets, 'a', { annotations, replicas: 3 });
      await workload(c, statefulSets, 'b', { annotations, replicas: 1 });
      await c.readyPods('a', 3);
      await c.readyPods('b', 1);
      const first = [...(await c.records(pool))].find(([, pod]) => pod.endsWith('/a-0'));
      await scale(c, statefulSets, 'b', 3);
      await scale(c, statefulSets, 'a', 1);
      await c.readyPods('b', 3);
      await heldBy(c, pool, ['a-0', 'b-0', 'b-1', 'b-2']);
      await scale(c, statefulSets, 'a', 2);
      await scale(c, statefulSets, 'b', 2);
      await c.readyPods('a', 2);
      await heldBy(c, pool, ['a-0', 'a-1', 'b-0', 'b-1']);
      assert.deepEqual(
        [...(await c.records(pool))].find(([, pod]) => pod.endsWith('/a-0')),
        first,
      );
    },
  );

  caseOf('G00012', 'workloads of all kinds compete for the last address of a pool', bed, async (c) => {
    const pool = await c.pool('p', 7);
    const annotations = fromPools([pool]);
    await Promise.all(
      [deployments, statefulSets, daemonSets].map((gvr) => workload(c, gvr, gvr.kind.toLowerCase(), { annotations })),
    );
    await Promise.all([deployments, statefulSets, daemonSets].map(({ kind }) => c.readyPods(kind.toLowerCase(), 2)));
    // One address, and a Deployment that grows by one, a StatefulSet and a bare pod that want it.
    await Promise.all([scale(c, deployments, 'deployment', 3), scale(c, statefulSets, 'statefulset', 3)]);
    await c.createPod('bare', { annotations });
    await c.recordsBecome(pool, 7);
    await c.kube.delete(daemonSets, { namespace: c.namespace, name: 'daemonset' });
    await c.ready('bare');
    const found = [...(await c.readyPods('deployment', 3)), ...(await c.readyPods('statefulset', 3))];
    await c.recordsBecome(pool, 7);
    await heldBy(c, pool, ['bare', ...found.map(({ metadata }) => metadata?.name ?? '')]);
  });
}
