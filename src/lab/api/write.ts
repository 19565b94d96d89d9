/** Create, update and patch: decoding, admission, defaults, validation and the commit, in Kubernetes' order. */
import type { Admission, AdmissionRequest } from './admission.ts';
import { cloneJson, equalJson, isObject, stringAt, textOf } from './json.ts';
import type { Json, JsonObject, KubeObject } from './json.ts';
import { timestamp } from '../../core/timestamp.ts';
import * as meta from './meta.ts';
import { applyPatch, patchTypeOf } from './patch.ts';
import type { Registry } from './registry.ts';
import { apiVersionOf, keyOf, type Resource } from './resource.ts';
import { DecodeError } from './schema/decode.ts';
import * as status from './status.ts';
import { KeyExists, KeyMissing, RevisionConflict, type Store } from './store.ts';
import type { Clock } from '../../core/clock.ts';

/** What every write is given by its request. */
export interface Call {
  readonly user: string;
  readonly groups: readonly string[];
  readonly dryRun: boolean;
  readonly fieldValidation: 'Strict' | 'Warn' | 'Ignore';
  /** Become `Warning` headers of the answer. */
  readonly warnings: string[];
}

export interface Target {
  readonly resource: Resource;
  readonly namespace: string | undefined;
  readonly name: string;
  readonly subresource: string;
}

export interface ApiParts {
  readonly store: Store;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly admission: Admission;
}

/** A patch or an update that names no resourceVersion is tried again this often when others write in between. */
const maxConflictRetries = 8;

export async function createObject(parts: ApiParts, target: Target, body: JsonObject, call: Call): Promise<KubeObject> {
  const { resource } = target;
  let object = decode(resource, body, call);
  adoptNamespace(object, target);
  const generated = object.metadata.name === '' ? stringAt(object.metadata, 'generateName') : undefined;
  if (generated !== undefined) object.metadata.name = meta.generateName(generated);
  requireNamespace(parts, target, object);
  if (object.metadata.resourceVersion !== undefined && object.metadata.resourceVersion !== '') {
    throw status.badRequest('resourceVersion should not be set on objects to be created');
  }
  stamp(object, resource, parts.clock.nowMs());
  resource.behaviour.defaults?.(object);
  const request = admissionRequest(target, call, 'CREATE', object);
  object = decode(resource, await parts.admission.mutate(request), { ...call, fieldValidation: 'Ignore' });
  resource.behaviour.defaults?.(object);
  if (resource.hasStatus && resource.typeName === undefined) delete object.status;
  const context = { store: parts.store, nowMs: parts.clock.nowMs(), subresource: '' };
  if (resource.hasStatus && resource.behaviour.prepareCreate === undefined && resource.typeName !== undefined)
    object.status = {};
  resource.behaviour.prepareCreate?.(object, context);
  check(resource, object, undefined);
  call.warnings.push(...(resource.behaviour.warnings?.(object) ?? []));
  await parts.admission.validate({ ...request, name: object.metadata.name, object });
  if (call.dryRun) return object;
  try {
    const stored = resource.toStored?.(object) ?? object;
    return serve(
      resource,
      parts.store.create(resource.bucket, keyOf(resource, target.namespace, object.metadata.name), stored),
    );
  } catch (error) {
    if (error instanceof KeyExists) throw status.alreadyExists(resource, object.metadata.name);
    throw error;
  }
}

export async function updateObject(parts: ApiParts, target: Target, body: JsonObject, call: Call): Promise<KubeObject> {
  const next = decode(target.resource, body, call);
  adoptNamespace(next, target);
  if (next.metadata.name !== target.name) {
    throw status.badRequest(
      `the name of the object (${next.metadata.name}) does not match the name on the URL (${target.name})`,
    );
  }
  return retrying(parts, target, next.metadata.resourceVersion, (old) =>
    commitUpdate(parts, target, old, cloneJson(next), call),
  );
}

export async function patchObject(
  parts: ApiParts,
  target: Target,
  contentType: string,
  patch: Json,
  call: Call,
): Promise<KubeObject> {
  const { resource } = target;
  const type = patchTypeOf(contentType, resource.typeName !== undefined);
  const expected = isObject(patch) ? stringAt(patch, 'metadata', 'resourceVersion') : undefined;
  return retrying(parts, target, expected, async (old) => {
    const patched = await applyPatch(type, resource.typeName, old, patch);
    return commitUpdate(parts, target, old, decodePatched(resource, patched, patch, call), call);
  });
}

async function retrying(
  parts: ApiParts,
  target: Target,
  expected: string | undefined,
  attempt: (old: KubeObject) => Promise<KubeObject>,
): Promise<KubeObject> {
  for (let round = 0; ; round++) {
    const old = getObject(parts.store, target);
    if (expected !== undefined && expected !== '' && expected !== old.metadata.resourceVersion) {
      throw status.conflict(target.resource, target.name, status.modifiedMeanwhile);
    }
    try {
      return await attempt(old);
    } catch (error) {
      if (error instanceof KeyMissing) throw status.notFound(target.resource, target.name);
      if (!(error instanceof RevisionConflict)) throw error;
      if (round >= maxConflictRetries) throw status.conflict(target.resource, target.name, status.modifiedMeanwhile);
    }
  }
}

/** The object in the served version. */
export function getObject(store: Store, target: Target): KubeObject {
  const { resource, namespace, name } = target;
  const stored = store.get(resource.bucket, keyOf(resource, namespace, name));
  if (stored === undefined) throw status.notFound(resource, name);
  return serve(resource, stored);
}

export function serve(resource: Resource, stored: KubeObject): KubeObject {
  return resource.toServed?.(stored) ?? stored;
}

async function commitUpdate(
  parts: ApiParts,
  target: Target,
  old: KubeObject,
  decoded: KubeObject,
  call: Call,
): Promise<KubeObject> {
  const { resource, subresource } = target;
  let next = prepare(parts, target, old, decoded);
  const request = { ...admissionRequest(target, call, 'UPDATE', next), oldObject: old };
  next = decode(resource, await parts.admission.mutate(request), { ...call, fieldValidation: 'Ignore' });
  next = prepare(parts, target, old, next);
  const uid = stringAt(decoded.metadata, 'uid');
  if (uid !== undefined && uid !== '' && uid !== old.metadata.uid) {
    const what = `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid ?? ''}`;
    throw status.conflict(resource, target.name, what);
  }
  check(resource, next, old);
  if (subresource === '') call.warnings.push(...(resource.behaviour.warnings?.(next) ?? []));
  await parts.admission.validate({ ...request, object: next });
  if (call.dryRun) return next;
  return store(parts.store, target, next, old);
}

/** A write that changes nothing keeps the resourceVersion; a deleted object whose last finalizer goes is removed. */
function store(into: Store, target: Target, next: KubeObject, old: KubeObject): KubeObject {
  const { resource } = target;
  const key = keyOf(resource, target.namespace, target.name);
  const expected = old.metadata.resourceVersion;
  next.metadata.resourceVersion = expected;
  const deleting = next.metadata.deletionTimestamp !== undefined && (next.metadata.finalizers ?? []).length === 0;
  if (deleting && (next.metadata.deletionGracePeriodSeconds ?? 0) === 0 && resource.plural !== 'namespaces') {
    into.delete(resource.bucket, key, expected);
    return next;
  }
  const current = into.get(resource.bucket, key);
  if (current?.metadata.resourceVersion === expected && equalJson(next, old)) return old;
  return serve(resource, into.update(resource.bucket, key, resource.toStored?.(next) ?? next, expected));
}

function prepare(parts: ApiParts, target: Target, old: KubeObject, next: KubeObject): KubeObject {
  const { resource, subresource } = target;
  meta.keepSystemMeta(next.metadata, old.metadata);
  meta.dropEmptyMeta(next.metadata);
  if (subresource === 'status') {
    const result: KubeObject = {
      ...cloneJson(old),
      metadata: resource.typeName === undefined ? cloneJson(old.metadata) : next.metadata,
    };
    if (next.status === undefined) delete result.status;
    else result.status = next.status;
    next = result;
  } else if (resource.hasStatus) {
    if (old.status === undefined) delete next.status;
    else next.status = cloneJson(old.status);
  }
  resource.behaviour.defaults?.(next);
  resource.behaviour.prepareUpdate?.(next, old, { store: parts.store, nowMs: parts.clock.nowMs(), subresource });
  if (resource.behaviour.generation === true && meta.specChanged(next, old)) {
    next.metadata.generation = (old.metadata.generation ?? 0) + 1;
  }
  return next;
}

function check(resource: Resource, object: KubeObject, old: KubeObject | undefined): void {
  const rule = resource.behaviour.nameRule ?? meta.defaultNameRule;
  const errors = [
    ...meta.validateMeta(object.metadata, resource.namespaced, rule),
    ...(old === undefined ? [] : meta.validateMetaUpdate(object.metadata, old.metadata)),
    ...(resource.behaviour.validate?.(object, old) ?? []),
  ];
  if (errors.length > 0) throw status.invalid(resource, object.metadata.name, errors);
}

function stamp(object: KubeObject, resource: Resource, nowMs: number): void {
  const own = object.metadata;
  for (const name of [
    'selfLink',
    'managedFields',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'resourceVersion',
  ]) {
    delete own[name];
  }
  meta.dropEmptyMeta(own);
  own.uid = meta.newUid();
  own.creationTimestamp = timestamp(nowMs);
  if (resource.behaviour.generation === true) own.generation = 1;
  else delete own.generation;
}

function adoptNamespace(object: KubeObject, target: Target): void {
  if (!target.resource.namespaced) return;
  const own = object.metadata.namespace ?? '';
  if (own !== '' && own !== target.namespace) {
    throw status.badRequest('the namespace of the provided object does not match the namespace sent on the request');
  }
  object.metadata.namespace = target.namespace ?? '';
}

function requireNamespace(parts: ApiParts, target: Target, object: KubeObject): void {
  if (!target.resource.namespaced) return;
  const name = target.namespace ?? '';
  const namespace = parts.store.get('/namespaces', name);
  if (namespace === undefined) throw status.notFound({ group: '', plural: 'namespaces' }, name);
  if (namespace.metadata.deletionTimestamp === undefined) return;
  throw status.forbidden(
    target.resource,
    object.metadata.name,
    `unable to create new content in namespace ${name} because it is being terminated`,
    [{ reason: 'NamespaceTerminating', message: `namespace ${name} is being terminated`, field: 'metadata.namespace' }],
  );
}

function admissionRequest(
  target: Target,
  call: Call,
  operation: 'CREATE' | 'UPDATE',
  object: KubeObject,
): AdmissionRequest {
  const { resource, subresource } = target;
  const name = target.name === '' ? object.metadata.name : target.name;
  return { resource, namespace: target.namespace, name, subresource, operation, object, call };
}

/** Checks that the body is of the resource's kind, decodes it, and reports or refuses unknown fields. */
export function decode(resource: Resource, body: JsonObject, call: Call): KubeObject {
  const version = apiVersionOf(resource);
  const { apiVersion = version, kind = resource.kind } = body;
  if (apiVersion !== version && apiVersion !== '') {
    throw status.badRequest(
      `the API version in the data (${textOf(apiVersion)}) does not match the expected API version (${version})`,
    );
  }
  if (kind !== resource.kind && kind !== '') {
    throw status.badRequest(`${textOf(kind)} in version "${resource.version}" cannot be handled as a ${resource.kind}`);
  }
  const full = meta.asKubeObject({ ...body, apiVersion: version, kind: resource.kind });
  try {
    const { object, strictErrors } = resource.decode(full);
    reportUnknown(resource, strictErrors, call);
    return meta.asKubeObject(object);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    throw status.badRequest(`${cannotHandle(resource)}: ${error.message}`);
  }
}

function cannotHandle(resource: Resource): string {
  return `${resource.kind} in version "${resource.version}" cannot be handled as a ${resource.kind}`;
}

function reportUnknown(resource: Resource, strictErrors: readonly string[], call: Call): void {
  if (strictErrors.length === 0 || call.fieldValidation === 'Ignore') return;
  if (call.fieldValidation === 'Warn') call.warnings.push(...strictErrors);
  else throw status.badRequest(`${cannotHandle(resource)}: strict decoding error: ${strictErrors.join(', ')}`);
}

/** For a patch, what does not decode is the patch's fault: 422 on the field "patch". */
function decodePatched(resource: Resource, patched: JsonObject, patch: Json, call: Call): KubeObject {
  const refuse = (what: string): status.ApiError =>
    status.invalid({ group: '', kind: '' }, '', [status.field.invalid('patch', patch, what)]);
  try {
    const { object, strictErrors } = resource.decode(meta.asKubeObject(patched));
    if (call.fieldValidation === 'Warn') call.warnings.push(...strictErrors);
    if (call.fieldValidation === 'Strict' && strictErrors.length > 0) {
      throw refuse(`strict decoding error: ${strictErrors.join(', ')}`);
    }
    return meta.asKubeObject(object);
  } catch (error) {
    if (error instanceof DecodeError) throw refuse(error.message);
    throw error;
  }
}
