import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Pod } from '../api/kubernetes.ts';
import { namespaces, pods, resourcePath, spiderIPPools } from '../api/resources.ts';
import { SluiceError, type ErrorCode } from '../core/error.ts';
import { createKubeClient, type KubeClient } from './client.ts';
import type { KubeError } from './error.ts';
import { isAlreadyExists, isConflict, isNotFound } from './error.ts';
import { TestApi, type TestAnswer } from './test-api.ts';

describe('KubeClient', () => {
  let api: TestApi;
  let client: KubeClient;
  const warnings: string[] = [];

  beforeEach(async () => {
    api = await TestApi.start();
    client = createKubeClient(api.kubeConfig, { onWarning: (warning) => warnings.push(warning), timeoutMs: 2000 });
    warnings.length = 0;
  });
  afterEach(async () => {
    client.close();
    await api[Symbol.asyncDispose]();
  });

  const ref = { namespace: 'demo', name: 'web-1' };
  const pod: Pod = { metadata: { ...ref, resourceVersion: '7' } };

  const calls: [
    name: string,
    call: (client: KubeClient) => Promise<unknown>,
    method: string,
    url: string,
    contentType: string | undefined,
    body: unknown,
  ][] = [
    ['get', (c) => c.get(pods, ref), 'GET', '/api/v1/namespaces/demo/pods/web-1', undefined, undefined],
    [
      'list in a namespace',
      (c) => c.list(pods, { namespace: 'demo', labelSelector: 'a=b,c', limit: 5 }),
      'GET',
      '/api/v1/namespaces/demo/pods?labelSelector=a%3Db%2Cc&limit=5',
      undefined,
      undefined,
    ],
    ['list in all', (c) => c.list(pods), 'GET', '/api/v1/pods', undefined, undefined],
    [
      'cluster-scoped, with a group',
      (c) => c.get(spiderIPPools, { name: 'p' }),
      'GET',
      '/apis/spiderpool.spidernet.io/v2beta1/spiderippools/p',
      undefined,
      undefined,
    ],
    [
      'create fills in the type',
      (c) => c.create(pods, pod),
      'POST',
      '/api/v1/namespaces/demo/pods',
      'application/json',
      { apiVersion: 'v1', kind: 'Pod', ...pod },
    ],
    [
      'create below an object',
      (c) => c.create(pods, pod, { subresource: 'binding' }),
      'POST',
      '/api/v1/namespaces/demo/pods/web-1/binding',
      'application/json',
      pod,
    ],
    [
      'replace',
      (c) => c.replace(pods, pod),
      'PUT',
      '/api/v1/namespaces/demo/pods/web-1',
      'application/json',
      { apiVersion: 'v1', kind: 'Pod', ...pod },
    ],
    [
      'replaceStatus',
      (c) => c.replaceStatus(pods, pod),
      'PUT',
      '/api/v1/namespaces/demo/pods/web-1/status',
      'application/json',
      { apiVersion: 'v1', kind: 'Pod', ...pod },
    ],
    [
      'merge patch',
      (c) => c.patch(pods, ref, { type: 'merge', body: { a: null } }),
      'PATCH',
      '/api/v1/namespaces/demo/pods/web-1',
      'application/merge-patch+json',
      { a: null },
    ],
    [
      'json patch of a subresource',
      (c) => c.patch(pods, ref, { type: 'json', body: [] }, { subresource: 'status', fieldManager: 'me' }),
      'PATCH',
      '/api/v1/namespaces/demo/pods/web-1/status?fieldManager=me',
      'application/json-patch+json',
      [],
    ],
    [
      'strategic patch',
      (c) => c.patch(pods, ref, { type: 'strategic', body: {} }, { dryRun: true }),
      'PATCH',
      '/api/v1/namespaces/demo/pods/web-1?dryRun=All',
      'application/strategic-merge-patch+json',
      {},
    ],
    [
      'delete',
      (c) => c.delete(namespaces, { name: 'demo' }, { propagationPolicy: 'Foreground' }),
      'DELETE',
      '/api/v1/namespaces/demo',
      'application/json',
      { kind: 'DeleteOptions', apiVersion: 'v1', propagationPolicy: 'Foreground' },
    ],
  ];
  for (const [name, call, method, url, contentType, body] of calls) {
    it(name, async () => {
      api.intercept = () => ({ body: { items: [] } });
      await call(client);
      const [seen] = api.requests;
      const query = seen?.query.toString() ?? '';
      assert.equal(`${seen?.method} ${seen?.path}${query === '' ? '' : `?${query}`}`, `${method} ${url}`);
      assert.equal(seen?.headers['content-type'], contentType);
      assert.deepEqual(seen?.body, body);
      assert.equal(seen?.headers.authorization, 'Bearer secret');
    });
  }

  it('reuses its connection', async () => {
    let sockets = 0;
    api.intercept = (request) => ({ body: { metadata: { name: String(request.headers.connection) } } });
    for (let i = 0; i < 3; i++) {
      const answer = await client.get<Pod>(pods, ref);
      if (answer.metadata?.name === 'keep-alive') sockets++;
    }
    assert.equal(sockets, 3);
  });

  it('lists every page, and gives list items their type', async () => {
    for (let i = 0; i < 1201; i++) api.put(`pod-${i}`);
    const list = await client.listAll<Pod>(pods);
    assert.equal(new Set(list.items.map(({ metadata }) => metadata?.name)).size, 1201);
    assert.equal(list.metadata?.resourceVersion, String(api.version));
    assert.deepEqual(
      api.requests.map(({ query }) => query.get('continue')),
      [null, '500', '1000'],
    );
    assert.equal(list.items[0]?.kind, 'Pod');
  });

  it('starts a list again in one piece when the continue token expires', async () => {
    for (let i = 0; i < 600; i++) api.put(`pod-${i}`);
    api.intercept = ({ query }) =>
      query.has('continue') ? { status: 410, body: { reason: 'Expired', code: 410 } } : undefined;
    assert.equal((await client.listAll(pods)).items.length, 600);
    assert.equal(api.requests.at(-1)?.query.get('limit'), null);
  });

  const failures: [name: string, answer: TestAnswer, code: ErrorCode, message: string][] = [
    [
      '401',
      { status: 401, body: { message: 'Unauthorized' } },
      'kube_unauthorized',
      'get Pod demo/web-1: Unauthorized',
    ],
    ['403', { status: 403, body: { message: 'no' } }, 'kube_forbidden', 'get Pod demo/web-1: no'],
    [
      '404',
      { status: 404, body: { message: 'pods "web-1" not found', reason: 'NotFound' } },
      'kube_not_found',
      'get Pod demo/web-1: pods "web-1" not found',
    ],
    [
      '409',
      { status: 409, body: { message: 'changed', reason: 'Conflict' } },
      'kube_conflict',
      'get Pod demo/web-1: changed',
    ],
    ['422', { status: 422, body: { message: 'bad', reason: 'Invalid' } }, 'kube_invalid', 'get Pod demo/web-1: bad'],
    [
      '429',
      { status: 429, body: {}, headers: { 'retry-after': '3' } },
      'kube_throttled',
      'get Pod demo/web-1: HTTP 429 {}',
    ],
    ['500 without a Status', { status: 500, body: 'oops' }, 'kube_server_error', 'get Pod demo/web-1: HTTP 500 oops'],
    [
      '200 with no JSON',
      { status: 200, body: '<html>' },
      'kube_bad_answer',
      'get Pod demo/web-1: the answer is not JSON',
    ],
    [
      '200 with no object',
      { status: 200, body: '[]' },
      'kube_bad_answer',
      'get Pod demo/web-1: the answer is not a Kubernetes object',
    ],
  ];
  for (const [name, answer, code, message] of failures) {
    it(`${name} is ${code}`, async () => {
      api.intercept = () => answer;
      await assert.rejects(client.get(pods, ref), (error) => {
        assert.ok(error instanceof SluiceError);
        assert.equal(error.code, code);
        assert.equal(error.message, message);
        return true;
      });
    });
  }

  it('tells kinds of 409 apart, and keeps the status', async () => {
    const failWith = async (body: object): Promise<KubeError> => {
      api.intercept = () => ({ status: 409, body, headers: { 'retry-after': '3' } });
      return (await client.create(pods, pod).catch((error: unknown) => error)) as KubeError;
    };
    const exists = await failWith({ reason: 'AlreadyExists', details: { causes: [{ field: 'a' }] } });
    assert.ok(isAlreadyExists(exists) && !isConflict(exists) && !isNotFound(exists));
    assert.deepEqual(exists.status.details?.causes, [{ field: 'a' }]);
    assert.equal(exists.retryAfterMs, 3000);
    assert.ok(isConflict(await failWith({ reason: 'Conflict' })));
  });

  it('hands on warnings', async () => {
    api.intercept = () => ({ headers: { warning: '299 - "first \\"quoted\\"", 299 - "second"' } });
    await client.get(pods, ref);
    assert.deepEqual(warnings, ['first "quoted"', 'second']);
  });

  it('asks again when a kept connection turns out closed, unless that could create twice', async () => {
    let resets = 0;
    await client.get(pods, ref);
    api.intercept = () => (resets++ === 0 ? 'reset' : undefined);
    await client.get(pods, ref);
    assert.equal(resets, 2);
    resets = 0;
    await client.replace(pods, pod);
    assert.equal(resets, 2);
    resets = 0;
    await assert.rejects(client.create(pods, pod), { code: 'kube_unreachable' });
    assert.equal(resets, 1);
  });

  it('says who could not be reached', async () => {
    await api[Symbol.asyncDispose]();
    await assert.rejects(client.get(pods, ref), (error) => {
      assert.ok(error instanceof SluiceError);
      assert.equal(error.code, 'kube_unreachable');
      assert.match(error.message, /^get Pod demo\/web-1: no answer from http:\/\/127\.0\.0\.1:\d+$/);
      assert.match((error.cause as Error).message, /ECONNREFUSED/);
      return true;
    });
    api = await TestApi.start();
  });

  it('stops when asked to', async () => {
    await assert.rejects(client.get(pods, ref, { signal: AbortSignal.abort() }), { code: 'cancelled' });
  });
});

describe('resourcePath', () => {
  it('escapes what is no path', () => {
    assert.equal(resourcePath(pods, { namespace: 'a/b', name: '../c' }), '/api/v1/namespaces/a%2Fb/pods/..%2Fc');
  });
});
