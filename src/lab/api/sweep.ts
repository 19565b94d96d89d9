/**
 * What follows a deletion: owner-reference garbage collection, the emptying of namespaces and of custom resources whose
 * definition goes. In a cluster these are controllers; here they run on the store's events.
 */
import type { Logger } from '../../core/log.ts';
import { crdBucket, crdFinalizer } from './crd-kind.ts';
import { deleteObject, foregroundFinalizer, orphanFinalizer, type DeleteOptions } from './delete.ts';
import type { KubeObject } from './json.ts';
import type { Resource } from './resource.ts';
import { ApiError } from './status.ts';
import { KeyMissing, RevisionConflict, type StoredEvent } from './store.ts';
import type { ApiParts, Call } from './write.ts';

const background: DeleteOptions = {
  gracePeriodSeconds: undefined,
  propagationPolicy: 'Background',
  uid: undefined,
  resourceVersion: undefined,
};

interface Located {
  readonly bucket: string;
  readonly key: string;
}

export class Sweeper {
  private readonly parts: ApiParts;
  private readonly log: Logger;
  /** Every object by uid, and the objects that name a uid as their owner. */
  private readonly byUid = new Map<string, Located>();
  private readonly dependents = new Map<string, Map<string, Located>>();
  private readonly queue = new Map<string, () => Promise<void>>();
  private running = false;
  private closed = false;
  private readonly unsubscribe: () => void;

  constructor(parts: ApiParts, log: Logger) {
    this.parts = parts;
    this.log = log;
    for (const bucket of parts.store.bucketNames()) {
      for (const object of parts.store.list(bucket)) this.index({ bucket, key: locate(object) }, object);
    }
    this.unsubscribe = parts.store.subscribe((event) => this.onEvent(event));
    for (const { bucket, key } of [...this.byUid.values()]) {
      const object = parts.store.get(bucket, key);
      if (object !== undefined) this.consider({ bucket, key }, object);
    }
  }

  close(): void {
    this.closed = true;
    this.unsubscribe();
    this.queue.clear();
  }

  private onEvent(event: StoredEvent): void {
    const at = { bucket: event.bucket, key: event.key };
    if (event.previous !== undefined) this.unindex(at, event.previous);
    if (event.type === 'DELETED') this.afterRemoval(event.object);
    else {
      this.index(at, event.object);
      this.consider(at, event.object);
    }
    // Something in it may have been the last that held its namespace or definition.
    const namespace = event.object.metadata.namespace;
    if (event.type === 'DELETED' && namespace !== undefined) this.considerBucket('/namespaces', namespace);
    if (event.type === 'DELETED') this.considerDefinition(event.bucket);
  }

  private considerBucket(bucket: string, key: string): void {
    const object = this.parts.store.get(bucket, key);
    if (object !== undefined) this.consider({ bucket, key }, object);
  }

  private considerDefinition(bucket: string): void {
    const [group = '', plural = ''] = bucket.split('/');
    this.considerBucket(crdBucket, `${plural}.${group}`);
  }

  private afterRemoval(object: KubeObject): void {
    const uid = object.metadata.uid ?? '';
    for (const at of this.dependents.get(uid)?.values() ?? []) {
      const dependent = this.parts.store.get(at.bucket, at.key);
      if (dependent !== undefined) this.consider(at, dependent);
    }
    // An owner that waits for its dependents looks again.
    for (const owner of object.metadata.ownerReferences ?? []) {
      const at = this.byUid.get(owner.uid);
      if (at !== undefined) this.considerBucket(at.bucket, at.key);
    }
  }

  private consider(at: Located, object: KubeObject): void {
    const { finalizers = [], deletionTimestamp, ownerReferences = [] } = object.metadata;
    const enqueue = (name: string, work: () => Promise<void>): void =>
      this.enqueue(`${name} ${at.bucket} ${at.key}`, work);
    if (deletionTimestamp !== undefined) {
      if (at.bucket === '/namespaces') enqueue('empty', () => this.emptyNamespace(at.key));
      if (finalizers.includes(crdFinalizer)) enqueue('empty', () => this.emptyDefinition(at, object));
      if (finalizers.includes(foregroundFinalizer)) enqueue('foreground', () => this.deleteForeground(at, object));
      if (finalizers.includes(orphanFinalizer)) enqueue('orphan', () => this.orphan(at, object));
    } else if (ownerReferences.length > 0) enqueue('collect', () => this.collect(at));
  }

  /** An object goes when every owner it names is gone (or is being deleted in the foreground and waits for it). */
  private async collect(at: Located): Promise<void> {
    const object = this.parts.store.get(at.bucket, at.key);
    if (object === undefined || object.metadata.deletionTimestamp !== undefined) return;
    const owners = object.metadata.ownerReferences ?? [];
    const solid = owners.filter((owner) => {
      const found = this.byUid.get(owner.uid);
      const owning = found === undefined ? undefined : this.parts.store.get(found.bucket, found.key);
      if (owning === undefined) return false;
      const waiting = (owning.metadata.finalizers ?? []).includes(foregroundFinalizer);
      return !(owning.metadata.deletionTimestamp !== undefined && waiting);
    });
    if (owners.length > 0 && solid.length === 0) await this.remove(at, object);
  }

  private async deleteForeground(at: Located, owner: KubeObject): Promise<void> {
    const all = [...(this.dependents.get(owner.metadata.uid ?? '')?.values() ?? [])];
    let blocking = 0;
    for (const dependentAt of all) {
      const dependent = this.parts.store.get(dependentAt.bucket, dependentAt.key);
      if (dependent === undefined) continue;
      const reference = (dependent.metadata.ownerReferences ?? []).find((item) => item.uid === owner.metadata.uid);
      if (reference?.blockOwnerDeletion === true) blocking++;
      await this.collect(dependentAt);
      if (
        reference?.blockOwnerDeletion === true &&
        this.parts.store.get(dependentAt.bucket, dependentAt.key) === undefined
      )
        blocking--;
    }
    if (blocking === 0) this.dropFinalizer(at, foregroundFinalizer);
  }

  private async orphan(at: Located, owner: KubeObject): Promise<void> {
    for (const dependentAt of [...(this.dependents.get(owner.metadata.uid ?? '')?.values() ?? [])]) {
      const dependent = this.parts.store.get(dependentAt.bucket, dependentAt.key);
      if (dependent === undefined) continue;
      const { ownerReferences = [], ...metadata } = dependent.metadata;
      const rest = ownerReferences.filter((item) => item.uid !== owner.metadata.uid);
      const next = {
        ...dependent,
        metadata: { ...metadata, name: dependent.metadata.name, ...(rest.length > 0 ? { ownerReferences: rest } : {}) },
      };
      this.parts.store.update(dependentAt.bucket, dependentAt.key, next, dependent.metadata.resourceVersion);
    }
    this.dropFinalizer(at, orphanFinalizer);
  }

  private async emptyNamespace(name: string): Promise<void> {
    const { store, registry } = this.parts;
    const namespace = store.get('/namespaces', name);
    if (namespace?.metadata.deletionTimestamp === undefined) return;
    let left = 0;
    for (const resource of registry.stored()) {
      if (!resource.namespaced) continue;
      left += await this.removeAll(resource, name);
    }
    if (left > 0 || (namespace.metadata.finalizers ?? []).length > 0) return;
    const current = store.get('/namespaces', name);
    if (current?.metadata.uid === namespace.metadata.uid)
      store.delete('/namespaces', name, current?.metadata.resourceVersion);
  }

  private async emptyDefinition(at: Located, crd: KubeObject): Promise<void> {
    const [plural = '', ...group] = crd.metadata.name.split('.');
    const bucket = `${group.join('.')}/${plural}`;
    const resource = this.parts.registry.stored().find((item) => item.bucket === bucket);
    const left = resource === undefined ? 0 : await this.removeAll(resource, undefined);
    if (left === 0) this.dropFinalizer(at, crdFinalizer);
  }

  /** Deletes what is not being deleted yet; returns how many objects are still there. */
  private async removeAll(resource: Resource, namespace: string | undefined): Promise<number> {
    for (const object of this.parts.store.list(resource.bucket, namespace)) {
      if (object.metadata.deletionTimestamp === undefined) {
        await this.remove({ bucket: resource.bucket, key: locate(object) }, object);
      }
    }
    return this.parts.store.list(resource.bucket, namespace).length;
  }

  private async remove(at: Located, object: KubeObject): Promise<void> {
    const resource = this.parts.registry.stored().find((item) => item.bucket === at.bucket);
    if (resource === undefined) return;
    const { namespace, name } = object.metadata;
    const options = { ...background, uid: object.metadata.uid };
    await deleteObject(this.parts, { resource, namespace, name, subresource: '' }, options, sweeperCall()).catch(
      ignoreGone,
    );
  }

  private dropFinalizer(at: Located, finalizer: string): void {
    const current = this.parts.store.get(at.bucket, at.key);
    if (current === undefined) return;
    const rest = (current.metadata.finalizers ?? []).filter((name) => name !== finalizer);
    const { finalizers: _, ...metadata } = current.metadata;
    const expected = current.metadata.resourceVersion;
    const done = rest.length === 0 && (current.metadata.deletionGracePeriodSeconds ?? 0) === 0;
    if (done) this.parts.store.delete(at.bucket, at.key, expected);
    else {
      const next = { ...metadata, name: current.metadata.name, ...(rest.length > 0 ? { finalizers: rest } : {}) };
      this.parts.store.update(at.bucket, at.key, { ...current, metadata: next }, expected);
    }
  }

  private enqueue(name: string, work: () => Promise<void>): void {
    if (this.closed) return;
    this.queue.set(name, work);
    if (this.running) return;
    this.running = true;
    // After the request that caused it: the answer then shows the object as the request left it.
    setImmediate(() => void this.drain());
  }

  private async drain(): Promise<void> {
    for (;;) {
      const next = this.queue.entries().next();
      if (next.done === true) break;
      const [name, work] = next.value;
      this.queue.delete(name);
      try {
        await work();
      } catch (error) {
        if (error instanceof RevisionConflict) this.queue.set(name, work);
        else if (!(error instanceof KeyMissing))
          this.log.warn({ err: error, work: name }, 'clean-up after a deletion failed');
      }
    }
    this.running = false;
  }

  private index(at: Located, object: KubeObject): void {
    this.byUid.set(object.metadata.uid ?? '', at);
    for (const owner of object.metadata.ownerReferences ?? []) {
      let set = this.dependents.get(owner.uid);
      if (set === undefined) {
        set = new Map<string, Located>();
        this.dependents.set(owner.uid, set);
      }
      set.set(`${at.bucket} ${at.key}`, at);
    }
  }

  private unindex(at: Located, object: KubeObject): void {
    this.byUid.delete(object.metadata.uid ?? '');
    for (const owner of object.metadata.ownerReferences ?? []) {
      const set = this.dependents.get(owner.uid);
      set?.delete(`${at.bucket} ${at.key}`);
      if (set?.size === 0) this.dependents.delete(owner.uid);
    }
  }
}

function locate(object: KubeObject): string {
  const { namespace, name } = object.metadata;
  return namespace === undefined ? name : `${namespace}/${name}`;
}

function sweeperCall(): Call {
  return {
    user: 'system:serviceaccount:kube-system:generic-garbage-collector',
    groups: ['system:serviceaccounts', 'system:authenticated'],
    dryRun: false,
    fieldValidation: 'Ignore',
    warnings: [],
  };
}

function ignoreGone(error: unknown): void {
  if (error instanceof ApiError && (error.httpCode === 404 || error.httpCode === 409)) return;
  throw error;
}
