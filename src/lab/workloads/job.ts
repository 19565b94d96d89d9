/**
 * Job: pods until enough of them have succeeded, or too many have failed. The lab has no use for what Kubernetes does
 * besides: it makes a pod anew at once, has no indexes or policies, and does not count pods that are deleted.
 */

import type { Condition, Job, Pod } from '../../api/kubernetes.ts';
import { jobs, pods as podsGvr } from '../../api/resources.ts';
import type { Action } from './action.ts';
import { claim } from './ownership.ts';
import { byDeletionPreference, isActive, isReady } from './pod-state.ts';
import { sameStatus } from './replica-set.ts';
import { podFromTemplate } from './template.ts';
import { timestamp } from '../../core/timestamp.ts';

interface End {
  readonly type: 'Complete' | 'Failed';
  readonly reason: string;
  readonly message: string;
}

/** `podsInNamespace` includes pods of others. */
export function planJob(job: Job, podsInNamespace: readonly Pod[], nowMs: number): Action[] {
  if (job.spec === undefined || job.metadata?.deletionTimestamp !== undefined) return [];
  if (hasEnded(job)) return planRemoval(job, nowMs);
  const { selector = { matchLabels: {} } } = job.spec;
  const { owned, actions } = claim({ owner: jobs, object: podsGvr }, job, selector, podsInNamespace);
  if (actions.length > 0) return [...actions];
  const active = owned.filter(isActive);
  const count = (phase: string): number => owned.filter(({ status }) => status?.phase === phase).length;
  const [succeeded, failed] = [count('Succeeded'), count('Failed')];
  const end = endOf(job, active.length, succeeded, failed);
  const missing = (end === undefined ? wantedOf(job, active.length, succeeded) : 0) - active.length;
  const surplus = [...active].sort(byDeletionPreference(active)).slice(0, Math.max(0, -missing));
  return [
    ...Array.from({ length: Math.max(0, missing) }, () => createPod(job)),
    ...surplus.map((pod) => deletePod(job, pod)),
    ...planStatus(job, { active, succeeded, failed, end }, nowMs),
  ];
}

function hasEnded({ status }: Job): boolean {
  return status?.conditions?.some(({ type, status: is }) => isEnd(type) && is === 'True') === true;
}

function isEnd(type: string): boolean {
  return type === 'Complete' || type === 'Failed';
}

function planRemoval(job: Job, nowMs: number): Action[] {
  const seconds = job.spec?.ttlSecondsAfterFinished;
  const end = job.status?.conditions?.find(({ type }) => isEnd(type))?.lastTransitionTime ?? '';
  if (seconds === undefined || nowMs < Date.parse(end) + seconds * 1000) return [];
  return [{ verb: 'delete', gvr: jobs, object: job }];
}

/** Without completions the pods share a queue: the first that succeeds says that it is empty, the others finish. */
function endOf(job: Job, active: number, succeeded: number, failed: number): End | undefined {
  const { completions, backoffLimit = 6 } = job.spec ?? {};
  if (failed > backoffLimit) {
    const message = 'Job has reached the specified backoff limit';
    return { type: 'Failed', reason: 'BackoffLimitExceeded', message };
  }
  const complete = completions === undefined ? succeeded > 0 && active === 0 : succeeded >= completions;
  if (!complete) return undefined;
  return { type: 'Complete', reason: 'CompletionsReached', message: 'Reached expected number of succeeded pods' };
}

function wantedOf(job: Job, active: number, succeeded: number): number {
  const { parallelism = 1, completions, suspend = false } = job.spec ?? {};
  if (suspend) return 0;
  if (completions === undefined) return succeeded > 0 ? Math.min(active, parallelism) : parallelism;
  return Math.min(parallelism, completions - succeeded);
}

function createPod(job: Job): Action {
  const object = podFromTemplate(jobs, job, job.spec?.template ?? {}, { generateName: `${job.metadata?.name}-` });
  return { verb: 'create', gvr: podsGvr, object, note: note(job, 'Create', 'Created') };
}

function deletePod(job: Job, pod: Pod): Action {
  return { verb: 'delete', gvr: podsGvr, object: pod, note: note(job, 'Delete', 'Deleted') };
}

function note(job: Job, verb: 'Create' | 'Delete', done: string): Action['note'] {
  const failure = { reason: `Failed${verb}`, message: `Error ${verb === 'Create' ? 'creating' : 'deleting'}` };
  return { about: job, aboutGvr: jobs, reason: `Successful${verb}`, message: `${done} pod: {name}`, failure };
}

interface Count {
  readonly active: readonly Pod[];
  readonly succeeded: number;
  readonly failed: number;
  readonly end: End | undefined;
}

function planStatus(job: Job, { active, succeeded, failed, end }: Count, nowMs: number): Action[] {
  const now = timestamp(nowMs);
  const status = {
    ...job.status,
    startTime: job.status?.startTime ?? now,
    ...{ succeeded, failed },
    active: end === undefined ? active.length : 0,
    ready: end === undefined ? active.filter(isReady).length : 0,
    ...(end?.type === 'Complete' && { completionTime: now }),
    ...(end !== undefined && { conditions: [...(job.status?.conditions ?? []), conditionOf(end, now)] }),
  };
  if (sameStatus(status, job.status)) return [];
  return [{ verb: 'status', gvr: jobs, object: { ...job, status } as Job, ...(end && { note: endNote(job, end) }) }];
}

function conditionOf({ type, reason, message }: End, now: string): Condition {
  return { type, status: 'True', reason, message, lastProbeTime: now, lastTransitionTime: now };
}

function endNote(job: Job, { type, reason, message }: End): NonNullable<Action['note']> {
  const completed = { reason: 'Completed', message: 'Job completed' };
  return { about: job, aboutGvr: jobs, ...(type === 'Complete' ? completed : { reason, message }) };
}
