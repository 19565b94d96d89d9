/** Contract of a whole control plane: garbage collection and namespace deletion (kube-controller-manager in a cluster). */
import assert from 'node:assert/strict';
import { objectAt, stringAt, valueAt, type JsonObject } from '../api/json.ts';
import { configMap, type ContractCase } from './case.ts';
import type { Answer, ContractClient } from './client.ts';
import { mergePatch } from './client.ts';

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 100; round++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`not within 5 s: ${what}`);
}

const gone = async (client: ContractClient, path: string): Promise<boolean> => (await client.get(path)).status === 404;

function ownedBy(owner: Answer, name: string, block: boolean): JsonObject {
  const reference = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    name: stringAt(owner.body, 'metadata', 'name') ?? '',
    uid: stringAt(owner.body, 'metadata', 'uid') ?? '',
    controller: true,
    blockOwnerDeletion: block,
  };
  return { ...configMap(name), metadata: { name, ownerReferences: [reference] } };
}

export const controllerCases: readonly ContractCase[] = [
  {
    name: 'background deletion collects dependents; an object of a missing owner goes too',
    controllers: true,
    run: async (client) => {
      const path = client.own('configmaps');
      const owner = await client.post(path, configMap('owner'));
      await client.post(path, ownedBy(owner, 'child', false));
      await client.delete(`${path}/owner`, { propagationPolicy: 'Background' });
      await until('the child is collected', () => gone(client, `${path}/child`));
      await client.post(path, ownedBy(owner, 'late', false));
      await until('the late child is collected', () => gone(client, `${path}/late`));
    },
  },
  {
    name: 'foreground deletion keeps the owner until its dependents are gone',
    controllers: true,
    run: async (client) => {
      const path = client.own('configmaps');
      const owner = await client.post(path, configMap('fg'));
      const child = ownedBy(owner, 'fg-child', true);
      await client.post(path, {
        ...child,
        metadata: { ...objectAt(child, 'metadata'), finalizers: ['example.com/hold'] },
      });
      const deleted = await client.delete(`${path}/fg`, { propagationPolicy: 'Foreground' });
      assert.deepEqual(valueAt(deleted.body, 'metadata', 'finalizers'), ['foregroundDeletion']);
      await until(
        'the child is marked',
        async () => valueAt((await client.get(`${path}/fg-child`)).body, 'metadata', 'deletionTimestamp') !== undefined,
      );
      assert.equal((await client.get(`${path}/fg`)).status, 200);
      await client.patch(`${path}/fg-child`, mergePatch, { metadata: { finalizers: null } });
      await until('the owner goes', () => gone(client, `${path}/fg`));
    },
  },
  {
    name: 'orphan deletion leaves the dependents without their owner',
    controllers: true,
    run: async (client) => {
      const path = client.own('configmaps');
      const owner = await client.post(path, configMap('orphaner'));
      await client.post(path, ownedBy(owner, 'orphan', false));
      await client.delete(`${path}/orphaner`, { propagationPolicy: 'Orphan' });
      await until('the owner goes', () => gone(client, `${path}/orphaner`));
      const orphan = await client.get(`${path}/orphan`);
      assert.equal(orphan.status, 200);
      assert.equal(valueAt(orphan.body, 'metadata', 'ownerReferences'), undefined);
    },
  },
  {
    name: 'a deleted namespace refuses new content, empties itself and goes',
    controllers: true,
    run: async (client) => {
      const name = `${client.namespace}-doomed`;
      const path = `/api/v1/namespaces/${name}`;
      await client.post('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
      const held = configMap('held');
      await client.post(`${path}/configmaps`, {
        ...held,
        metadata: { name: 'held', finalizers: ['example.com/hold'] },
      });
      await client.post(`${path}/configmaps`, configMap('plain'));
      const deleted = await client.delete(path);
      assert.equal(stringAt(deleted.body, 'status', 'phase'), 'Terminating');
      const refused = await client.post(`${path}/configmaps`, configMap('new'));
      assert.equal(refused.status, 403);
      assert.match(stringAt(refused.body, 'message') ?? '', /because it is being terminated/);
      await until('the content goes', () => gone(client, `${path}/configmaps/plain`));
      assert.equal((await client.get(path)).status, 200);
      await client.patch(`${path}/configmaps/held`, mergePatch, { metadata: { finalizers: null } });
      await until('the namespace goes', () => gone(client, path));
    },
  },
];
