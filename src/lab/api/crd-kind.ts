/** CustomResourceDefinition as an object: its defaults, validation and status. */
import { equalJson, isObject, objectAt, objectsAt, setDefault, stringAt, stringsAt } from './json.ts';
import type { JsonObject, KubeObject } from './json.ts';
import { timestamp } from '../../core/timestamp.ts';
import { dns1035Label, dns1123Subdomain } from './names.ts';
import type { Behaviour, WriteContext } from './resource.ts';
import { field, type FieldError } from './status.ts';

export const crdBucket = 'apiextensions.k8s.io/customresourcedefinitions';
/** Holds a definition until its objects are gone. */
export const crdFinalizer = 'customresourcecleanup.apiextensions.k8s.io';

export const crdBehaviour: Behaviour = {
  generation: true,
  columns: [{ name: 'Created At', type: 'date', priority: 0, description: 'CreationTimestamp' }],
  cells: (crd) => [crd.metadata.creationTimestamp ?? ''],
  defaults: crdDefaults,
  prepareCreate: (crd, context) => establish(crd, context),
  prepareUpdate: (crd, old, context) => {
    if (context.subresource === '') establish(crd, context, old);
  },
  validate: validateCrd,
};

function crdDefaults(crd: KubeObject): void {
  const names = objectAt(crd, 'spec', 'names');
  if (names === undefined) return;
  const kind = stringAt(names, 'kind') ?? '';
  setDefault(names, 'singular', kind.toLowerCase());
  setDefault(names, 'listKind', `${kind}List`);
  const spec = objectAt(crd, 'spec');
  if (spec !== undefined) setDefault(spec, 'conversion', { strategy: 'None' });
}

/** There is one server and no other definition of the same name, so a valid definition is established at once. */
function establish(crd: KubeObject, context: WriteContext, old?: KubeObject): void {
  const names = objectAt(crd, 'spec', 'names') ?? {};
  const storage = objectsAt(crd, 'spec', 'versions').find((version) => version.storage === true);
  const before = stringsAt(old, 'status', 'storedVersions');
  const stored = stringAt(storage, 'name') ?? '';
  const now = timestamp(context.nowMs);
  const condition = (type: string, reason: string, message: string): JsonObject =>
    objectsAt(old, 'status', 'conditions').find((item) => item.type === type) ?? {
      type,
      status: 'True',
      lastTransitionTime: now,
      reason,
      message,
    };
  crd.status = {
    conditions: [
      condition('NamesAccepted', 'NoConflicts', 'no conflicts found'),
      condition('Established', 'InitialNamesAccepted', 'the initial names have been accepted'),
    ],
    acceptedNames: names,
    storedVersions: [...new Set([...before, stored])],
  };
  if (crd.metadata.deletionTimestamp === undefined) {
    crd.metadata.finalizers = [...new Set([...(crd.metadata.finalizers ?? []), crdFinalizer])];
  }
}

function validateCrd(crd: KubeObject, old: KubeObject | undefined): FieldError[] {
  const spec = objectAt(crd, 'spec') ?? {};
  const group = stringAt(spec, 'group') ?? '';
  const plural = stringAt(spec, 'names', 'plural') ?? '';
  const errors: FieldError[] = [];
  if (group === '') errors.push(field.required('spec.group'));
  else errors.push(...dns1123Subdomain(group).map((wrong) => field.invalid('spec.group', group, wrong)));
  if (crd.metadata.name !== `${plural}.${group}`) {
    errors.push(field.invalid('metadata.name', crd.metadata.name, 'must be spec.names.plural+"."+spec.group'));
  }
  const scope = stringAt(spec, 'scope') ?? '';
  if (scope === '') errors.push(field.required('spec.scope'));
  else if (scope !== 'Cluster' && scope !== 'Namespaced') {
    errors.push(field.notSupported('spec.scope', scope, ['Cluster', 'Namespaced']));
  }
  errors.push(...validateNames(spec), ...validateVersions(spec));
  if (old !== undefined) errors.push(...validateCrdUpdate(spec, objectAt(old, 'spec') ?? {}));
  return errors;
}

function validateNames(spec: JsonObject): FieldError[] {
  const errors: FieldError[] = [];
  for (const name of ['plural', 'singular', 'kind', 'listKind'] as const) {
    const value = stringAt(spec, 'names', name) ?? '';
    if (value === '') errors.push(field.required(`spec.names.${name}`));
    else
      errors.push(
        ...dns1035Label(value.toLowerCase()).map((wrong) => field.invalid(`spec.names.${name}`, value, wrong)),
      );
  }
  return errors;
}

function validateVersions(spec: JsonObject): FieldError[] {
  const versions = objectsAt(spec, 'versions');
  const errors: FieldError[] = [];
  if (versions.filter((version) => version.storage === true).length !== 1) {
    errors.push(field.invalid('spec.versions', versions, 'must have exactly one version marked as storage version'));
  }
  for (const [index, version] of versions.entries()) {
    const path = `spec.versions[${index}]`;
    const schema = objectAt(version, 'schema', 'openAPIV3Schema');
    if (schema === undefined) errors.push(field.required(`${path}.schema.openAPIV3Schema`, 'schemas are required'));
    else errors.push(...validateStructural(schema, `${path}.schema.openAPIV3Schema`));
  }
  return errors;
}

/** The rule of structural schemas people trip over: every node has a type. */
function validateStructural(schema: JsonObject, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const untyped =
    schema.type === undefined &&
    schema['x-kubernetes-int-or-string'] !== true &&
    schema['x-kubernetes-preserve-unknown-fields'] !== true;
  if (untyped) errors.push(field.required(`${path}.type`, 'must not be empty for specified object fields'));
  for (const [name, inner] of Object.entries(objectAt(schema, 'properties') ?? {})) {
    if (isObject(inner)) errors.push(...validateStructural(inner, `${path}.properties[${name}]`));
  }
  const items = objectAt(schema, 'items');
  if (schema.type === 'array' && items === undefined) errors.push(field.required(`${path}.items`, 'must be specified'));
  if (items !== undefined) errors.push(...validateStructural(items, `${path}.items`));
  const additional = objectAt(schema, 'additionalProperties');
  if (additional !== undefined) errors.push(...validateStructural(additional, `${path}.additionalProperties`));
  return errors;
}

function validateCrdUpdate(next: JsonObject, old: JsonObject): FieldError[] {
  const fixed = [['group'], ['scope'], ['names', 'kind'], ['names', 'plural']] as const;
  return fixed.flatMap((path) => {
    const [a, b] = [stringAt(next, ...path), stringAt(old, ...path)];
    return equalJson(a, b) ? [] : [field.invalid(`spec.${path.join('.')}`, a, 'field is immutable')];
  });
}
