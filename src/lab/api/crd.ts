/** From a CustomResourceDefinition to the resources it makes the server offer. */
import { age } from './age.ts';
import { boolAt, cloneJson, isArray, isObject, objectAt, objectsAt, stringAt, stringsAt, textOf } from './json.ts';
import type { Json, JsonObject, KubeObject } from './json.ts';
import { evaluateJsonPath, parseJsonPath } from './json-path.ts';
import { allVerbs, type Behaviour, type Column, type Resource, type ScalePaths } from './resource.ts';
import { applySchemaDefaults, prune, validateSchema } from './structural.ts';

export function customResources(crd: KubeObject): Resource[] {
  const served = objectsAt(crd, 'spec', 'versions').filter((version) => version.served === true);
  return served.map((version) => customResource(crd, version));
}

function customResource(crd: KubeObject, version: JsonObject): Resource {
  const spec = objectAt(crd, 'spec') ?? {};
  const group = stringAt(spec, 'group') ?? '';
  const plural = stringAt(spec, 'names', 'plural') ?? '';
  const kind = stringAt(spec, 'names', 'kind') ?? '';
  const schema = objectAt(version, 'schema', 'openAPIV3Schema') ?? {};
  const apiVersion = `${group}/${stringAt(version, 'name') ?? ''}`;
  const storageName =
    stringAt(
      objectsAt(spec, 'versions').find((item) => item.storage === true),
      'name',
    ) ?? '';
  return {
    group,
    version: stringAt(version, 'name') ?? '',
    plural,
    singular: stringAt(spec, 'names', 'singular') ?? kind.toLowerCase(),
    kind,
    listKind: stringAt(spec, 'names', 'listKind') ?? `${kind}List`,
    namespaced: spec.scope === 'Namespaced',
    shortNames: stringsAt(spec, 'names', 'shortNames'),
    categories: stringsAt(spec, 'names', 'categories'),
    bucket: `${group}/${plural}`,
    hasStatus: objectAt(version, 'subresources', 'status') !== undefined,
    scale: scalePaths(objectAt(version, 'subresources', 'scale')),
    connects: {},
    verbs: allVerbs,
    schema,
    behaviour: customBehaviour(version, schema),
    decode: (object) => {
      const copy = cloneJson(object);
      const dropped = prune(schema, copy);
      return { object: copy, strictErrors: dropped.map((path) => `unknown field "${path}"`) };
    },
    // Conversion strategy None: only apiVersion differs between versions.
    toServed: (stored) => (stored.apiVersion === apiVersion ? stored : { ...stored, apiVersion }),
    toStored: (object) => ({ ...object, apiVersion: `${group}/${storageName}` }),
    deprecationWarning:
      boolAt(version, 'deprecated') === true
        ? (stringAt(version, 'deprecationWarning') ?? `${apiVersion} ${kind} is deprecated`)
        : undefined,
  };
}

function customBehaviour(version: JsonObject, schema: JsonObject): Behaviour {
  const columns = objectsAt(version, 'additionalPrinterColumns');
  const selectable = objectsAt(version, 'selectableFields').map((item) => stringAt(item, 'jsonPath') ?? '');
  const printed =
    columns.length === 0
      ? [{ name: 'Age', type: 'date', priority: 0, jsonPath: '.metadata.creationTimestamp' } satisfies JsonObject]
      : columns;
  const paths = printed.map((column) => parseJsonPath(stringAt(column, 'jsonPath') ?? ''));
  return {
    generation: true,
    columns: printed.map(customColumn),
    cells: (object, nowMs) =>
      paths.map((path, index) => cell(printed[index] ?? {}, evaluateJsonPath(path, object), nowMs)),
    selectable: (object) =>
      Object.fromEntries(
        selectable.map((path) => [path.slice(1), textOf(evaluateJsonPath(parseJsonPath(path), object)[0])]),
      ),
    defaults: (object) => applySchemaDefaults(schema, object),
    validate: (object) => validateSchema(schema, object),
  };
}

function customColumn(column: JsonObject): Column {
  const type = stringAt(column, 'type');
  const format = stringAt(column, 'format');
  return {
    name: stringAt(column, 'name') ?? '',
    type: type === 'integer' || type === 'number' || type === 'boolean' || type === 'date' ? type : 'string',
    priority: typeof column.priority === 'number' ? column.priority : 0,
    ...(format === undefined ? {} : { format }),
    description:
      stringAt(column, 'description') ??
      `Custom resource definition column (in JSONPath format): ${stringAt(column, 'jsonPath') ?? ''}`,
  };
}

function cell(column: JsonObject, found: readonly Json[], nowMs: number): Json {
  const value = found[0];
  if (value === undefined || value === null) return null;
  switch (column.type) {
    case 'date':
      return typeof value === 'string' ? age(value, nowMs) : '<invalid>';
    case 'integer':
    case 'number':
    case 'boolean':
      return value;
    default:
      if (found.length > 1) return found.map(show).join(',');
      return show(value);
  }
}

function show(value: Json): string {
  return isObject(value) || isArray(value) ? JSON.stringify(value) : String(value);
}

function scalePaths(scale: JsonObject | undefined): ScalePaths | undefined {
  if (scale === undefined) return undefined;
  const steps = (name: string): string[] | undefined =>
    stringAt(scale, name)
      ?.split('.')
      .filter((step) => step !== '');
  const selector = steps('labelSelectorPath');
  return {
    specReplicas: steps('specReplicasPath') ?? [],
    statusReplicas: steps('statusReplicasPath') ?? [],
    ...(selector === undefined ? {} : { selector }),
  };
}
