/** Contract: admission webhooks, served by a real HTTPS server of the test's own. */
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createCredentials } from '../api/credentials.ts';
import { objectAt, stringAt, valueAt, type Json, type JsonObject } from '../api/json.ts';
import { configMap, type ContractCase } from './case.ts';
import { mergePatch, type ContractClient } from './client.ts';

const registration = '/apis/admissionregistration.k8s.io/v1';

interface Webhook {
  readonly url: string;
  readonly caBundle: string;
  /** The AdmissionReview requests received so far. */
  readonly seen: JsonObject[];
  close(): Promise<void>;
}

type Respond = (request: JsonObject) => JsonObject;

async function serveWebhook(respond: Respond): Promise<Webhook> {
  const { caCert, serverCert, serverKey } = await createCredentials(Date.now());
  const seen: JsonObject[] = [];
  const server: Server = createServer({ key: serverKey, cert: serverCert }, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const review = JSON.parse(Buffer.concat(chunks).toString('utf8')) as JsonObject;
      const inner = objectAt(review, 'request') ?? {};
      seen.push(inner);
      const answer = { uid: inner.uid ?? '', ...respond(inner) };
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    caBundle: Buffer.from(caCert).toString('base64'),
    seen,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function configuration(
  client: ContractClient,
  kind: 'Mutating' | 'Validating',
  clientConfig: JsonObject,
  extra: JsonObject = {},
): JsonObject {
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: `${kind}WebhookConfiguration`,
    metadata: { name: client.namespace },
    webhooks: [
      {
        name: `hook.${client.namespace}.example.com`,
        clientConfig,
        rules: [
          {
            apiGroups: [''],
            apiVersions: ['v1'],
            resources: ['configmaps'],
            operations: ['CREATE', 'UPDATE', 'DELETE'],
          },
        ],
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': client.namespace } },
        sideEffects: 'None',
        admissionReviewVersions: ['v1'],
        timeoutSeconds: 5,
        ...extra,
      },
    ],
  };
}

/** Registers the webhook and waits until the server calls it: a real one needs a moment to notice. */
async function register(
  client: ContractClient,
  plural: string,
  body: JsonObject,
  active: () => Promise<boolean>,
): Promise<void> {
  const made = await client.post(`${registration}/${plural}`, body);
  assert.equal(made.status, 201, made.text);
  for (let round = 0; round < 100; round++) {
    if (await active()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail('the webhook was not called within 10 s');
}

async function probe(client: ContractClient): Promise<void> {
  await client.post(`${client.own('configmaps')}?dryRun=All`, configMap('probe'));
}

const encodePatch = (operations: Json): string => Buffer.from(JSON.stringify(operations)).toString('base64');

export const admissionCases: readonly ContractCase[] = [
  {
    name: "a mutating webhook's JSON patch is applied and its warnings become headers",
    run: async (client) => {
      const webhook = await serveWebhook(() => ({
        allowed: true,
        patchType: 'JSONPatch',
        patch: encodePatch([{ op: 'add', path: '/data/by', value: 'webhook' }]),
        warnings: ['looked at it'],
      }));
      try {
        const body = configuration(client, 'Mutating', { url: webhook.url, caBundle: webhook.caBundle });
        await register(client, 'mutatingwebhookconfigurations', body, async () => {
          await probe(client);
          return webhook.seen.length > 0;
        });
        const made = await client.post(client.own('configmaps'), configMap('mutated', { a: 'b' }));
        assert.deepEqual(made.body.data, { a: 'b', by: 'webhook' });
        assert.equal(made.headers.warning, '299 - "looked at it"');
        const last = webhook.seen.at(-1);
        assert.equal(last?.operation, 'CREATE');
        assert.deepEqual(last?.resource, { group: '', version: 'v1', resource: 'configmaps' });
        assert.equal(last?.namespace, client.namespace);
        assert.equal(stringAt(last, 'object', 'data', 'a'), 'b');
        assert.equal(last?.oldObject, null);
      } finally {
        await client.delete(`${registration}/mutatingwebhookconfigurations/${client.namespace}`);
        await webhook.close();
      }
    },
  },
  {
    name: 'a validating webhook denies with its own code and message, sees old objects, and is asked about deletions',
    run: async (client) => {
      const webhook = await serveWebhook((request) => {
        const bad =
          stringAt(request, 'object', 'data', 'bad') !== undefined ||
          (request.name === 'keep-me' && request.operation === 'DELETE');
        return bad
          ? { allowed: false, status: { code: 422, message: 'data.bad is not allowed', reason: 'Invalid' } }
          : { allowed: true };
      });
      try {
        await client.post(client.own('configmaps'), configMap('keep-me', { v: '1' }));
        const body = configuration(client, 'Validating', { url: webhook.url, caBundle: webhook.caBundle });
        await register(client, 'validatingwebhookconfigurations', body, async () => {
          await probe(client);
          return webhook.seen.length > 0;
        });
        const denied = await client.post(client.own('configmaps'), configMap('denied', { bad: 'x' }));
        assert.equal(denied.status, 422);
        assert.match(
          stringAt(denied.body, 'message') ?? '',
          /^admission webhook "hook\.contract-\w+\.example\.com" denied the request: data\.bad is not allowed$/,
        );
        const path = `${client.own('configmaps')}/keep-me`;
        await client.patch(path, mergePatch, { data: { v: '2' } });
        const update = webhook.seen.at(-1);
        assert.equal(update?.operation, 'UPDATE');
        assert.equal(valueAt(update, 'oldObject', 'data', 'v'), '1');
        assert.equal(valueAt(update, 'object', 'data', 'v'), '2');
        assert.equal((await client.delete(path)).status, 422);
        assert.equal((await client.get(path)).status, 200);
      } finally {
        await client.delete(`${registration}/validatingwebhookconfigurations/${client.namespace}`);
        await webhook.close();
      }
    },
  },
  {
    name: 'a webhook that cannot be reached fails the request, or is ignored if its failurePolicy says so',
    run: async (client) => {
      const webhook = await serveWebhook(() => ({ allowed: true }));
      await webhook.close();
      const own = `${registration}/validatingwebhookconfigurations/${client.namespace}`;
      const broken = { url: webhook.url, caBundle: webhook.caBundle };
      try {
        let status = 0;
        let message = '';
        await register(
          client,
          'validatingwebhookconfigurations',
          configuration(client, 'Validating', broken),
          async () => {
            const answer = await client.post(`${client.own('configmaps')}?dryRun=All`, configMap('probe'));
            ({ status } = answer);
            message = stringAt(answer.body, 'message') ?? '';
            return status === 500;
          },
        );
        assert.match(
          message,
          /failed calling webhook "hook\.contract-\w+\.example\.com": failed to call webhook: Post "https:\/\/127\.0\.0\.1:\d+\/hook\?timeout=5s"/,
        );
        await client.patch(own, mergePatch, configuration(client, 'Validating', broken, { failurePolicy: 'Ignore' }));
        for (let round = 0; status !== 201 && round < 50; round++) {
          ({ status } = await client.post(`${client.own('configmaps')}?dryRun=All`, configMap('probe')));
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        assert.equal(status, 201);
      } finally {
        await client.delete(own);
      }
    },
  },
];
