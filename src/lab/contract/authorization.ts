/** Role-based access control: who may do what. */
import assert from 'node:assert/strict';
import { objectAt, type Json, type JsonObject } from '../api/json.ts';
import type { ContractCase } from './case.ts';
import type { ContractClient } from './client.ts';

const apiGroup = 'rbac.authorization.k8s.io';

interface Asked {
  readonly [key: string]: string | undefined;
  readonly verb: string;
  readonly resource: string;
  readonly group?: string;
  readonly subresource?: string;
  readonly namespace?: string;
  readonly name?: string;
}

async function may(client: ContractClient, user: string, asked: Asked, groups: string[] = []): Promise<boolean> {
  const spec = { user, groups, resourceAttributes: { ...asked } };
  const kind = 'SubjectAccessReview';
  const body = { apiVersion: 'authorization.k8s.io/v1', kind, spec };
  const answer = await client.post('/apis/authorization.k8s.io/v1/subjectaccessreviews', body);
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  return objectAt(answer.body, 'status')?.allowed === true;
}

/** Named after the case's namespace, since cluster roles are everybody's. */
async function grant(
  client: ContractClient,
  kind: 'Role' | 'ClusterRole',
  rules: Json[],
  subject: JsonObject,
): Promise<void> {
  const at = kind === 'Role' ? client.own('', `${apiGroup}/v1`) : `/apis/${apiGroup}/v1/cluster`;
  const head = { apiVersion: `${apiGroup}/v1`, metadata: { name: client.namespace } };
  const role = await client.post(`${at}roles`, { ...head, kind, rules });
  assert.equal(role.status, 201, role.text);
  const roleRef = { apiGroup, kind, name: client.namespace };
  const bound = await client.post(`${at}rolebindings`, {
    ...{ ...head, kind: `${kind}Binding`, roleRef },
    subjects: [subject],
  });
  assert.equal(bound.status, 201, bound.text);
}

/** Rules reach a server's authorizer shortly after they are written. */
async function becomesAllowed(client: ContractClient, user: string, asked: Asked): Promise<void> {
  for (let round = 0; round < 100; round++) {
    if (await may(client, user, asked)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`not within 5 s: ${user} may ${JSON.stringify(asked)}`);
}

export const authorizationCases: readonly ContractCase[] = [
  {
    name: 'a Role allows its verbs, resources, subresources and names, to its account, in its namespace',
    run: async (client) => {
      const { namespace } = client;
      const user = `system:serviceaccount:${namespace}:robot`;
      const rules = [
        { apiGroups: [''], resources: ['pods', 'pods/status'], verbs: ['get', 'update'] },
        { apiGroups: [''], resources: ['secrets'], resourceNames: ['one'], verbs: ['get', 'create'] },
        { apiGroups: ['apps'], resources: ['*/scale'], verbs: ['*'] },
      ];
      await grant(client, 'Role', rules, { kind: 'ServiceAccount', name: 'robot', namespace });
      const core = { verb: 'get', resource: 'pods', namespace };
      await becomesAllowed(client, user, core);
      const expected: [Asked, boolean][] = [
        [{ ...core, subresource: 'status', verb: 'update' }, true],
        [{ ...core, subresource: 'log' }, false],
        [{ ...core, verb: 'list' }, false],
        [{ ...core, namespace: 'default' }, false],
        [{ ...core, namespace: '' }, false],
        [{ ...core, group: 'apps' }, false],
        [{ ...core, resource: 'secrets', name: 'one' }, true],
        [{ ...core, resource: 'secrets', name: 'two' }, false],
        [{ ...core, resource: 'secrets' }, false],
        [{ ...core, resource: 'secrets', verb: 'create' }, false],
        [{ ...core, group: 'apps', resource: 'deployments', subresource: 'scale', verb: 'patch' }, true],
        [{ ...core, group: 'apps', resource: 'deployments', verb: 'patch' }, false],
      ];
      for (const [asked, allowed] of expected)
        assert.equal(await may(client, user, asked), allowed, JSON.stringify(asked));
      assert.equal(await may(client, `system:serviceaccount:default:robot`, core), false, 'another account');
      assert.equal(await may(client, 'nobody', core, ['system:masters']), true);
    },
  },
  {
    name: 'a ClusterRole bound for the cluster allows everywhere',
    run: async (client) => {
      const team = `${client.namespace}-team`;
      const rules = [{ apiGroups: ['example.com'], resources: ['*'], verbs: ['list'] }];
      await grant(client, 'ClusterRole', rules, { apiGroup, kind: 'User', name: team });
      const asked = { verb: 'list', resource: 'things', group: 'example.com' };
      await becomesAllowed(client, team, asked);
      assert.equal(await may(client, team, { ...asked, namespace: 'default', subresource: 'status' }), true);
      assert.equal(await may(client, team, { ...asked, group: '' }), false);
      assert.equal(await may(client, 'somebody', asked, [team]), false, 'a user of that name is not a group');
      for (const plural of ['clusterroles', 'clusterrolebindings'])
        await client.delete(`/apis/${apiGroup}/v1/${plural}/${client.namespace}`);
    },
  },
];
