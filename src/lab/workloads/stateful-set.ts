/** StatefulSet: pods NAME-0 … NAME-(n−1), made in order, removed in reverse. */

import type { Pod, StatefulSet } from '../../api/kubernetes.ts';
import { pods as podsGvr, statefulSets } from '../../api/resources.ts';
import type { Action } from './action.ts';
import { claim } from './ownership.ts';
import { isFinished, isReady, isTerminating } from './pod-state.ts';
import { sameStatus } from './replica-set.ts';
import { podFromTemplate, revisionHashLabel, templateHash } from './template.ts';

interface Ordinals {
  readonly set: StatefulSet;
  readonly byOrdinal: ReadonlyMap<number, Pod>;
  readonly replicas: number;
  readonly revision: string;
  readonly parallel: boolean;
}

export function planStatefulSet(set: StatefulSet, podsInNamespace: readonly Pod[]): Action[] {
  if (set.spec === undefined) return [];
  const { owned, actions } = claim({ owner: statefulSets, object: podsGvr }, set, set.spec.selector, podsInNamespace);
  const ordinals: Ordinals = {
    set,
    byOrdinal: new Map(owned.map((pod) => [ordinalOf(set, pod), pod])),
    replicas: set.spec.replicas ?? 1,
    revision: `${set.metadata?.name}-${templateHash(set.spec.template)}`,
    parallel: set.spec.podManagementPolicy === 'Parallel',
  };
  const status = planStatus(ordinals);
  if (set.metadata?.deletionTimestamp !== undefined) return status;
  if (actions.length > 0) return [...actions];
  return [...planPods(ordinals), ...status];
}

/** One step at a time unless Parallel: create or replace upwards, then scale down, then update downwards. */
function planPods(ordinals: Ordinals): Action[] {
  const missing = planMissing(ordinals);
  const actions = missing.actions.length > 0 || missing.waiting ? missing.actions : planSurplus(ordinals);
  if (ordinals.parallel && actions.length === 0) return planUpdate(ordinals);
  if (!ordinals.parallel && actions.length === 0 && !missing.waiting) return planUpdate(ordinals);
  return ordinals.parallel ? [...missing.actions, ...planSurplus(ordinals)] : actions;
}

function planMissing(ordinals: Ordinals): { readonly actions: Action[]; readonly waiting: boolean } {
  const actions: Action[] = [];
  for (let ordinal = 0; ordinal < ordinals.replicas; ordinal++) {
    const pod = ordinals.byOrdinal.get(ordinal);
    if (pod === undefined) actions.push(createPod(ordinals, ordinal));
    else if (isFinished(pod) && !isTerminating(pod)) actions.push(deletePod(ordinals, pod));
    else if (isReady(pod) && !isTerminating(pod)) continue;
    if (!ordinals.parallel) return { actions, waiting: !isReplaceableNow(ordinals, pod) };
  }
  return { actions, waiting: false };
}

/** A pod of an old revision that never becomes ready may be replaced, or a broken update could not be mended. */
function isReplaceableNow({ revision, set }: Ordinals, pod: Pod | undefined): boolean {
  if (pod === undefined || isTerminating(pod) || set.spec?.updateStrategy?.type === 'OnDelete') return false;
  return pod.metadata?.labels?.[revisionHashLabel] !== revision;
}

function planSurplus(ordinals: Ordinals): Action[] {
  const surplus = [...ordinals.byOrdinal].filter(([ordinal]) => ordinal >= ordinals.replicas).sort(([a], [b]) => b - a);
  if (!ordinals.parallel && surplus.some(([, pod]) => isTerminating(pod))) return [];
  const doomed = surplus.filter(([, pod]) => !isTerminating(pod)).map(([, pod]) => deletePod(ordinals, pod));
  return ordinals.parallel ? doomed : doomed.slice(0, 1);
}

/** From the highest ordinal down to the partition, each only when all above it are ready. */
function planUpdate(ordinals: Ordinals): Action[] {
  const { set, byOrdinal, replicas, revision } = ordinals;
  if (set.spec?.updateStrategy?.type === 'OnDelete') return [];
  const partition = set.spec?.updateStrategy?.rollingUpdate?.partition ?? 0;
  for (let ordinal = replicas - 1; ordinal >= partition; ordinal--) {
    const pod = byOrdinal.get(ordinal);
    if (pod === undefined || isTerminating(pod)) return [];
    if (pod.metadata?.labels?.[revisionHashLabel] !== revision) return [deletePod(ordinals, pod)];
    if (!isReady(pod)) return [];
  }
  return [];
}

function createPod({ set, revision }: Ordinals, ordinal: number): Action {
  const name = podName(set, ordinal);
  const labels = {
    [revisionHashLabel]: revision,
    'statefulset.kubernetes.io/pod-name': name,
    'apps.kubernetes.io/pod-index': String(ordinal),
  };
  const pod = podFromTemplate(statefulSets, set, set.spec?.template ?? {}, { name, labels });
  const object = { ...pod, spec: { ...pod.spec, hostname: name, subdomain: set.spec?.serviceName } } as Pod;
  return { verb: 'create', gvr: podsGvr, object, note: note(set, 'Create', name) };
}

function deletePod({ set }: Ordinals, pod: Pod): Action {
  return { verb: 'delete', gvr: podsGvr, object: pod, note: note(set, 'Delete', pod.metadata?.name ?? '') };
}

function note(set: StatefulSet, verb: 'Create' | 'Delete', pod: string): Action['note'] {
  const message = `${verb.toLowerCase()} Pod ${pod} in StatefulSet ${set.metadata?.name}`;
  const failure = { reason: `Failed${verb}`, message: `${message} failed error` };
  return { about: set, aboutGvr: statefulSets, reason: `Successful${verb}`, message: `${message} successful`, failure };
}

function planStatus({ set, byOrdinal, revision, replicas }: Ordinals): Action[] {
  const pods = [...byOrdinal.values()];
  const updated = pods.filter((pod) => pod.metadata?.labels?.[revisionHashLabel] === revision);
  const readyReplicas = pods.filter((pod) => isReady(pod) && !isTerminating(pod)).length;
  const complete = updated.length === replicas && pods.length === replicas && readyReplicas === replicas;
  const currentRevision = complete ? revision : (set.status?.currentRevision ?? revision);
  const status = {
    ...set.status,
    observedGeneration: set.metadata?.generation,
    replicas: pods.length,
    readyReplicas,
    availableReplicas: readyReplicas,
    updatedReplicas: updated.length,
    currentReplicas: pods.filter((pod) => pod.metadata?.labels?.[revisionHashLabel] === currentRevision).length,
    currentRevision,
    updateRevision: revision,
  };
  if (sameStatus(status, set.status)) return [];
  return [{ verb: 'status', gvr: statefulSets, object: { ...set, status } as StatefulSet }];
}

function podName(set: StatefulSet, ordinal: number): string {
  return `${set.metadata?.name}-${ordinal}`;
}

/** A pod with another name (adopted by hand) counts as surplus. */
function ordinalOf(set: StatefulSet, pod: Pod): number {
  const name = pod.metadata?.name ?? '';
  const prefix = `${set.metadata?.name}-`;
  const digits = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return /^(0|[1-9]\d*)$/.test(digits) ? Number(digits) : Number.MAX_SAFE_INTEGER;
}
