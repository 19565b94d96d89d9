/** ObjectMeta: what the server fills in, what clients may not change, and its validation. */
import { randomInt, randomUUID } from 'node:crypto';
import { equalJson, isObject, type Json, type JsonObject, type KubeObject, type ObjectMeta, textOf } from './json.ts';
import { dns1123Subdomain, labelValue, qualifiedName } from './names.ts';
import { badRequest, field, type FieldError } from './status.ts';

export function newUid(): string {
  return randomUUID();
}

/** No vowels and no look-alikes (k8s.io/apimachinery/pkg/util/rand). */
const suffixAlphabet = 'bcdfghjklmnpqrstvwxz2456789';
const maxGeneratedBase = 63 - 5;

export function generateName(prefix: string): string {
  const suffix = Array.from({ length: 5 }, () => suffixAlphabet[randomInt(suffixAlphabet.length)]).join('');
  return prefix.slice(0, maxGeneratedBase) + suffix;
}

/** Requires metadata to be an object; missing members become empty. */
export function asKubeObject(value: JsonObject): KubeObject {
  const { apiVersion, kind, metadata } = value;
  if (metadata !== undefined && metadata !== null && !isObject(metadata)) {
    throw badRequest('json: cannot unmarshal non-object into Go struct field .metadata of type v1.ObjectMeta');
  }
  return {
    ...value,
    apiVersion: typeof apiVersion === 'string' ? apiVersion : '',
    kind: typeof kind === 'string' ? kind : '',
    metadata: { ...metadata, name: typeof metadata?.name === 'string' ? metadata.name : '' },
  };
}

/** Fields of metadata that only the server sets, put back from the stored object. */
export function keepSystemMeta(next: ObjectMeta, old: ObjectMeta): void {
  for (const name of ['uid', 'creationTimestamp', 'deletionTimestamp', 'deletionGracePeriodSeconds', 'generation']) {
    if (old[name] === undefined) delete next[name];
    else next[name] = old[name];
  }
  delete next.selfLink;
  delete next.managedFields;
  if (old.generateName !== undefined) next.generateName = old.generateName;
}

export function dropEmptyMeta(meta: ObjectMeta): void {
  for (const name of ['labels', 'annotations', 'finalizers', 'ownerReferences']) {
    const value: Json | undefined = meta[name];
    if (value === null || (typeof value === 'object' && Object.keys(value).length === 0)) delete meta[name];
  }
  if (meta.namespace === '') delete meta.namespace;
  if (meta.generateName === '') delete meta.generateName;
}

export function validateMeta(
  meta: ObjectMeta,
  namespaced: boolean,
  nameRule: (name: string) => string[],
): FieldError[] {
  const errors: FieldError[] = [];
  if (meta.name === '') errors.push(field.required('metadata.name', 'name or generateName is required'));
  else errors.push(...nameRule(meta.name).map((wrong) => field.invalid('metadata.name', meta.name, wrong)));
  if (!namespaced && meta.namespace !== undefined) {
    errors.push(field.forbidden('metadata.namespace', 'not allowed on this type'));
  }
  errors.push(...validateLabels(meta.labels, 'metadata.labels'));
  errors.push(...validateAnnotations(meta.annotations));
  errors.push(...validateOwners(meta));
  for (const [index, finalizer] of (meta.finalizers ?? []).entries()) {
    const wrong = qualifiedName(finalizer);
    errors.push(...wrong.map((what) => field.invalid(`metadata.finalizers[${index}]`, finalizer, what)));
  }
  return errors;
}

export function validateLabels(labels: Json | undefined, path: string): FieldError[] {
  return Object.entries(isObject(labels) ? labels : {}).flatMap(([key, value]) => [
    ...qualifiedName(key).map((wrong) => field.invalid(path, key, wrong)),
    ...labelValue(textOf(value)).map((wrong) => field.invalid(path, value, wrong)),
  ]);
}

/** All annotations of an object together. */
const maxAnnotationBytes = 256 * 1024;

function validateAnnotations(annotations: ObjectMeta['annotations']): FieldError[] {
  const entries = Object.entries(annotations ?? {});
  const errors = entries.flatMap(([key]) =>
    qualifiedName(key.toLowerCase()).map((wrong) => field.invalid('metadata.annotations', key, wrong)),
  );
  const bytes = entries.reduce((sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value), 0);
  if (bytes > maxAnnotationBytes) errors.push(field.tooLong('metadata.annotations', maxAnnotationBytes));
  return errors;
}

function validateOwners(meta: ObjectMeta): FieldError[] {
  const errors: FieldError[] = [];
  const owners = meta.ownerReferences ?? [];
  for (const [index, owner] of owners.entries()) {
    for (const name of ['apiVersion', 'kind', 'name', 'uid'] as const) {
      if (typeof owner[name] !== 'string' || owner[name] === '') {
        errors.push(
          field.invalid(`metadata.ownerReferences[${index}].${name}`, owner[name] ?? '', `${name} must not be empty`),
        );
      }
    }
  }
  if (owners.filter((owner) => owner.controller === true).length > 1) {
    errors.push(
      field.invalid('metadata.ownerReferences', owners, 'Only one reference can have Controller set to true'),
    );
  }
  return errors;
}

/** Name, namespace and uid stay; a set uid must match. */
export function validateMetaUpdate(next: ObjectMeta, old: ObjectMeta): FieldError[] {
  const errors: FieldError[] = [];
  if (next.name !== old.name) errors.push(field.invalid('metadata.name', next.name, 'field is immutable'));
  if (next.namespace !== old.namespace) {
    errors.push(field.invalid('metadata.namespace', next.namespace ?? '', 'field is immutable'));
  }
  if (old.deletionTimestamp !== undefined) {
    const added = (next.finalizers ?? []).filter((name) => !(old.finalizers ?? []).includes(name));
    if (added.length > 0) {
      errors.push(
        field.forbidden(
          'metadata.finalizers',
          `no new finalizers can be added if the object is being deleted, found new finalizers []string{${added.map((name) => `"${name}"`).join(', ')}}`,
        ),
      );
    }
  }
  return errors;
}

/** Whether anything but metadata and status differs: what bumps metadata.generation. */
export function specChanged(next: KubeObject, old: KubeObject): boolean {
  const { metadata: _m1, status: _s1, ...a } = next;
  const { metadata: _m2, status: _s2, ...b } = old;
  return !equalJson(a, b);
}

export const defaultNameRule = dns1123Subdomain;
