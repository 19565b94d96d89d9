/** Deployment: one ReplicaSet per template, and the way from the old ones to the new. */

import type { Deployment, Pod, ReplicaSet } from '../../api/kubernetes.ts';
import { deployments, replicaSets } from '../../api/resources.ts';
import type { LabelSelector } from '../../core/labels.ts';
import type { Action } from './action.ts';
import { planDeploymentStatus } from './deployment-status.ts';
import { claim, isControlledBy, ownerReference } from './ownership.ts';
import { isActive, isAvailable } from './pod-state.ts';
import { planRollout, type Rollout } from './rollout.ts';
import { templateHash, templateHashLabel } from './template.ts';

export const revisionAnnotation = 'deployment.kubernetes.io/revision';
const lastAppliedAnnotation = 'kubectl.kubernetes.io/last-applied-configuration';
const defaultHistoryLimit = 10;

export interface DeploymentParts {
  readonly current: ReplicaSet | undefined;
  /** Oldest first. */
  readonly old: readonly ReplicaSet[];
  readonly podsOf: (set: ReplicaSet) => readonly Pod[];
}

export function planDeployment(
  deployment: Deployment,
  setsInNamespace: readonly ReplicaSet[],
  podsInNamespace: readonly Pod[],
  nowMs: number,
): Action[] {
  if (deployment.spec === undefined) return [];
  const gvr = { owner: deployments, object: replicaSets };
  const { owned, actions } = claim(gvr, deployment, deployment.spec.selector, setsInNamespace);
  const parts = splitSets(deployment, owned, (set) => podsInNamespace.filter((pod) => isControlledBy(pod, set)));
  const status = planDeploymentStatus(deployment, parts, nowMs);
  if (deployment.metadata?.deletionTimestamp !== undefined) return status;
  if (actions.length > 0) return [...actions];
  return [...planSets(deployment, parts, nowMs), ...status];
}

function splitSets(
  deployment: Deployment,
  owned: readonly ReplicaSet[],
  podsOf: DeploymentParts['podsOf'],
): DeploymentParts {
  const hash = templateHash(deployment.spec?.template ?? {});
  const alive = owned.filter(({ metadata }) => metadata?.deletionTimestamp === undefined);
  const current = alive.find(({ metadata }) => metadata?.labels?.[templateHashLabel] === hash);
  const old = alive.filter((set) => set !== current).sort((a, b) => revisionOf(a) - revisionOf(b));
  return { current, old, podsOf };
}

function planSets(deployment: Deployment, parts: DeploymentParts, nowMs: number): Action[] {
  const rollout = describeRollout(deployment, parts, nowMs);
  if (parts.current === undefined) {
    return rollout.paused ? planScaling(deployment, parts, rollout) : [createSet(deployment, parts, rollout)];
  }
  return [
    ...planRevision(deployment, parts, parts.current),
    ...planScaling(deployment, parts, rollout),
    ...planHistory(deployment, parts),
  ];
}

function describeRollout(deployment: Deployment, { current, old, podsOf }: DeploymentParts, nowMs: number): Rollout {
  const minReadySeconds = deployment.spec?.minReadySeconds ?? 0;
  const count = (set: ReplicaSet): Rollout['old'][number] => ({
    replicas: set.spec?.replicas ?? 0,
    available: podsOf(set).filter((pod) => isAvailable(pod, minReadySeconds, nowMs)).length,
    active: podsOf(set).filter(isActive).length,
    existing: podsOf(set).length,
  });
  return {
    desired: deployment.spec?.replicas ?? 1,
    paused: deployment.spec?.paused ?? false,
    recreate: deployment.spec?.strategy?.type === 'Recreate',
    maxSurge: deployment.spec?.strategy?.rollingUpdate?.maxSurge ?? '25%',
    maxUnavailable: deployment.spec?.strategy?.rollingUpdate?.maxUnavailable ?? '25%',
    current: current === undefined ? undefined : count(current),
    old: old.map(count),
  };
}

function planScaling(deployment: Deployment, { current, old }: DeploymentParts, rollout: Rollout): Action[] {
  const wanted = planRollout(rollout);
  const sets = [...old.map((set, index) => ({ set, replicas: wanted.old[index] ?? 0 }))];
  if (current !== undefined) sets.push({ set: current, replicas: wanted.current });
  return sets
    .filter(({ set, replicas }) => (set.spec?.replicas ?? 0) !== replicas)
    .map(({ set, replicas }) => scale(deployment, set, replicas));
}

function scale(deployment: Deployment, set: ReplicaSet, replicas: number): Action {
  const before = set.spec?.replicas ?? 0;
  const { resourceVersion } = set.metadata ?? {};
  const body = { metadata: { resourceVersion }, spec: { replicas } };
  return {
    verb: 'patch',
    gvr: replicaSets,
    object: set,
    body,
    note: scalingNote(deployment, set.metadata?.name ?? '', before, replicas),
  };
}

function scalingNote(deployment: Deployment, set: string, before: number, after: number): Action['note'] {
  const message = `Scaled ${after > before ? 'up' : 'down'} replica set ${set} from ${before} to ${after}`;
  const failure = { reason: 'ReplicaSetCreateError', message: `Failed to write replica set "${set}"` };
  return { about: deployment, aboutGvr: deployments, reason: 'ScalingReplicaSet', message, failure };
}

function createSet(deployment: Deployment, parts: DeploymentParts, rollout: Rollout): Action {
  const template = deployment.spec?.template ?? {};
  const hash = { [templateHashLabel]: templateHash(template) };
  const { name = '', namespace } = deployment.metadata ?? {};
  const setName = `${name}-${hash[templateHashLabel]}`;
  const replicas = planRollout({ ...rollout, current: { replicas: 0, available: 0, active: 0, existing: 0 } }).current;
  const selector: LabelSelector = deployment.spec?.selector ?? {};
  const object: ReplicaSet = {
    metadata: {
      name: setName,
      namespace,
      labels: { ...template.metadata?.labels, ...hash },
      annotations: { ...inheritedAnnotations(deployment), [revisionAnnotation]: String(nextRevision(parts)) },
      ownerReferences: [ownerReference(deployments, deployment)],
    },
    spec: {
      replicas,
      minReadySeconds: deployment.spec?.minReadySeconds,
      selector: { ...selector, matchLabels: { ...selector.matchLabels, ...hash } },
      template: { ...template, metadata: { ...template.metadata, labels: { ...template.metadata?.labels, ...hash } } },
    },
  };
  const note = replicas > 0 ? { note: scalingNote(deployment, setName, 0, replicas) } : {};
  return { verb: 'create', gvr: replicaSets, object, ...note };
}

function inheritedAnnotations(deployment: Deployment): Record<string, string> {
  const {
    [lastAppliedAnnotation]: _applied,
    [revisionAnnotation]: _revision,
    ...rest
  } = deployment.metadata?.annotations ?? {};
  return rest;
}

/** Going back to an earlier template makes its set the newest revision again. */
function planRevision(deployment: Deployment, parts: DeploymentParts, current: ReplicaSet): Action[] {
  const newestOld = Math.max(0, ...parts.old.map(revisionOf));
  const revision = String(revisionOf(current) > newestOld ? revisionOf(current) : newestOld + 1);
  const body = { metadata: { annotations: { [revisionAnnotation]: revision } } };
  const actions: Action[] = [];
  if (current.metadata?.annotations?.[revisionAnnotation] !== revision)
    actions.push({ verb: 'patch', gvr: replicaSets, object: current, body });
  if (deployment.metadata?.annotations?.[revisionAnnotation] !== revision)
    actions.push({ verb: 'patch', gvr: deployments, object: deployment, body });
  return actions;
}

function planHistory(deployment: Deployment, { old, podsOf }: DeploymentParts): Action[] {
  const limit = deployment.spec?.revisionHistoryLimit ?? defaultHistoryLimit;
  const unused = old.filter((set) => (set.spec?.replicas ?? 0) === 0 && podsOf(set).length === 0);
  return unused
    .slice(0, Math.max(0, unused.length - limit))
    .map((object) => ({ verb: 'delete', gvr: replicaSets, object }));
}

function nextRevision({ old }: DeploymentParts): number {
  return Math.max(0, ...old.map(revisionOf)) + 1;
}

export function revisionOf(set: ReplicaSet): number {
  return Number(set.metadata?.annotations?.[revisionAnnotation] ?? 0) || 0;
}
