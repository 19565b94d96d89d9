/** OpenAPI v3 documents from the type table and the schemas of custom resources: what `kubectl explain` and validation read. */
import type { JsonObject } from './json.ts';
import { apiVersionOf, type Resource } from './resource.ts';
import type { Registry } from './registry.ts';
import { typeTable } from './schema/table.ts';
import type { FieldSpec, FieldType, ScalarType } from './schema/types.ts';
import { groupVersions, versionInfo } from './discovery.ts';
import { patchTypes } from './patch.ts';

/** /openapi/v3: where the documents are. The hash lets clients cache them. */
export function openapiIndex(registry: Registry): JsonObject {
  const paths: JsonObject = {};
  for (const groupVersion of groupVersions(registry)) {
    const path = groupVersion.includes('/') ? `apis/${groupVersion}` : `api/${groupVersion}`;
    paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${registry.revision}-${process.pid}` };
  }
  return { paths };
}

export function openapiDocument(registry: Registry, group: string, version: string): JsonObject | undefined {
  const resources = registry.all().filter((item) => item.group === group && item.version === version);
  if (resources.length === 0) return undefined;
  const schemas: JsonObject = {};
  const paths: JsonObject = {};
  for (const resource of resources) {
    const name = schemaName(resource);
    addRoot(schemas, resource, name);
    Object.assign(paths, pathsOf(resource, name));
  }
  return {
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: versionInfo.gitVersion },
    paths,
    components: { schemas },
  };
}

function schemaName(resource: Resource): string {
  return `${resource.group === '' ? 'core' : resource.group}.${resource.version}.${resource.kind}`;
}

function addRoot(schemas: JsonObject, resource: Resource, name: string): void {
  const gvk = [{ group: resource.group, version: resource.version, kind: resource.kind }];
  if (resource.typeName !== undefined) {
    addType(schemas, resource.typeName);
    schemas[name] = { ...(schemas[resource.typeName] as JsonObject), 'x-kubernetes-group-version-kind': gvk };
    return;
  }
  addType(schemas, 'ObjectMeta');
  const properties = {
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    ...(resource.schema?.properties as JsonObject | undefined),
    metadata: { allOf: [{ $ref: reference('ObjectMeta') }] },
  };
  schemas[name] = { type: 'object', ...resource.schema, properties, 'x-kubernetes-group-version-kind': gvk };
}

function addType(schemas: JsonObject, typeName: string): void {
  if (schemas[typeName] !== undefined) return;
  const type = typeTable.get(typeName);
  if (type === undefined) return;
  const properties: JsonObject = {};
  const required = [...type.fields].filter(([, spec]) => spec.required).map(([name]) => name);
  schemas[typeName] = { type: 'object', properties, ...(required.length > 0 ? { required } : {}) };
  for (const [name, spec] of type.fields) properties[name] = property(schemas, spec);
}

function property(schemas: JsonObject, spec: FieldSpec): JsonObject {
  const schema = typeSchema(schemas, spec.type);
  const strategies = [
    ...(spec.type.kind === 'list' && (spec.type.mergeKey !== undefined || spec.type.mergeSet === true)
      ? ['merge']
      : []),
    ...(spec.retainKeys ? ['retainKeys'] : []),
  ];
  if (strategies.length > 0) schema['x-kubernetes-patch-strategy'] = strategies.join(',');
  if (spec.type.kind === 'list' && spec.type.mergeKey !== undefined)
    schema['x-kubernetes-patch-merge-key'] = spec.type.mergeKey;
  return schema;
}

function typeSchema(schemas: JsonObject, type: FieldType): JsonObject {
  switch (type.kind) {
    case 'ref':
      addType(schemas, type.name);
      return { allOf: [{ $ref: reference(type.name) }] };
    case 'list':
      return { type: 'array', items: typeSchema(schemas, type.items) };
    case 'map':
      return { type: 'object', additionalProperties: typeSchema(schemas, type.values) };
    case 'scalar':
      return { ...scalarSchemas[type.scalar] };
  }
}

const scalarSchemas: Readonly<Record<ScalarType, JsonObject>> = {
  string: { type: 'string' },
  boolean: { type: 'boolean' },
  int32: { type: 'integer', format: 'int32' },
  int64: { type: 'integer', format: 'int64' },
  quantity: { oneOf: [{ type: 'string' }, { type: 'number' }] },
  intOrString: { format: 'int-or-string', oneOf: [{ type: 'integer' }, { type: 'string' }] },
  time: { type: 'string', format: 'date-time' },
  microTime: { type: 'string', format: 'date-time' },
  bytes: { type: 'string', format: 'byte' },
  any: { type: 'object' },
};

function reference(name: string): string {
  return `#/components/schemas/${name}`;
}

/** One path per resource with its write operations: kubectl looks there for the parameters and patch types it may use. */
function pathsOf(resource: Resource, name: string): JsonObject {
  const root = resource.group === '' ? `/api/${resource.version}` : `/apis/${apiVersionOf(resource)}`;
  const collection = `${root}${resource.namespaced ? '/namespaces/{namespace}' : ''}/${resource.plural}`;
  const schema = { $ref: reference(name) };
  const answer = { responses: { '200': { description: 'OK', content: { 'application/json': { schema } } } } };
  const body = { content: { '*/*': { schema } }, required: true };
  const gvk = { group: resource.group, version: resource.version, kind: resource.kind };
  const operation = (action: string, extra: JsonObject = {}): JsonObject => ({
    ...answer,
    ...extra,
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': gvk,
  });
  const parameters = ['dryRun', 'fieldManager', 'fieldValidation'].map((parameter) => ({
    name: parameter,
    in: 'query',
    schema: { type: 'string', uniqueItems: true },
  }));
  const patches = patchTypes.filter((type) => resource.typeName !== undefined || !type.includes('strategic'));
  const patchBody = {
    required: true,
    content: Object.fromEntries(patches.map((type) => [type, { schema: { type: 'object' } }])),
  };
  return {
    [collection]: { get: operation('list'), post: operation('post', { parameters, requestBody: body }) },
    [`${collection}/{name}`]: {
      get: operation('get'),
      put: operation('put', { parameters, requestBody: body }),
      patch: operation('patch', { parameters, requestBody: patchBody }),
      delete: operation('delete'),
    },
  };
}
