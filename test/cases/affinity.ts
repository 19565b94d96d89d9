/** Group L: whom a pool is for. */
import assert from 'node:assert/strict';
import { daemonSets, pods, statefulSets } from '../../src/api/resources.ts';
import { caseOf, fromPools, ipsOf, type Bed } from './bed.ts';
import { workload } from './workloads.ts';

const hostname = (name: string): { matchLabels: Record<string, string> } => ({
  matchLabels: { 'kubernetes.io/hostname': name },
});

export function affinityCases(bed: () => Bed): void {
  caseOf('L00001', 'nodeAffinity matches: an address', bed, async (c) => {
    const pool = await c.pool('p', 2, { nodeAffinity: hostname('node2') });
    const pod = await c.pod('web', { annotations: fromPools([pool]), node: 'node2' });
    assert.deepEqual(ipsOf(pod), [...(await c.records(pool)).keys()]);
  });

  caseOf('L00002', 'nodeAffinity does not match: no address', bed, async (c) => {
    const pool = await c.pool('p', 2, { nodeAffinity: hostname('node2') });
    await c.refused('web', /unmatched Node/, { annotations: fromPools([pool]), node: 'node1' });
  });

  caseOf('L00003', 'namespaceAffinity matches: an address', bed, async (c) => {
    const other = await c.addNamespace(`${c.namespace}-blue`, { labels: { team: 'blue' } });
    const pool = await c.pool('p', 2, { namespaceAffinity: { matchLabels: { team: 'blue' } } });
    const pod = await c.pod('web', { annotations: fromPools([pool]), namespace: other });
    assert.deepEqual(ipsOf(pod), [...(await c.records(pool)).keys()]);
  });

  caseOf('L00004', 'namespaceAffinity does not match: no address', bed, async (c) => {
    const pool = await c.pool('p', 2, { namespaceAffinity: { matchLabels: { team: 'blue' } } });
    await c.refused('web', /unmatched Namespace/, { annotations: fromPools([pool]) });
  });

  caseOf('L00005', 'podAffinity matches: an address', bed, async (c) => {
    const pool = await c.pool('p', 2, {
      podAffinity: { matchExpressions: [{ key: 'tier', operator: 'In', values: ['a', 'b'] }] },
    });
    const pod = await c.pod('web', { annotations: fromPools([pool]), labels: { tier: 'b' } });
    assert.deepEqual(ipsOf(pod), [...(await c.records(pool)).keys()]);
  });

  caseOf('L00006', 'podAffinity does not match: no address', bed, async (c) => {
    const pool = await c.pool('p', 2, { podAffinity: { matchLabels: { tier: 'a' } } });
    await c.refused('web', /unmatched Pod selector of IPPool l00006-p/, {
      annotations: fromPools([pool]),
      labels: { tier: 'c' },
    });
  });

  caseOf('L00007', 'a DaemonSet over two zones draws from each zone’s pool', bed, async (c) => {
    const [one, two] = await Promise.all(
      [1, 2].map((n) => c.pool(`zone${n}`, 2, { nodeAffinity: hostname(`node${n}`) })),
    );
    await workload(c, daemonSets, 'web', { annotations: fromPools([one ?? '', two ?? '']) });
    for (const { spec, status } of await c.readyPods('web', 2)) {
      const pool = spec?.nodeName === 'node1' ? one : two;
      assert.deepEqual([...(await c.records(pool ?? '')).keys()], [status?.podIP]);
    }
  });

  caseOf('L00008', 'pods of a StatefulSet keep their addresses in a pool with podAffinity', bed, async (c) => {
    const pool = await c.pool('p', 3, { podAffinity: { matchLabels: { app: 'db' } } });
    await workload(c, statefulSets, 'db', { annotations: fromPools([pool]) });
    await c.readyPods('db', 2);
    const before = [...(await c.records(pool))];
    for (const name of ['db-0', 'db-1'])
      await c.kube.delete(pods, { namespace: c.namespace, name }, { gracePeriodSeconds: 0 });
    for (const pod of await c.readyPods('db', 2)) {
      const own = before.find(([, name]) => name === `${c.namespace}/${pod.metadata?.name}`);
      assert.deepEqual(ipsOf(pod), [own?.[0]]);
    }
    assert.deepEqual([...(await c.records(pool))], before);
  });

  caseOf('L00009', 'a namespace draws from many pools, and a pool feeds many namespaces', bed, async (c) => {
    const other = await c.addNamespace(`${c.namespace}-2`);
    const [a, b] = [await c.pool('a', 2), await c.pool('b', 2)];
    await Promise.all([
      c.pod('one', { annotations: fromPools([a]) }),
      c.pod('two', { annotations: fromPools([b]) }),
      c.pod('three', { annotations: fromPools([a]), namespace: other }),
    ]);
    assert.deepEqual([...(await c.records(a)).values()].sort(), [`${c.namespace}/one`, `${other}/three`].sort());
    assert.deepEqual([...(await c.records(b)).values()], [`${c.namespace}/two`]);
  });
}
