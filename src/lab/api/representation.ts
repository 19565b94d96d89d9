/** What form an answer takes: the object, a Table for kubectl, or only its metadata. */
import { encodeStored, type Json, type JsonObject, type KubeObject } from './json.ts';
import { apiVersionOf, type Column, type Resource } from './resource.ts';
import { ApiError } from './status.ts';

export type Representation = 'object' | 'table' | 'metadata';
export type IncludeObject = 'None' | 'Metadata' | 'Object';

/** The first form of the Accept header this server can give. */
export function negotiate(accept: string | undefined): Representation {
  if (accept === undefined || accept.trim() === '') return 'object';
  for (const part of accept.split(',')) {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim());
    const wanted = parameters.find((text) => text.startsWith('as='))?.slice(3);
    const json = type === 'application/json' || type === '*/*' || type === 'application/*';
    if (!json) continue;
    if (wanted === undefined) return 'object';
    if (wanted === 'Table') return 'table';
    if (wanted === 'PartialObjectMetadata' || wanted === 'PartialObjectMetadataList') return 'metadata';
  }
  throw new ApiError(
    406,
    'NotAcceptable',
    'only the following media types are accepted: application/json, application/json;stream=watch',
  );
}

const fallbackColumns: readonly Column[] = [
  { name: 'Name', type: 'string', format: 'name', priority: 0 },
  { name: 'Created At', type: 'date', priority: 0 },
];

export function encodeObject(
  resource: Resource,
  object: KubeObject,
  form: Representation,
  include: IncludeObject,
  nowMs: number,
): string {
  switch (form) {
    case 'object':
      return encodeStored(object);
    case 'metadata':
      return JSON.stringify(partial(object));
    case 'table':
      return encodeTable(
        resource,
        [object],
        include,
        nowMs,
        { resourceVersion: object.metadata.resourceVersion ?? '' },
        true,
      );
  }
}

export function encodeList(
  resource: Resource,
  objects: readonly KubeObject[],
  form: Representation,
  include: IncludeObject,
  nowMs: number,
  listMeta: JsonObject,
): string {
  if (form === 'table') return encodeTable(resource, objects, include, nowMs, listMeta, true);
  const items = objects.map((object) => (form === 'metadata' ? JSON.stringify(partial(object)) : encodeStored(object)));
  const head =
    form === 'metadata'
      ? { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata: listMeta }
      : { kind: resource.listKind, apiVersion: apiVersionOf(resource), metadata: listMeta };
  return `${JSON.stringify(head).slice(0, -1)},"items":[${items.join(',')}]}`;
}

export function encodeTable(
  resource: Resource,
  objects: readonly KubeObject[],
  include: IncludeObject,
  nowMs: number,
  listMeta: JsonObject,
  withColumns: boolean,
): string {
  const columns = tableColumns(resource);
  const rows = objects.map((object) => {
    const cells = JSON.stringify(tableCells(resource, object, nowMs));
    if (include === 'None') return `{"cells":${cells},"object":null}`;
    const embedded = include === 'Object' ? encodeStored(object) : JSON.stringify(partial(object));
    return `{"cells":${cells},"object":${embedded}}`;
  });
  const definitions = withColumns
    ? columns.map((column) => ({ format: '', description: '', ...column }) satisfies JsonObject)
    : null;
  const head = JSON.stringify({
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: listMeta,
    columnDefinitions: definitions,
  });
  return `${head.slice(0, -1)},"rows":[${rows.join(',')}]}`;
}

function tableColumns(resource: Resource): readonly Column[] {
  const own = resource.behaviour.columns;
  if (own === undefined) return fallbackColumns;
  return own[0]?.name === 'Name' || ownFirst(resource)
    ? own
    : [{ name: 'Name', type: 'string', format: 'name', priority: 0 }, ...own];
}

/** Event tables begin with "Last Seen" and have their name as the last, wide column. */
function ownFirst(resource: Resource): boolean {
  return resource.bucket === '/events';
}

function tableCells(resource: Resource, object: KubeObject, nowMs: number): Json[] {
  const { columns, cells } = resource.behaviour;
  if (columns === undefined || cells === undefined)
    return [object.metadata.name, object.metadata.creationTimestamp ?? ''];
  const own = cells(object, nowMs);
  return columns[0]?.name === 'Name' || ownFirst(resource) ? own : [object.metadata.name, ...own];
}

function partial(object: KubeObject): JsonObject {
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata };
}
