/** Deletion: preconditions, grace periods, finalizers and propagation policies. */
import { numberAt, stringAt, stringsAt, type JsonObject, type KubeObject, type ObjectMeta, textOf } from './json.ts';
import { timestamp } from '../../core/timestamp.ts';
import { keyOf } from './resource.ts';
import * as status from './status.ts';
import { KeyMissing, RevisionConflict } from './store.ts';
import { getObject, serve, type ApiParts, type Call, type Target } from './write.ts';

export const foregroundFinalizer = 'foregroundDeletion';
export const orphanFinalizer = 'orphan';

export interface DeleteOptions {
  readonly gracePeriodSeconds: number | undefined;
  readonly propagationPolicy: 'Background' | 'Foreground' | 'Orphan';
  readonly uid: string | undefined;
  readonly resourceVersion: string | undefined;
}

export function deleteOptions(body: JsonObject | undefined, query: URLSearchParams): DeleteOptions {
  const grace = query.get('gracePeriodSeconds');
  const policy = query.get('propagationPolicy') ?? stringAt(body, 'propagationPolicy');
  const orphan = query.get('orphanDependents') ?? textOf(body?.orphanDependents);
  const chosen = policy ?? (orphan === 'true' ? 'Orphan' : 'Background');
  if (chosen !== 'Background' && chosen !== 'Foreground' && chosen !== 'Orphan') {
    throw status.invalid({ group: 'meta.k8s.io', kind: 'DeleteOptions' }, '', [
      status.field.notSupported('propagationPolicy', chosen, ['Background', 'Foreground', 'Orphan']),
    ]);
  }
  return {
    gracePeriodSeconds: grace === null ? numberAt(body, 'gracePeriodSeconds') : Number(grace),
    propagationPolicy: chosen,
    uid: stringAt(body, 'preconditions', 'uid'),
    resourceVersion: stringAt(body, 'preconditions', 'resourceVersion'),
  };
}

export interface Deleted {
  readonly object: KubeObject;
  /** False while finalizers or a grace period hold the object. */
  readonly gone: boolean;
}

export async function deleteObject(
  parts: ApiParts,
  target: Target,
  options: DeleteOptions,
  call: Call,
): Promise<Deleted> {
  const { resource, namespace, name } = target;
  for (;;) {
    const old = getObject(parts.store, target);
    checkPreconditions(old, target, options);
    await parts.admission.validateDelete({
      resource,
      namespace,
      name,
      subresource: '',
      operation: 'DELETE',
      object: undefined,
      oldObject: old,
      call,
    });
    const next = markDeleted(old, target, options, parts.clock.nowMs());
    if (call.dryRun) return { object: next ?? old, gone: next === undefined };
    try {
      return commit(parts, target, old, next);
    } catch (error) {
      if (error instanceof KeyMissing) throw status.notFound(resource, name);
      if (!(error instanceof RevisionConflict)) throw error;
    }
  }
}

function commit(parts: ApiParts, target: Target, old: KubeObject, next: KubeObject | undefined): Deleted {
  const { resource } = target;
  const key = keyOf(resource, target.namespace, target.name);
  const expected = old.metadata.resourceVersion;
  if (next === undefined)
    return { object: serve(resource, parts.store.delete(resource.bucket, key, expected)), gone: true };
  if (next === old) return { object: old, gone: false };
  const stored = parts.store.update(resource.bucket, key, resource.toStored?.(next) ?? next, expected);
  return { object: serve(resource, stored), gone: false };
}

function checkPreconditions(old: KubeObject, target: Target, options: DeleteOptions): void {
  const failed = (what: string, wanted: string, actual: string | undefined): status.ApiError =>
    status.conflict(
      target.resource,
      target.name,
      `Precondition failed: ${what} in precondition: ${wanted}, ${what} in object meta: ${actual ?? ''}`,
    );
  const { uid, resourceVersion } = options;
  if (uid !== undefined && uid !== old.metadata.uid) throw failed('UID', uid, old.metadata.uid);
  if (resourceVersion !== undefined && resourceVersion !== old.metadata.resourceVersion) {
    throw failed('ResourceVersion', resourceVersion, old.metadata.resourceVersion);
  }
}

/** The object with its deletion marked, or undefined when it may go at once. */
function markDeleted(old: KubeObject, target: Target, options: DeleteOptions, nowMs: number): KubeObject | undefined {
  const grace = target.resource.behaviour.gracePeriodSeconds?.(old, options.gracePeriodSeconds) ?? 0;
  const finalizers = finalizersFor(old.metadata, options);
  const held = finalizers.length > 0 || stringsAt(old, 'spec', 'finalizers').length > 0;
  if (grace === 0 && !held) return undefined;
  const before = old.metadata.deletionGracePeriodSeconds;
  const marked = old.metadata.deletionTimestamp !== undefined;
  // A later deletion may shorten the grace period, never lengthen it.
  if (marked && (before ?? 0) <= grace && finalizers.length === (old.metadata.finalizers ?? []).length) return old;
  const metadata: ObjectMeta = {
    ...old.metadata,
    deletionTimestamp: timestamp(nowMs + grace * 1000),
    deletionGracePeriodSeconds: grace,
  };
  if (old.metadata.generation !== undefined && !marked) metadata.generation = old.metadata.generation + 1;
  if (finalizers.length > 0) metadata.finalizers = finalizers;
  else delete metadata.finalizers;
  const result: KubeObject = { ...old, metadata };
  if (target.resource.bucket === '/namespaces') result.status = { phase: 'Terminating' };
  return result;
}

function finalizersFor(metadata: ObjectMeta, options: DeleteOptions): string[] {
  const own = (metadata.finalizers ?? []).filter((name) => name !== foregroundFinalizer && name !== orphanFinalizer);
  const marked = (metadata.finalizers ?? []).filter((name) => !own.includes(name));
  if (options.propagationPolicy === 'Foreground') return [...own, foregroundFinalizer];
  if (options.propagationPolicy === 'Orphan') return [...own, orphanFinalizer];
  return metadata.deletionTimestamp === undefined ? own : [...own, ...marked];
}
