import type { OwnerReference, Pod } from '../api/kubernetes.ts';
import { apiVersionOf, jobs, pods as podResource, replicaSets } from '../api/resources.ts';
import { compareText } from '../core/labels.ts';
import type { Application } from '../ipam/application.ts';
import { controllerOf } from '../ipam/pod-owner.ts';
import { applicationKey, type ApplicationState } from './auto-pool-reconciler.ts';

/**
 * Applications that are known by their pods alone: pods that nobody controls, and owners of kinds that are not watched
 * (Argo's, OpenKruise's, Kubeflow's …), whose templates nobody could find. Their pods say what they ask for, so the
 * pool is as large as there are pods, and comes with the first of them.
 */

/** For `Informer`'s indexes: pods that ask for a pool, by the UID of the object that controls them. */
export const byControllerIndex = 'controller';
export function controllerUid(pod: Pod): string[] {
  const uid = pod.metadata?.annotations === undefined ? undefined : controllerOf(pod.metadata)?.uid;
  return uid === undefined ? [] : [uid];
}

interface PodCopies {
  on(event: 'add' | 'update' | 'delete', handle: (pod: Pod) => void): this;
  byIndex(index: string, value: string): readonly Pod[];
}

export interface OwnerLookups {
  /** Of a kind that is watched: its template says what it asks for. */
  readonly isWatched: (owner: Pick<OwnerReference, 'apiVersion' | 'kind'>) => boolean;
  /** Of a ReplicaSet or Job that something unwatched controls. */
  readonly above: (uid: string) => OwnerReference | undefined;
}

export class PodApplications {
  readonly #lookups: OwnerLookups;
  /** By application's key and pod's UID. */
  readonly #pods = new Map<string, Map<string, Pod>>();
  readonly #applications = new Map<string, Application>();
  readonly #keyOfPod = new Map<string, string>();
  #informer: PodCopies | undefined;
  #changed: (key: string) => void = () => undefined;

  constructor(lookups: OwnerLookups) {
    this.#lookups = lookups;
  }

  /** Registers with the informer; call it before that starts. */
  start(informer: PodCopies, changed: (key: string) => void): void {
    this.#informer = informer;
    this.#changed = changed;
    informer.on('add', (pod) => this.#put(pod)).on('update', (pod) => this.#put(pod));
    informer.on('delete', (pod) => this.#remove(pod.metadata?.uid ?? ''));
  }

  #put(pod: Pod): void {
    const uid = pod.metadata?.uid ?? '';
    const application = hasEnded(pod) ? undefined : this.#applicationOf(pod);
    const key = application && applicationKey(application);
    if (key !== this.#keyOfPod.get(uid)) this.#remove(uid);
    if (application === undefined || key === undefined) return;
    const known = this.#pods.get(key) ?? new Map<string, Pod>();
    const isNew = !known.has(uid);
    this.#pods.set(key, known.set(uid, pod));
    this.#applications.set(key, application);
    this.#keyOfPod.set(uid, key);
    if (isNew) this.#changed(key);
  }

  /** A ReplicaSet or Job that something unwatched controls came to be known, maybe after its pods. */
  ownerSeen(uid: string): void {
    this.#informer?.byIndex(byControllerIndex, uid).forEach((pod) => this.#put(pod));
  }

  /** With the annotations of its newest pod. */
  find(key: string): ApplicationState | undefined {
    const application = this.#applications.get(key);
    const pods = [...(this.#pods.get(key)?.values() ?? [])];
    const newest = pods.sort(byAge).at(-1);
    if (application === undefined || newest === undefined) return undefined;
    const { apiVersion, kind, namespace, name, uid } = application;
    return {
      ...application,
      annotations: newest.metadata?.annotations ?? {},
      podCount: pods.length,
      object: { apiVersion, kind, metadata: { namespace, name, uid } },
    };
  }

  keys(): string[] {
    return [...this.#pods.keys()];
  }

  #remove(uid: string): void {
    const key = this.#keyOfPod.get(uid);
    if (key === undefined) return;
    this.#keyOfPod.delete(uid);
    const left = this.#pods.get(key);
    left?.delete(uid);
    if (left?.size === 0) {
      this.#pods.delete(key);
      this.#applications.delete(key);
    }
    this.#changed(key);
  }

  /** Undefined when it asks for nothing, or what it belongs to is watched. */
  #applicationOf({ metadata }: Pod): Application | undefined {
    if (metadata?.annotations === undefined) return undefined;
    const { namespace = '', name = '', uid = '' } = metadata;
    const direct = controllerOf(metadata);
    if (direct === undefined) return { apiVersion: 'v1', kind: podResource.kind, namespace, name, uid };
    const owner = this.#lookups.isWatched(direct) ? this.#lookups.above(direct.uid) : direct;
    return owner && { apiVersion: owner.apiVersion, kind: owner.kind, namespace, name: owner.name, uid: owner.uid };
  }
}

/** Kinds that other workloads make: their pods belong to what controls them. */
export function isMadeByOthers({ apiVersion, kind }: Pick<OwnerReference, 'apiVersion' | 'kind'>): boolean {
  return [replicaSets, jobs].some((gvr) => gvr.kind === kind && apiVersionOf(gvr) === apiVersion);
}

function hasEnded({ status }: Pod): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed';
}

function byAge(a: Pod, b: Pod): number {
  const text = ({ metadata }: Pod): string => `${String(metadata?.creationTimestamp ?? '')} ${metadata?.name ?? ''}`;
  return compareText(text(a), text(b));
}
