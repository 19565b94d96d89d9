/** Deployment status as `kubectl rollout status`, `get` and `wait` read it. */

import type { Condition, Deployment, Pod } from '../../api/kubernetes.ts';
import { deployments } from '../../api/resources.ts';
import type { Action } from './action.ts';
import type { DeploymentParts } from './deployment.ts';
import { isActive, isAvailable, isReady } from './pod-state.ts';
import { sameStatus } from './replica-set.ts';
import { rolloutLimits } from './rollout.ts';
import { timestamp } from '../../core/timestamp.ts';

type Status = NonNullable<Deployment['status']>;

const defaultProgressDeadlineSeconds = 600;

export function planDeploymentStatus(deployment: Deployment, parts: DeploymentParts, nowMs: number): Action[] {
  const counts = countPods(deployment, parts, nowMs);
  const status: Status = {
    ...deployment.status,
    ...counts,
    conditions: nextConditions(deployment, parts, counts, nowMs),
  };
  if (sameStatus(status, deployment.status)) return [];
  return [{ verb: 'status', gvr: deployments, object: { ...deployment, status } as Deployment }];
}

function countPods(deployment: Deployment, { current, old, podsOf }: DeploymentParts, nowMs: number): Status {
  const minReadySeconds = deployment.spec?.minReadySeconds ?? 0;
  const updated = current === undefined ? [] : podsOf(current).filter(isActive);
  const all: Pod[] = [...updated, ...old.flatMap((set) => podsOf(set).filter(isActive))];
  const availableReplicas = all.filter((pod) => isAvailable(pod, minReadySeconds, nowMs)).length;
  return {
    observedGeneration: deployment.metadata?.generation,
    replicas: all.length,
    updatedReplicas: updated.length,
    readyReplicas: all.filter(isReady).length,
    availableReplicas,
    unavailableReplicas: Math.max(0, Math.max(all.length, deployment.spec?.replicas ?? 1) - availableReplicas),
  };
}

function nextConditions(deployment: Deployment, parts: DeploymentParts, counts: Status, nowMs: number): Condition[] {
  const before = deployment.status?.conditions ?? [];
  const wanted = [availableCondition(deployment, counts), progressingCondition(deployment, parts, counts, nowMs)];
  const kept = before.filter(({ type }) => !wanted.some((condition) => condition.type === type));
  const progressed = hasProgressed(deployment.status ?? {}, counts);
  return [...kept, ...wanted.map((condition) => stamp(condition, before, progressed, nowMs))];
}

function availableCondition(deployment: Deployment, counts: Status): Condition {
  const desired = deployment.spec?.replicas ?? 1;
  const { maxSurge = '25%', maxUnavailable = '25%' } = deployment.spec?.strategy?.rollingUpdate ?? {};
  const recreate = deployment.spec?.strategy?.type === 'Recreate';
  const unavailable = recreate ? 0 : rolloutLimits({ desired, maxSurge, maxUnavailable }).unavailable;
  const enough = (counts.availableReplicas ?? 0) >= desired - unavailable;
  return enough
    ? {
        type: 'Available',
        status: 'True',
        reason: 'MinimumReplicasAvailable',
        message: 'Deployment has minimum availability.',
      }
    : {
        type: 'Available',
        status: 'False',
        reason: 'MinimumReplicasUnavailable',
        message: 'Deployment does not have minimum availability.',
      };
}

function progressingCondition(
  deployment: Deployment,
  { current }: DeploymentParts,
  counts: Status,
  nowMs: number,
): Condition {
  const type = 'Progressing';
  const name = current?.metadata?.name;
  const what = name === undefined ? `Deployment "${deployment.metadata?.name}"` : `ReplicaSet "${name}"`;
  if (deployment.spec?.paused === true)
    return { type, status: 'Unknown', reason: 'DeploymentPaused', message: 'Deployment is paused' };
  if (isComplete(deployment, counts) && name !== undefined) {
    return { type, status: 'True', reason: 'NewReplicaSetAvailable', message: `${what} has successfully progressed.` };
  }
  if (hasTimedOut(deployment, counts, nowMs)) {
    return { type, status: 'False', reason: 'ProgressDeadlineExceeded', message: `${what} has timed out progressing.` };
  }
  if (name === undefined)
    return { type, status: 'True', reason: 'NewReplicaSetCreated', message: `Created new replica set for ${what}` };
  return { type, status: 'True', reason: 'ReplicaSetUpdated', message: `${what} is progressing.` };
}

function isComplete(deployment: Deployment, counts: Status): boolean {
  const desired = deployment.spec?.replicas ?? 1;
  return counts.updatedReplicas === desired && counts.replicas === desired && counts.availableReplicas === desired;
}

function hasTimedOut(deployment: Deployment, counts: Status, nowMs: number): boolean {
  const before = deployment.status?.conditions?.find(({ type }) => type === 'Progressing');
  const outdated = (deployment.status?.observedGeneration ?? 0) < (deployment.metadata?.generation ?? 0);
  if (before === undefined || outdated || hasProgressed(deployment.status ?? {}, counts)) return false;
  if (before.reason === 'ProgressDeadlineExceeded') return true;
  if (before.reason === 'NewReplicaSetAvailable') return false;
  const deadlineSeconds = deployment.spec?.progressDeadlineSeconds ?? defaultProgressDeadlineSeconds;
  return nowMs - Date.parse(before.lastUpdateTime ?? '') > deadlineSeconds * 1000;
}

/** More new pods, fewer old ones, more ready or available ones. */
function hasProgressed(before: Status, after: Status): boolean {
  const old = (status: Status): number => (status.replicas ?? 0) - (status.updatedReplicas ?? 0);
  return (
    (after.updatedReplicas ?? 0) > (before.updatedReplicas ?? 0) ||
    old(after) < old(before) ||
    (after.readyReplicas ?? 0) > (before.readyReplicas ?? 0) ||
    (after.availableReplicas ?? 0) > (before.availableReplicas ?? 0)
  );
}

/** lastTransitionTime follows the status, lastUpdateTime also the reason and any progress. */
function stamp(condition: Condition, before: readonly Condition[], progressed: boolean, nowMs: number): Condition {
  const old = before.find(({ type }) => type === condition.type);
  const now = timestamp(nowMs);
  const sameState =
    old?.status === condition.status && old.reason === condition.reason && old.message === condition.message;
  const still = sameState && !(progressed && condition.type === 'Progressing');
  return {
    ...condition,
    lastUpdateTime: still ? (old.lastUpdateTime ?? now) : now,
    lastTransitionTime: old?.status === condition.status ? (old.lastTransitionTime ?? now) : now,
  };
}
