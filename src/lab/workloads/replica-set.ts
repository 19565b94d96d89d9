/** ReplicaSet: as many active pods as asked for. */

import type { Pod, ReplicaSet } from '../../api/kubernetes.ts';
import { pods as podsGvr, replicaSets } from '../../api/resources.ts';
import type { Action } from './action.ts';
import { claim } from './ownership.ts';
import { byDeletionPreference, isActive, isAvailable, isReady } from './pod-state.ts';
import { stableJson, podFromTemplate } from './template.ts';

/** `podsInNamespace` includes pods of others; orphans that match are adopted. */
export function planReplicaSet(set: ReplicaSet, podsInNamespace: readonly Pod[], nowMs: number): Action[] {
  if (set.spec === undefined) return [];
  const { owned, actions } = claim({ owner: replicaSets, object: podsGvr }, set, set.spec.selector, podsInNamespace);
  const active = owned.filter(isActive);
  const deleting = set.metadata?.deletionTimestamp !== undefined;
  const scaling = deleting || actions.length > 0 ? [] : planScale(set, active);
  return [...(deleting ? [] : actions), ...scaling, ...planStatus(set, active, nowMs)];
}

/** Adoption comes first: a pod taken in may be the one that is missing. */
function planScale(set: ReplicaSet, active: readonly Pod[]): Action[] {
  const missing = (set.spec?.replicas ?? 1) - active.length;
  if (missing > 0) return Array.from({ length: missing }, () => createPod(set));
  return [...active]
    .sort(byDeletionPreference(active))
    .slice(0, -missing)
    .map((pod) => deletePod(set, pod));
}

function createPod(set: ReplicaSet): Action {
  const object = podFromTemplate(replicaSets, set, set.spec?.template ?? {}, {
    generateName: `${set.metadata?.name}-`,
  });
  const failure = { reason: 'FailedCreate', message: 'Error creating' };
  const note = {
    about: set,
    aboutGvr: replicaSets,
    reason: 'SuccessfulCreate',
    message: 'Created pod: {name}',
    failure,
  };
  return { verb: 'create', gvr: podsGvr, object, note };
}

function deletePod(set: ReplicaSet, pod: Pod): Action {
  const failure = { reason: 'FailedDelete', message: 'Error deleting' };
  const note = {
    about: set,
    aboutGvr: replicaSets,
    reason: 'SuccessfulDelete',
    message: 'Deleted pod: {name}',
    failure,
  };
  return { verb: 'delete', gvr: podsGvr, object: pod, note };
}

function planStatus(set: ReplicaSet, active: readonly Pod[], nowMs: number): Action[] {
  const labels = Object.entries(set.spec?.template?.metadata?.labels ?? {});
  const minReadySeconds = set.spec?.minReadySeconds ?? 0;
  const status = {
    ...set.status,
    replicas: active.length,
    fullyLabeledReplicas: active.filter((pod) => labels.every(([k, v]) => pod.metadata?.labels?.[k] === v)).length,
    readyReplicas: active.filter(isReady).length,
    availableReplicas: active.filter((pod) => isAvailable(pod, minReadySeconds, nowMs)).length,
    observedGeneration: set.metadata?.generation,
  };
  if (sameStatus(status, set.status)) return [];
  return [{ verb: 'status', gvr: replicaSets, object: { ...set, status } as ReplicaSet }];
}

/** Zero counts are left out by a Go server (omitempty). */
export function sameStatus(wanted: object, actual: object | undefined): boolean {
  return stableJson(dropZeros(wanted)) === stableJson(dropZeros(actual ?? {}));
}

function dropZeros(status: object): object {
  return Object.fromEntries(Object.entries(status).filter(([, value]) => value !== 0 && value !== undefined));
}
