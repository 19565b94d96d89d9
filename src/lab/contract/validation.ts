/** Contract: defaults and the errors people meet. */
import assert from 'node:assert/strict';
import { numberAt, objectsAt, stringAt, valueAt, textOf } from '../api/json.ts';
import { deployment, pod, type ContractCase } from './case.ts';
import { mergePatch } from './client.ts';

const fields = (body: Parameters<typeof objectsAt>[0]): string[] =>
  objectsAt(body, 'details', 'causes')
    .map((cause) => `${textOf(cause.reason)} ${textOf(cause.field)}`)
    .sort();

export const validationCases: readonly ContractCase[] = [
  {
    name: 'a pod gets its defaults',
    run: async (client) => {
      const { body } = await client.post(client.own('pods'), pod('defaults'));
      const container = objectsAt(body, 'spec', 'containers')[0];
      assert.equal(stringAt(body, 'spec', 'restartPolicy'), 'Always');
      assert.equal(stringAt(body, 'spec', 'dnsPolicy'), 'ClusterFirst');
      assert.equal(stringAt(body, 'spec', 'schedulerName'), 'default-scheduler');
      assert.equal(numberAt(body, 'spec', 'terminationGracePeriodSeconds'), 30);
      assert.equal(valueAt(body, 'spec', 'enableServiceLinks'), true);
      assert.equal(stringAt(container, 'imagePullPolicy'), 'IfNotPresent');
      assert.equal(stringAt(container, 'terminationMessagePath'), '/dev/termination-log');
      assert.equal(stringAt(objectsAt(container, 'ports')[0], 'protocol'), 'TCP');
      assert.deepEqual(body.status, { phase: 'Pending', qosClass: 'BestEffort' });
    },
  },
  {
    name: 'a deployment gets its defaults',
    run: async (client) => {
      const { body } = await client.post(client.own('deployments', 'apps/v1'), deployment('defaults'));
      assert.deepEqual(valueAt(body, 'spec', 'strategy'), {
        type: 'RollingUpdate',
        rollingUpdate: { maxUnavailable: '25%', maxSurge: '25%' },
      });
      assert.equal(numberAt(body, 'spec', 'revisionHistoryLimit'), 10);
      assert.equal(numberAt(body, 'spec', 'progressDeadlineSeconds'), 600);
      assert.deepEqual(body.status, {});
    },
  },
  {
    name: 'a service gets a cluster IP that stays; a headless one gets none',
    run: async (client) => {
      const service = (name: string, extra: object) => ({
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name },
        spec: { ports: [{ port: 80 }], ...extra } as never,
      });
      const { body } = await client.post(client.own('services'), service('plain', {}));
      const address = stringAt(body, 'spec', 'clusterIP') ?? '';
      assert.match(address, /^10\.96\.\d+\.\d+$/);
      assert.deepEqual(valueAt(body, 'spec', 'clusterIPs'), [address]);
      assert.equal(objectsAt(body, 'spec', 'ports')[0]?.targetPort, 80);
      assert.equal(stringAt(body, 'spec', 'sessionAffinity'), 'None');
      const moved = await client.patch(`${client.own('services')}/plain`, mergePatch, {
        spec: { clusterIP: '10.96.99.99', clusterIPs: null },
      });
      assert.equal(moved.status, 422);
      const headless = await client.post(client.own('services'), service('headless', { clusterIP: 'None' }));
      assert.equal(stringAt(headless.body, 'spec', 'clusterIP'), 'None');
      assert.equal((await client.post(client.own('services'), service('2bad', {}))).status, 422);
    },
  },
  {
    name: 'a network policy gets its policy types and protocols',
    run: async (client) => {
      const policy = (name: string, spec: object) => ({
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name },
        spec: spec as never,
      });
      const path = client.own('networkpolicies', 'networking.k8s.io/v1');
      const { body } = await client.post(
        path,
        policy('both', { podSelector: {}, egress: [{ ports: [{ port: 53 }] }] }),
      );
      assert.deepEqual(valueAt(body, 'spec', 'policyTypes'), ['Ingress', 'Egress']);
      assert.equal(objectsAt(objectsAt(body, 'spec', 'egress')[0], 'ports')[0]?.protocol, 'TCP');
      const plain = await client.post(path, policy('plain', { podSelector: {} }));
      assert.deepEqual(valueAt(plain.body, 'spec', 'policyTypes'), ['Ingress']);
      const bad = await client.post(
        path,
        policy('bad', {
          podSelector: {},
          ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/24'] } }, {}] }],
        }),
      );
      assert.equal(bad.status, 422);
      assert.deepEqual(fields(bad.body), [
        'FieldValueInvalid spec.ingress[0].from[0].ipBlock.except[0]',
        'FieldValueRequired spec.ingress[0].from[1]',
      ]);
    },
  },
  {
    name: 'an invalid pod answers 422 with one cause per mistake',
    run: async (client) => {
      const answer = await client.post(client.own('pods'), {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'bad' },
        spec: {
          containers: [
            { image: 'a', ports: [{ containerPort: 99_999 }] },
            { name: 'ok', image: 'a', volumeMounts: [{ name: 'none', mountPath: '/x' }] },
          ],
        },
      });
      assert.equal(answer.status, 422);
      assert.equal(answer.body.reason, 'Invalid');
      assert.deepEqual(fields(answer.body), [
        'FieldValueInvalid spec.containers[0].ports[0].containerPort',
        'FieldValueNotFound spec.containers[1].volumeMounts[0].name',
        'FieldValueRequired spec.containers[0].name',
      ]);
      assert.match(
        stringAt(answer.body, 'message') ?? '',
        /^Pod "bad" is invalid: \[spec\.containers\[0\]\.name: Required value, /,
      );
    },
  },
  {
    name: 'an invalid name is refused with the rule it breaks',
    run: async (client) => {
      const answer = await client.post(client.own('pods'), pod('Bad_Name'));
      assert.equal(answer.status, 422);
      assert.deepEqual(fields(answer.body), ['FieldValueInvalid metadata.name']);
      assert.match(stringAt(answer.body, 'message') ?? '', /a lowercase RFC 1123 subdomain must consist of/);
    },
  },
  {
    name: "a deployment's selector must match its template and cannot change",
    run: async (client) => {
      const path = client.own('deployments', 'apps/v1');
      const wrong = deployment('selector');
      const refused = await client.post(path, {
        ...wrong,
        spec: { ...(wrong.spec as object), selector: { matchLabels: { other: 'x' } } },
      });
      assert.deepEqual(fields(refused.body), ['FieldValueInvalid spec.template.metadata.labels']);
      await client.post(path, wrong);
      const changed = await client.patch(`${path}/selector`, mergePatch, {
        spec: { selector: { matchLabels: { more: 'x' } }, template: { metadata: { labels: { more: 'x' } } } },
      });
      assert.equal(changed.status, 422);
      assert.ok(fields(changed.body).includes('FieldValueInvalid spec.selector'));
    },
  },
  {
    name: "a pod's spec cannot change except for images",
    run: async (client) => {
      await client.post(client.own('pods'), pod('fixed'));
      const path = `${client.own('pods')}/fixed`;
      assert.equal((await client.patch(path, mergePatch, { spec: { hostNetwork: true } })).status, 422);
      const image = await client.call('PATCH', path, {
        contentType: 'application/strategic-merge-patch+json',
        body: { spec: { containers: [{ name: 'main', image: 'example/main:2' }] } },
      });
      assert.equal(image.status, 200);
      assert.equal(stringAt(objectsAt(image.body, 'spec', 'containers')[0], 'image'), 'example/main:2');
    },
  },
  {
    name: 'fieldValidation: Strict refuses unknown fields, Warn warns, Ignore drops them silently',
    run: async (client) => {
      const unknown = (name: string) => ({ ...pod(name), spec: { ...(pod(name).spec as object), nodeNam: 'x' } });
      const strict = await client.post(`${client.own('pods')}?fieldValidation=Strict`, unknown('strict'));
      assert.equal(strict.status, 400);
      assert.equal(
        strict.body.message,
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.nodeNam"',
      );
      const warned = await client.post(`${client.own('pods')}?fieldValidation=Warn`, unknown('warn'));
      assert.equal(warned.status, 201);
      assert.equal(warned.headers.warning, '299 - "unknown field \\"spec.nodeNam\\""');
      const ignored = await client.post(`${client.own('pods')}?fieldValidation=Ignore`, unknown('ignore'));
      assert.equal(ignored.status, 201);
      assert.equal(ignored.headers.warning, undefined);
      assert.equal(valueAt(ignored.body, 'spec', 'nodeNam'), undefined);
    },
  },
  {
    name: 'a value of the wrong type answers 400',
    run: async (client) => {
      const bad = deployment('types');
      const answer = await client.post(client.own('deployments', 'apps/v1'), {
        ...bad,
        spec: { ...(bad.spec as object), replicas: 'two' },
      });
      assert.equal(answer.status, 400);
      assert.match(
        stringAt(answer.body, 'message') ?? '',
        /cannot unmarshal string into Go struct field DeploymentSpec\.spec\.replicas of type int32/,
      );
    },
  },
  {
    name: 'secrets take stringData and answer data',
    run: async (client) => {
      const { body } = await client.post(client.own('secrets'), {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 's' },
        stringData: { a: 'text' },
      });
      assert.deepEqual(body.data, { a: 'dGV4dA==' });
      assert.equal(body.stringData, undefined);
      assert.equal(body.type, 'Opaque');
    },
  },
];
