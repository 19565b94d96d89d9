/** Namespace, Node, ConfigMap, Secret, ServiceAccount and Lease. */
import { age } from '../age.ts';
import { boolAt, isObject, objectAt, objectsAt, setDefault, stringAt, textOf } from '../json.ts';
import type { Json, KubeObject } from '../json.ts';
import { configMapKey, dns1123Label } from '../names.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import { columns } from './columns.ts';

/** The label every namespace carries with its own name. */
const nameLabel = 'kubernetes.io/metadata.name';

export const namespace: Behaviour = {
  columns: columns('Name', 'Status', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    stringAt(object, 'status', 'phase') ?? '',
    age(object.metadata.creationTimestamp, nowMs),
  ],
  selectable: (object) => ({ 'status.phase': stringAt(object, 'status', 'phase') ?? '' }),
  nameRule: dns1123Label,
  defaults: (object) => {
    object.metadata.labels = { ...object.metadata.labels, [nameLabel]: object.metadata.name };
  },
  prepareCreate: (object) => {
    object.spec = { finalizers: ['kubernetes'] };
    object.status = { phase: 'Active' };
  },
  prepareUpdate: (object, old, context) => {
    if (context.subresource === '') object.spec = old.spec;
  },
};

export const node: Behaviour = {
  columns: columns(
    'Name',
    'Status',
    'Roles',
    'Age',
    'Version',
    '+Internal-IP',
    '+External-IP',
    '+OS-Image',
    '+Kernel-Version',
    '+Container-Runtime',
  ),
  cells: nodeCells,
  selectable: (object) => ({ 'spec.unschedulable': String(boolAt(object, 'spec', 'unschedulable') ?? false) }),
  prepareCreate: (object) => {
    // A kubelet registers its node with its status.
    object.status ??= {};
  },
};

function nodeCells(object: KubeObject, nowMs: number): Json[] {
  const info = objectAt(object, 'status', 'nodeInfo');
  const address = (type: string): string =>
    stringAt(
      objectsAt(object, 'status', 'addresses').find((item) => item.type === type),
      'address',
    ) ?? '<none>';
  return [
    object.metadata.name,
    nodeStatus(object),
    nodeRoles(object),
    age(object.metadata.creationTimestamp, nowMs),
    stringAt(info, 'kubeletVersion') ?? '',
    address('InternalIP'),
    address('ExternalIP'),
    stringAt(info, 'osImage') ?? '<unknown>',
    stringAt(info, 'kernelVersion') ?? '<unknown>',
    stringAt(info, 'containerRuntimeVersion') ?? '<unknown>',
  ];
}

function nodeStatus(object: KubeObject): string {
  const ready = objectsAt(object, 'status', 'conditions').find((item) => item.type === 'Ready');
  const state = ready === undefined ? 'Unknown' : ready.status === 'True' ? 'Ready' : 'NotReady';
  return boolAt(object, 'spec', 'unschedulable') === true ? `${state},SchedulingDisabled` : state;
}

function nodeRoles(object: KubeObject): string {
  const prefix = 'node-role.kubernetes.io/';
  const labels = Object.entries(object.metadata.labels ?? {});
  const roles = labels.flatMap(([key, value]) => {
    if (key.startsWith(prefix) && key.length > prefix.length) return [key.slice(prefix.length)];
    return key === 'kubernetes.io/role' && value !== '' ? [value] : [];
  });
  return roles.length === 0 ? '<none>' : roles.sort().join(',');
}

function dataSize(object: KubeObject, ...names: readonly string[]): number {
  return names.reduce((sum, name) => sum + Object.keys(objectAt(object, name) ?? {}).length, 0);
}

function validateKeys(object: KubeObject, ...names: readonly string[]): FieldError[] {
  return names.flatMap((name) =>
    Object.keys(objectAt(object, name) ?? {}).flatMap((key) =>
      configMapKey(key).map((wrong) => field.invalid(`${name}[${key}]`, key, wrong)),
    ),
  );
}

function validateImmutable(object: KubeObject, old: KubeObject | undefined, names: readonly string[]): FieldError[] {
  if (old === undefined || boolAt(old, 'immutable') !== true) return [];
  const errors =
    boolAt(object, 'immutable') === true
      ? []
      : [field.forbidden('immutable', 'field is immutable when `immutable` is set')];
  const changed = names.filter((name) => JSON.stringify(object[name]) !== JSON.stringify(old[name]));
  return [...errors, ...changed.map((name) => field.forbidden(name, 'field is immutable when `immutable` is set'))];
}

export const configMap: Behaviour = {
  columns: columns('Name', 'Data', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    String(dataSize(object, 'data', 'binaryData')),
    age(object.metadata.creationTimestamp, nowMs),
  ],
  validate: (object, old) => [
    ...validateKeys(object, 'data', 'binaryData'),
    ...validateImmutable(object, old, ['data', 'binaryData']),
  ],
};

export const secret: Behaviour = {
  columns: columns('Name', 'Type', 'Data', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    stringAt(object, 'type') ?? '',
    String(dataSize(object, 'data')),
    age(object.metadata.creationTimestamp, nowMs),
  ],
  selectable: (object) => ({ type: stringAt(object, 'type') ?? '' }),
  defaults: (object) => {
    setDefault(object, 'type', 'Opaque');
    // stringData is write-only.
    const plain = object.stringData;
    delete object.stringData;
    if (!isObject(plain)) return;
    const encoded = Object.entries(plain).map(([key, value]) => [key, Buffer.from(textOf(value)).toString('base64')]);
    object.data = { ...objectAt(object, 'data'), ...(Object.fromEntries(encoded) as Record<string, string>) };
  },
  validate: (object, old) => [...validateKeys(object, 'data'), ...validateImmutable(object, old, ['data', 'type'])],
};

export const serviceAccount: Behaviour = {
  columns: columns('Name', 'Secrets', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    String(objectsAt(object, 'secrets').length),
    age(object.metadata.creationTimestamp, nowMs),
  ],
};

export const lease: Behaviour = {
  columns: columns('Name', 'Holder', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    stringAt(object, 'spec', 'holderIdentity') ?? '',
    age(object.metadata.creationTimestamp, nowMs),
  ],
};
