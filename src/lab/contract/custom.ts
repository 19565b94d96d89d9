/** Contract: CustomResourceDefinitions and their resources. */
import assert from 'node:assert/strict';
import { objectsAt, stringAt, stringsAt, valueAt, type JsonObject, textOf } from '../api/json.ts';
import type { ContractCase } from './case.ts';
import { mergePatch, tableAccept, type ContractClient } from './client.ts';

const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';

/** A group of the run's own, because definitions are cluster-wide. */
const groupOf = (client: ContractClient): string => `${client.namespace}.example.com`;
const gadgets = (client: ContractClient): string => client.own('gadgets', `${groupOf(client)}/v1`);

function gadgetDefinition(client: ContractClient): JsonObject {
  const group = groupOf(client);
  const schema = {
    type: 'object',
    required: ['spec'],
    properties: {
      spec: {
        type: 'object',
        required: ['size'],
        properties: {
          size: { type: 'integer', minimum: 1, maximum: 10 },
          color: { type: 'string', enum: ['red', 'green'], default: 'red' },
          replicas: { type: 'integer' },
          parts: {
            type: 'array',
            items: { type: 'object', required: ['id'], properties: { id: { type: 'string', pattern: '^[a-z]+$' } } },
          },
          free: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
        },
      },
      status: { type: 'object', properties: { replicas: { type: 'integer' }, phase: { type: 'string' } } },
    },
  };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `gadgets.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { plural: 'gadgets', kind: 'Gadget', shortNames: ['gd'], categories: ['all'] },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: { openAPIV3Schema: schema as never },
          subresources: {
            status: {},
            scale: { specReplicasPath: '.spec.replicas', statusReplicasPath: '.status.replicas' },
          },
          additionalPrinterColumns: [
            { name: 'Size', type: 'integer', jsonPath: '.spec.size' },
            { name: 'Color', type: 'string', jsonPath: '.spec.color', priority: 1 },
          ],
        },
      ],
    },
  };
}

function gadget(client: ContractClient, name: string, spec: JsonObject): JsonObject {
  return { apiVersion: `${groupOf(client)}/v1`, kind: 'Gadget', metadata: { name }, spec };
}

async function define(client: ContractClient): Promise<void> {
  const made = await client.post(definitions, gadgetDefinition(client));
  assert.ok(made.status === 201 || made.status === 409, made.text);
  const path = `${definitions}/gadgets.${groupOf(client)}`;
  for (let round = 0; round < 100; round++) {
    const { body } = await client.get(path);
    const established = objectsAt(body, 'status', 'conditions').some(
      (item) => item.type === 'Established' && item.status === 'True',
    );
    if (established && (await client.get(gadgets(client))).status === 200) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail('the definition was not established within 10 s');
}

export const customCases: readonly ContractCase[] = [
  {
    name: 'a definition becomes Established and its resources appear in discovery',
    run: async (client) => {
      await define(client);
      const { body } = await client.get(`/apis/${groupOf(client)}/v1`);
      const entry = objectsAt(body, 'resources').find((item) => item.name === 'gadgets');
      assert.deepEqual(stringsAt(entry, 'shortNames'), ['gd']);
      assert.equal(entry?.singularName, 'gadget');
      assert.ok(objectsAt(body, 'resources').some((item) => item.name === 'gadgets/scale'));
    },
  },
  {
    name: 'custom resources are defaulted and pruned, and keep free-form parts',
    run: async (client) => {
      await define(client);
      const made = await client.post(
        `${gadgets(client)}?fieldValidation=Ignore`,
        gadget(client, 'pruned', { size: 3, extra: 'x', free: { a: { b: 1 } } }),
      );
      assert.equal(made.status, 201);
      assert.deepEqual(made.body.spec, { size: 3, color: 'red', free: { a: { b: 1 } } });
      const strict = await client.post(
        `${gadgets(client)}?fieldValidation=Strict`,
        gadget(client, 'strict', { size: 3, extra: 'x' }),
      );
      assert.equal(strict.status, 400);
      assert.match(stringAt(strict.body, 'message') ?? '', /strict decoding error: unknown field "spec\.extra"/);
    },
  },
  {
    name: 'custom resources are validated against their schema',
    run: async (client) => {
      await define(client);
      const causes = async (spec: JsonObject) => {
        const answer = await client.post(gadgets(client), gadget(client, 'invalid', spec));
        assert.equal(answer.status, 422, answer.text);
        return objectsAt(answer.body, 'details', 'causes')
          .map((cause) => `${textOf(cause.reason)} ${textOf(cause.field)}`)
          .sort();
      };
      assert.deepEqual(await causes({}), ['FieldValueRequired spec.size']);
      assert.deepEqual(await causes({ size: 99 }), ['FieldValueInvalid spec.size']);
      assert.deepEqual(await causes({ size: 1, color: 'blue' }), ['FieldValueNotSupported spec.color']);
      assert.deepEqual(await causes({ size: 1, parts: [{}, { id: 'A' }] }), [
        'FieldValueInvalid spec.parts[1].id',
        'FieldValueRequired spec.parts[0].id',
      ]);
      assert.ok((await causes({ size: 'big' })).includes('FieldValueTypeInvalid spec.size'));
    },
  },
  {
    name: "a custom resource's status is its own subresource and generation follows the spec",
    run: async (client) => {
      await define(client);
      const made = await client.post(gadgets(client), {
        ...gadget(client, 'status', { size: 1 }),
        status: { phase: 'X' },
      });
      assert.equal(made.body.status, undefined);
      const path = `${gadgets(client)}/status`;
      const status = await client.patch(`${path}/status`, mergePatch, {
        status: { phase: 'Ready', replicas: 2 },
        spec: { size: 9 },
      });
      assert.equal(stringAt(status.body, 'status', 'phase'), 'Ready');
      assert.equal(valueAt(status.body, 'spec', 'size'), 1);
      assert.equal(valueAt(status.body, 'metadata', 'generation'), 1);
      const spec = await client.patch(path, mergePatch, { spec: { size: 2 }, status: { phase: 'No' } });
      assert.equal(valueAt(spec.body, 'metadata', 'generation'), 2);
      assert.equal(stringAt(spec.body, 'status', 'phase'), 'Ready');
      const scaled = await client.patch(`${path}/scale`, mergePatch, { spec: { replicas: 4 } });
      assert.equal(valueAt(scaled.body, 'spec', 'replicas'), 4);
      assert.equal(valueAt((await client.get(path)).body, 'spec', 'replicas'), 4);
    },
  },
  {
    name: 'tables of custom resources have the printer columns',
    run: async (client) => {
      await define(client);
      await client.post(gadgets(client), gadget(client, 'printed', { size: 7 }));
      const { body } = await client.call('GET', `${gadgets(client)}/printed`, { accept: tableAccept });
      assert.deepEqual(
        objectsAt(body, 'columnDefinitions').map((column) => column.name),
        ['Name', 'Size', 'Color'],
      );
      assert.deepEqual(valueAt(objectsAt(body, 'rows')[0], 'cells'), ['printed', 7, 'red']);
    },
  },
  {
    name: 'custom resources take no strategic merge patch (415)',
    run: async (client) => {
      await define(client);
      await client.post(gadgets(client), gadget(client, 'patch', { size: 1 }));
      const answer = await client.patch(`${gadgets(client)}/patch`, 'application/strategic-merge-patch+json', {
        spec: { size: 2 },
      });
      assert.equal(answer.status, 415);
    },
  },
  {
    name: 'a definition without a schema, or with a wrong name, answers 422',
    run: async (client) => {
      const good = gadgetDefinition(client);
      const renamed = await client.post(definitions, { ...good, metadata: { name: 'gadgets.other.example.com' } });
      assert.equal(renamed.status, 422);
      assert.ok(objectsAt(renamed.body, 'details', 'causes').some((cause) => cause.field === 'metadata.name'));
    },
  },
];
