/** Contract: lists, selectors, chunks, tables, watches, discovery and credentials. */
import assert from 'node:assert/strict';
import { isArray, objectAt, objectsAt, stringAt, stringsAt, valueAt, type JsonObject, textOf } from '../api/json.ts';
import { configMap, deployment, pod, type ContractCase } from './case.ts';
import { mergePatch, tableAccept, type ContractClient } from './client.ts';

const names = (body: JsonObject): string[] =>
  objectsAt(body, 'items').map((item) => stringAt(item, 'metadata', 'name') ?? '');

async function versionNow(client: ContractClient): Promise<string> {
  return stringAt((await client.get(client.own('configmaps'))).body, 'metadata', 'resourceVersion') ?? '';
}

/** The watched events of the configmaps this run made; kube-root-ca.crt and the like come from controllers. */
const shown = (events: readonly JsonObject[]): string[] =>
  events.map((event) => `${textOf(event.type)} ${stringAt(event, 'object', 'metadata', 'name') ?? ''}`);

export const readingCases: readonly ContractCase[] = [
  {
    name: 'label selectors: equality and sets',
    run: async (client) => {
      const path = client.own('configmaps');
      await client.post(path, configMap('l1', {}, { tier: 'web', env: 'a' }));
      await client.post(path, configMap('l2', {}, { tier: 'web', env: 'b' }));
      await client.post(path, configMap('l3', {}, { tier: 'db' }));
      const select = async (selector: string) =>
        names((await client.get(`${path}?labelSelector=${encodeURIComponent(selector)}`)).body);
      assert.deepEqual(await select('tier=web'), ['l1', 'l2']);
      assert.deepEqual(await select('tier=web,env!=a'), ['l2']);
      assert.deepEqual(await select('tier in (db,web),!env'), ['l3']);
      assert.deepEqual(await select('tier,env notin (a)'), ['l2', 'l3']);
      assert.equal((await client.get(`${path}?labelSelector=${encodeURIComponent('a in b')}`)).status, 400);
    },
  },
  {
    name: 'field selectors: names and node names; an unknown field answers 400',
    run: async (client) => {
      const on = pod('on-node');
      await client.post(client.own('pods'), { ...on, spec: { ...(on.spec as object), nodeName: 'elsewhere' } });
      await client.post(client.own('pods'), pod('off-node'));
      const select = async (selector: string) =>
        client.get(`${client.own('pods')}?fieldSelector=${encodeURIComponent(selector)}`);
      assert.deepEqual(names((await select('spec.nodeName=elsewhere')).body), ['on-node']);
      assert.deepEqual(names((await select('metadata.name=off-node,status.phase=Pending')).body), ['off-node']);
      assert.deepEqual(names((await select('metadata.name=on-node,status.phase!=Pending')).body), []);
      const unknown = await select('spec.image=x');
      assert.equal(unknown.status, 400);
      assert.match(stringAt(unknown.body, 'message') ?? '', /field label not supported: spec\.image/);
    },
  },
  {
    name: 'limit and continue page through a consistent snapshot in key order',
    run: async (client) => {
      const path = client.own('configmaps');
      const labels = { page: 'yes' };
      for (const name of ['p1', 'p2', 'p3']) await client.post(path, configMap(name, {}, labels));
      const first = await client.get(`${path}?labelSelector=page%3Dyes&limit=2`);
      assert.deepEqual(names(first.body), ['p1', 'p2']);
      const token = stringAt(first.body, 'metadata', 'continue') ?? '';
      assert.notEqual(token, '');
      await client.post(path, configMap('p4', {}, labels));
      const second = await client.get(`${path}?labelSelector=page%3Dyes&limit=2&continue=${encodeURIComponent(token)}`);
      assert.deepEqual(names(second.body), ['p3']);
      assert.equal(stringAt(second.body, 'metadata', 'continue') ?? '', '');
    },
  },
  {
    name: 'resourceVersionMatch=Exact reads the past; a version of the future times out or is refused',
    run: async (client) => {
      const path = client.own('configmaps');
      const made = await client.post(path, configMap('past', { v: 'old' }));
      const version = stringAt(made.body, 'metadata', 'resourceVersion') ?? '';
      await client.patch(`${path}/past`, mergePatch, { data: { v: 'new' } });
      const past = await client.get(
        `${path}?fieldSelector=metadata.name%3Dpast&resourceVersion=${version}&resourceVersionMatch=Exact`,
      );
      assert.equal(stringAt(objectsAt(past.body, 'items')[0], 'data', 'v'), 'old');
      const future = await client.get(`${path}?resourceVersion=${Number(version) + 1_000_000}`);
      assert.equal(future.status, 504);
      assert.equal(future.body.reason, 'Timeout');
    },
  },
  {
    name: 'a watch from a resourceVersion sees every change after it, in order',
    run: async (client) => {
      const path = client.own('configmaps');
      const version = await versionNow(client);
      await client.post(path, configMap('w1', { v: '1' }));
      await client.patch(`${path}/w1`, mergePatch, { data: { v: '2' } });
      await client.delete(`${path}/w1`);
      const events = await client.watch(`${path}?resourceVersion=${version}&fieldSelector=metadata.name%3Dw1`, 3);
      assert.deepEqual(shown(events), ['ADDED w1', 'MODIFIED w1', 'DELETED w1']);
      const versions = events.map((event) => Number(stringAt(event, 'object', 'metadata', 'resourceVersion')));
      assert.deepEqual(
        versions,
        [...versions].sort((a, b) => a - b),
      );
      assert.ok((versions[2] ?? 0) > (versions[1] ?? 0), 'a deletion has a resourceVersion of its own');
    },
  },
  {
    name: 'a watch with a label selector shows objects entering and leaving it',
    run: async (client) => {
      const path = client.own('configmaps');
      await client.post(path, configMap('enter', {}, {}));
      const version = await versionNow(client);
      await client.patch(`${path}/enter`, mergePatch, { metadata: { labels: { seen: 'yes' } } });
      await client.patch(`${path}/enter`, mergePatch, { data: { a: 'b' } });
      await client.patch(`${path}/enter`, mergePatch, { metadata: { labels: { seen: null } } });
      const events = await client.watch(`${path}?resourceVersion=${version}&labelSelector=seen%3Dyes`, 3);
      assert.deepEqual(shown(events), ['ADDED enter', 'MODIFIED enter', 'DELETED enter']);
    },
  },
  {
    name: 'a watch without a resourceVersion begins with what is there and ends after timeoutSeconds',
    run: async (client) => {
      const path = client.own('configmaps');
      await client.post(path, configMap('there', {}, { initial: 'yes' }));
      const events = await client.watch(`${path}?labelSelector=initial%3Dyes&timeoutSeconds=1`, 99);
      assert.deepEqual(shown(events), ['ADDED there']);
    },
  },
  {
    name: 'a watch from before the history says 410 Expired',
    run: async (client) => {
      const events = await client
        .watch(`${client.own('configmaps')}?resourceVersion=1&timeoutSeconds=5`, 1)
        .catch(() => []);
      const [first] = events;
      // A server that still has all of its history may replay it instead.
      if (first?.type === 'ERROR') {
        assert.equal(valueAt(first, 'object', 'code'), 410);
        assert.equal(stringAt(first, 'object', 'reason'), 'Expired');
      } else assert.ok(first === undefined || first.type === 'ADDED' || first.type === 'MODIFIED');
    },
  },
  {
    name: 'tables for kubectl: pods and deployments have the real columns',
    run: async (client) => {
      await client.post(client.own('pods'), pod('tabular'));
      const columns = (body: JsonObject, wide: boolean): string[] =>
        objectsAt(body, 'columnDefinitions')
          .filter((column) => wide || column.priority === 0)
          .map((column) => stringAt(column, 'name') ?? '');
      const pods = await client.call('GET', client.own('pods'), { accept: tableAccept });
      assert.equal(pods.body.kind, 'Table');
      assert.deepEqual(columns(pods.body, true), [
        'Name',
        'Ready',
        'Status',
        'Restarts',
        'Age',
        'IP',
        'Node',
        'Nominated Node',
        'Readiness Gates',
      ]);
      const row = objectsAt(pods.body, 'rows').find(
        (item) => stringAt(item, 'object', 'metadata', 'name') === 'tabular',
      );
      const cells = valueAt(row, 'cells');
      assert.ok(isArray(cells));
      assert.deepEqual(
        cells.filter((_, index) => index !== 4).slice(0, 4),
        ['tabular', '0/1', 'Pending', '0'].map((cell) => cell),
      );
      assert.equal(stringAt(row, 'object', 'kind'), 'PartialObjectMetadata');
      await client.post(client.own('deployments', 'apps/v1'), deployment('tabular'));
      const deployments = await client.call('GET', client.own('deployments', 'apps/v1'), { accept: tableAccept });
      assert.deepEqual(columns(deployments.body, false), ['Name', 'Ready', 'Up-to-date', 'Available', 'Age']);
      const own = objectsAt(deployments.body, 'rows').find(
        (item) => stringAt(item, 'object', 'metadata', 'name') === 'tabular',
      );
      assert.deepEqual((valueAt(own, 'cells') as unknown[]).slice(0, 4), ['tabular', '0/2', 0, 0]);
    },
  },
  {
    name: 'the columns of every built-in kind are the real ones',
    run: async (client) => {
      const wanted: Readonly<Record<string, string>> = {
        '/api/v1/namespaces': 'Name Status Age',
        '/api/v1/nodes':
          'Name Status Roles Age Version Internal-IP External-IP OS-Image Kernel-Version Container-Runtime',
        '/api/v1/services': 'Name Type Cluster-IP External-IP Port(s) Age Selector',
        '/api/v1/configmaps': 'Name Data Age',
        '/api/v1/secrets': 'Name Type Data Age',
        '/api/v1/serviceaccounts': 'Name Secrets Age',
        '/api/v1/endpoints': 'Name Endpoints Age',
        '/api/v1/events': 'Last Seen Type Reason Object Subobject Source Message First Seen Count Name',
        '/apis/apps/v1/replicasets': 'Name Desired Current Ready Age Containers Images Selector',
        '/apis/apps/v1/statefulsets': 'Name Ready Age Containers Images',
        '/apis/apps/v1/daemonsets':
          'Name Desired Current Ready Up-to-date Available Node Selector Age Containers Images Selector',
        '/apis/batch/v1/jobs': 'Name Status Completions Duration Age Containers Images Selector',
        '/apis/batch/v1/cronjobs': 'Name Schedule Timezone Suspend Active Last Schedule Age Containers Images Selector',
        '/apis/discovery.k8s.io/v1/endpointslices': 'Name AddressType Ports Endpoints Age',
        '/apis/networking.k8s.io/v1/networkpolicies': 'Name Pod-Selector Age',
        '/apis/coordination.k8s.io/v1/leases': 'Name Holder Age',
        '/apis/apiextensions.k8s.io/v1/customresourcedefinitions': 'Name Created At',
      };
      for (const [path, columns] of Object.entries(wanted)) {
        const { body } = await client.call('GET', path, { accept: tableAccept });
        const found = objectsAt(body, 'columnDefinitions')
          .map((column) => stringAt(column, 'name'))
          .join(' ');
        assert.equal(found, columns, path);
      }
    },
  },
  {
    name: 'discovery names resources, short names, categories and subresources',
    run: async (client) => {
      const core = await client.get('/api/v1');
      const resource = (name: string) => objectsAt(core.body, 'resources').find((item) => item.name === name);
      assert.deepEqual(stringsAt(resource('pods'), 'shortNames'), ['po']);
      assert.deepEqual(stringsAt(resource('pods'), 'categories'), ['all']);
      assert.equal(resource('namespaces')?.namespaced, false);
      for (const name of ['pods/exec', 'pods/log', 'pods/status', 'pods/binding', 'pods/eviction', 'nodes/status']) {
        assert.notEqual(resource(name), undefined, name);
      }
      const groups = await client.get('/apis');
      const found = objectsAt(groups.body, 'groups').map((group) => group.name);
      for (const name of ['apps', 'networking.k8s.io', 'discovery.k8s.io', 'apiextensions.k8s.io'])
        assert.ok(found.includes(name), name);
      const aggregated = await client.call('GET', '/apis', {
        accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
      });
      assert.equal(aggregated.body.kind, 'APIGroupDiscoveryList');
    },
  },
  {
    name: 'OpenAPI v3 names the patch parameters and merge keys that kubectl apply relies on',
    run: async (client) => {
      const { body } = await client.get('/openapi/v3/apis/apps/v1');
      const patch = objectAt(body, 'paths', '/apis/apps/v1/namespaces/{namespace}/deployments/{name}', 'patch');
      assert.ok(objectsAt(patch, 'parameters').some((parameter) => parameter.name === 'fieldValidation'));
      assert.ok(
        Object.keys(objectAt(patch, 'requestBody', 'content') ?? {}).includes('application/strategic-merge-patch+json'),
      );
      const schemas = Object.entries(objectAt(body, 'components', 'schemas') ?? {});
      const podSpec = schemas.find(([name]) => name === 'PodSpec' || name.endsWith('.PodSpec'))?.[1];
      assert.equal(valueAt(podSpec, 'properties', 'containers', 'x-kubernetes-patch-merge-key'), 'name');
    },
  },
  {
    name: 'a wrong token answers 401, an unknown path 404, a wrong method 405',
    run: async (client) => {
      const wrong = await client.call('GET', '/api/v1/namespaces', { token: 'wrong' });
      assert.equal(wrong.status, 401);
      assert.equal(wrong.body.reason, 'Unauthorized');
      assert.equal((await client.get('/apis/no.such.group/v1/things')).status, 404);
      assert.equal((await client.put(client.own('configmaps'), configMap('x'))).status, 405);
    },
  },
];
