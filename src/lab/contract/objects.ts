/** Contract: the life of an object: create, read, update, conflict, delete. */
import assert from 'node:assert/strict';
import { numberAt, objectAt, objectsAt, stringAt, valueAt } from '../api/json.ts';
import { configMap, deployment, pod, type ContractCase } from './case.ts';
import { jsonPatch, mergePatch, strategicPatch } from './client.ts';

export const objectCases: readonly ContractCase[] = [
  {
    name: 'create answers 201 with uid, resourceVersion and creationTimestamp; a second create answers 409 AlreadyExists',
    run: async (client) => {
      const first = await client.post(client.own('configmaps'), configMap('one', { a: 'b' }));
      assert.equal(first.status, 201);
      assert.match(stringAt(first.body, 'metadata', 'uid') ?? '', /^[0-9a-f-]{36}$/);
      assert.match(stringAt(first.body, 'metadata', 'resourceVersion') ?? '', /^\d+$/);
      assert.match(stringAt(first.body, 'metadata', 'creationTimestamp') ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      const second = await client.post(client.own('configmaps'), configMap('one'));
      assert.equal(second.status, 409);
      assert.equal(second.body.reason, 'AlreadyExists');
      assert.equal(second.body.message, 'configmaps "one" already exists');
      assert.deepEqual(second.body.details, { name: 'one', kind: 'configmaps' });
    },
  },
  {
    name: 'generateName makes distinct names of five more characters',
    run: async (client) => {
      const make = () =>
        client.post(client.own('configmaps'), {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { generateName: 'gen-' },
        });
      const names = [await make(), await make()].map((answer) => stringAt(answer.body, 'metadata', 'name') ?? '');
      for (const name of names) assert.match(name, /^gen-[bcdfghjklmnpqrstvwxz2456789]{5}$/);
      assert.notEqual(names[0], names[1]);
    },
  },
  {
    name: 'a missing object answers 404 with reason, message and details',
    run: async (client) => {
      const answer = await client.get(`${client.own('deployments', 'apps/v1')}/none`);
      assert.equal(answer.status, 404);
      assert.equal(answer.body.reason, 'NotFound');
      assert.equal(answer.body.message, 'deployments.apps "none" not found');
      assert.deepEqual(answer.body.details, { name: 'none', group: 'apps', kind: 'deployments' });
    },
  },
  {
    name: 'an update from an old resourceVersion answers 409 Conflict and changes nothing',
    run: async (client) => {
      const { body } = await client.post(client.own('configmaps'), configMap('stale', { v: '1' }));
      const path = `${client.own('configmaps')}/stale`;
      assert.equal((await client.put(path, { ...body, data: { v: '2' } })).status, 200);
      const conflict = await client.put(path, { ...body, data: { v: '3' } });
      assert.equal(conflict.status, 409);
      assert.equal(conflict.body.reason, 'Conflict');
      assert.equal(
        conflict.body.message,
        'Operation cannot be fulfilled on configmaps "stale": the object has been modified; please apply your changes to the latest version and try again',
      );
      assert.equal(stringAt((await client.get(path)).body, 'data', 'v'), '2');
    },
  },
  {
    name: 'a write that changes nothing keeps the resourceVersion',
    run: async (client) => {
      const { body } = await client.post(client.own('configmaps'), configMap('same', { v: '1' }));
      const again = await client.put(`${client.own('configmaps')}/same`, body);
      assert.equal(stringAt(again.body, 'metadata', 'resourceVersion'), stringAt(body, 'metadata', 'resourceVersion'));
    },
  },
  {
    name: 'generation counts spec changes and not label changes',
    run: async (client) => {
      await client.post(client.own('deployments', 'apps/v1'), deployment('generation'));
      const path = `${client.own('deployments', 'apps/v1')}/generation`;
      const labelled = await client.patch(path, mergePatch, { metadata: { labels: { x: 'y' } } });
      assert.equal(numberAt(labelled.body, 'metadata', 'generation'), 1);
      const scaled = await client.patch(path, mergePatch, { spec: { replicas: 3 } });
      assert.equal(numberAt(scaled.body, 'metadata', 'generation'), 2);
      const status = await client.patch(`${path}/status`, mergePatch, {
        status: { replicas: 3 },
        spec: { replicas: 9 },
      });
      assert.equal(numberAt(status.body, 'metadata', 'generation'), 2);
      assert.equal(numberAt(status.body, 'spec', 'replicas'), 3);
      assert.equal(numberAt(status.body, 'status', 'replicas'), 3);
    },
  },
  {
    name: 'the status of the main resource is ignored in writes',
    run: async (client) => {
      const made = await client.post(client.own('pods'), { ...pod('no-status'), status: { phase: 'Running' } });
      assert.equal(stringAt(made.body, 'status', 'phase'), 'Pending');
      const path = `${client.own('pods')}/no-status`;
      const patched = await client.patch(path, mergePatch, { status: { phase: 'Failed' } });
      assert.equal(stringAt(patched.body, 'status', 'phase'), 'Pending');
    },
  },
  {
    name: 'a strategic merge patch merges containers by name and obeys $patch: delete',
    run: async (client) => {
      await client.post(client.own('deployments', 'apps/v1'), deployment('strategic'));
      const path = `${client.own('deployments', 'apps/v1')}/strategic`;
      const containers = (list: object[]) => ({ spec: { template: { spec: { containers: list as never } } } });
      const added = await client.patch(path, strategicPatch, containers([{ name: 'side', image: 'example/side:1' }]));
      const names = objectsAt(added.body, 'spec', 'template', 'spec', 'containers').map((item) => item.name);
      assert.deepEqual([...names].sort(), ['main', 'side']);
      const removed = await client.patch(path, strategicPatch, containers([{ name: 'side', $patch: 'delete' }]));
      assert.deepEqual(
        objectsAt(removed.body, 'spec', 'template', 'spec', 'containers').map((item) => item.name),
        ['main'],
      );
      const ordered = await client.patch(path, strategicPatch, {
        spec: {
          template: {
            spec: {
              '$setElementOrder/containers': [{ name: 'first' }, { name: 'main' }],
              containers: [{ name: 'first', image: 'example/first:1' }],
            },
          },
        },
      });
      assert.deepEqual(
        objectsAt(ordered.body, 'spec', 'template', 'spec', 'containers').map((item) => item.name),
        ['first', 'main'],
      );
      const strategy = await client.patch(path, strategicPatch, {
        spec: { strategy: { $retainKeys: ['type'], type: 'Recreate' } },
      });
      assert.deepEqual(objectAt(strategy.body, 'spec', 'strategy'), { type: 'Recreate' });
    },
  },
  {
    name: 'merge patch and JSON patch change single fields; a failing JSON patch test changes nothing',
    run: async (client) => {
      await client.post(client.own('configmaps'), configMap('patched', { a: '1', b: '2' }));
      const path = `${client.own('configmaps')}/patched`;
      const merged = await client.patch(path, mergePatch, { data: { a: null, c: '3' } });
      assert.deepEqual(merged.body.data, { b: '2', c: '3' });
      const patched = await client.patch(path, jsonPatch, [{ op: 'replace', path: '/data/b', value: '9' }]);
      assert.deepEqual(patched.body.data, { b: '9', c: '3' });
      const failed = await client.patch(path, jsonPatch, [
        { op: 'test', path: '/data/b', value: 'x' },
        { op: 'remove', path: '/data/c' },
      ]);
      assert.equal(failed.status, 422);
      assert.deepEqual((await client.get(path)).body.data, { b: '9', c: '3' });
    },
  },
  {
    name: 'dryRun=All answers as if it wrote, and writes nothing',
    run: async (client) => {
      const answer = await client.post(`${client.own('configmaps')}?dryRun=All`, configMap('dry'));
      assert.equal(answer.status, 201);
      assert.equal((await client.get(`${client.own('configmaps')}/dry`)).status, 404);
    },
  },
  {
    name: 'delete answers a Status; a wrong uid precondition answers 409; a second delete answers 404',
    run: async (client) => {
      const { body } = await client.post(client.own('configmaps'), configMap('gone'));
      const path = `${client.own('configmaps')}/gone`;
      const wrong = await client.delete(path, { preconditions: { uid: '00000000-0000-0000-0000-000000000000' } });
      assert.equal(wrong.status, 409);
      const deleted = await client.delete(path);
      assert.equal(deleted.status, 200);
      assert.equal(deleted.body.kind, 'Status');
      assert.equal(stringAt(deleted.body, 'details', 'uid'), stringAt(body, 'metadata', 'uid'));
      assert.equal((await client.delete(path)).status, 404);
    },
  },
  {
    name: 'finalizers hold a deleted object until the last is removed, and no new one can be added',
    run: async (client) => {
      const held = configMap('held');
      await client.post(client.own('configmaps'), {
        ...held,
        metadata: { name: 'held', finalizers: ['example.com/wait'] },
      });
      const path = `${client.own('configmaps')}/held`;
      const deleted = await client.delete(path);
      assert.notEqual(stringAt(deleted.body, 'metadata', 'deletionTimestamp'), undefined);
      const more = await client.patch(path, mergePatch, {
        metadata: { finalizers: ['example.com/wait', 'example.com/more'] },
      });
      assert.equal(more.status, 422);
      assert.equal((await client.patch(path, mergePatch, { metadata: { finalizers: null } })).status, 200);
      assert.equal((await client.get(path)).status, 404);
    },
  },
  {
    name: 'a pod on a node is deleted gracefully: marked first, gone with grace period 0',
    run: async (client) => {
      const bound = pod('graceful');
      await client.post(client.own('pods'), { ...bound, spec: { ...(bound.spec as object), nodeName: 'nowhere' } });
      const path = `${client.own('pods')}/graceful`;
      const marked = await client.delete(path, { gracePeriodSeconds: 7 });
      assert.equal(numberAt(marked.body, 'metadata', 'deletionGracePeriodSeconds'), 7);
      assert.notEqual(stringAt((await client.get(path)).body, 'metadata', 'deletionTimestamp'), undefined);
      await client.delete(path, { gracePeriodSeconds: 0 });
      assert.equal((await client.get(path)).status, 404);
    },
  },
  {
    name: 'a pod without a node is deleted at once',
    run: async (client) => {
      await client.post(client.own('pods'), pod('unbound'));
      await client.delete(`${client.own('pods')}/unbound`);
      assert.equal((await client.get(`${client.own('pods')}/unbound`)).status, 404);
    },
  },
  {
    name: 'binding gives a pod its node once',
    run: async (client) => {
      await client.post(client.own('pods'), pod('bound'));
      const binding = {
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name: 'bound' },
        target: { apiVersion: 'v1', kind: 'Node', name: 'nowhere' },
      };
      assert.equal((await client.post(`${client.own('pods')}/bound/binding`, binding)).status, 201);
      const bound = await client.get(`${client.own('pods')}/bound`);
      assert.equal(stringAt(bound.body, 'spec', 'nodeName'), 'nowhere');
      assert.equal(
        objectsAt(bound.body, 'status', 'conditions').find((item) => item.type === 'PodScheduled')?.status,
        'True',
      );
      assert.equal((await client.post(`${client.own('pods')}/bound/binding`, binding)).status, 409);
    },
  },
  {
    name: 'the scale subresource reads and writes spec.replicas',
    run: async (client) => {
      await client.post(client.own('deployments', 'apps/v1'), deployment('scaled'));
      const path = `${client.own('deployments', 'apps/v1')}/scaled`;
      const scale = await client.get(`${path}/scale`);
      assert.equal(scale.body.kind, 'Scale');
      assert.equal(stringAt(scale.body, 'status', 'selector'), 'app=scaled');
      const written = await client.put(`${path}/scale`, { ...scale.body, spec: { replicas: 5 } });
      assert.equal(numberAt(written.body, 'spec', 'replicas'), 5);
      assert.equal(numberAt((await client.get(path)).body, 'spec', 'replicas'), 5);
      const stale = await client.put(`${path}/scale`, { ...scale.body, spec: { replicas: 1 } });
      assert.equal(stale.status, 409);
    },
  },
  {
    name: 'deletecollection deletes what its selector matches',
    run: async (client) => {
      await client.post(client.own('configmaps'), configMap('c1', {}, { sweep: 'yes' }));
      await client.post(client.own('configmaps'), configMap('c2', {}, { sweep: 'no' }));
      assert.equal((await client.delete(`${client.own('configmaps')}?labelSelector=sweep%3Dyes`)).status, 200);
      assert.equal((await client.get(`${client.own('configmaps')}/c1`)).status, 404);
      assert.equal((await client.get(`${client.own('configmaps')}/c2`)).status, 200);
    },
  },
  {
    name: 'a namespace carries its name as a label, and objects need an existing namespace',
    run: async (client) => {
      const own = await client.get(`/api/v1/namespaces/${client.namespace}`);
      assert.equal(valueAt(own.body, 'metadata', 'labels', 'kubernetes.io/metadata.name'), client.namespace);
      const lost = await client.post('/api/v1/namespaces/no-such-namespace/configmaps', configMap('x'));
      assert.equal(lost.status, 404);
      assert.equal(lost.body.message, 'namespaces "no-such-namespace" not found');
    },
  },
];
