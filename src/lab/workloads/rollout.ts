/**
 * How many replicas each revision should have next (kubernetes pkg/controller/deployment/rolling.go). Never more than
 * desired + maxSurge pods in all, never fewer than desired − maxUnavailable available ones by our doing.
 */

export interface RevisionCounts {
  /** As the set's spec asks for. */
  readonly replicas: number;
  readonly available: number;
  readonly active: number;
  /** With those that are still terminating. */
  readonly existing: number;
}

export interface Rollout {
  readonly desired: number;
  readonly paused: boolean;
  readonly recreate: boolean;
  /** A count or a percentage of desired, "25%". */
  readonly maxSurge: number | string;
  readonly maxUnavailable: number | string;
  readonly current: RevisionCounts | undefined;
  /** Oldest first. */
  readonly old: readonly RevisionCounts[];
}

export interface WantedReplicas {
  readonly current: number;
  readonly old: readonly number[];
}

export function planRollout(rollout: Rollout): WantedReplicas {
  if (rollout.paused) return planPaused(rollout);
  if (rollout.recreate) return planRecreate(rollout);
  const current = growCurrent(rollout);
  // One direction at a time: what just grew is not available yet anyway.
  if (current !== rollout.current?.replicas) return { current, old: rollout.old.map(({ replicas }) => replicas) };
  return { current, old: shrinkOld(rollout) };
}

export interface RolloutLimits {
  readonly surge: number;
  readonly unavailable: number;
}

/** Surge rounds up and unavailability down; both may not be zero, or nothing could move. */
export function rolloutLimits({
  desired,
  maxSurge,
  maxUnavailable,
}: Pick<Rollout, 'desired' | 'maxSurge' | 'maxUnavailable'>): RolloutLimits {
  const surge = intOrPercent(maxSurge, desired, Math.ceil);
  const unavailable = Math.min(intOrPercent(maxUnavailable, desired, Math.floor), desired);
  return surge === 0 && unavailable === 0 ? { surge, unavailable: 1 } : { surge, unavailable };
}

/** An unreadable percentage counts as 0; the API server refuses it anyway. */
export function intOrPercent(value: number | string, of: number, round: (x: number) => number): number {
  if (typeof value === 'number') return value;
  const percent = /^(\d+)%$/.exec(value);
  return percent === null ? 0 : round((Number(percent[1]) * of) / 100);
}

/** Only a deployment with one living revision follows its replica count while paused. */
function planPaused({ current, old, desired }: Rollout): WantedReplicas {
  const keep = { current: current?.replicas ?? 0, old: old.map(({ replicas }) => replicas) };
  const livingOld = old.filter(({ replicas }) => replicas > 0);
  if (livingOld.length === 0) return { ...keep, current: desired };
  if (livingOld.length > 1 || keep.current > 0) return keep;
  return { ...keep, old: old.map(({ replicas }) => (replicas > 0 ? desired : 0)) };
}

function planRecreate({ current, old, desired }: Rollout): WantedReplicas {
  const gone = old.every(({ replicas, existing }) => replicas === 0 && existing === 0);
  return { current: gone ? desired : (current?.replicas ?? 0), old: old.map(() => 0) };
}

function growCurrent(rollout: Rollout): number {
  const { desired, old } = rollout;
  const now = rollout.current?.replicas ?? 0;
  if (now >= desired) return desired;
  const room = desired + rolloutLimits(rollout).surge - sum(old, 'replicas') - now;
  return room <= 0 ? now : Math.min(desired, now + room);
}

function shrinkOld(rollout: Rollout): number[] {
  const { desired, old, current } = rollout;
  const minAvailable = desired - rolloutLimits(rollout).unavailable;
  const currentReplicas = current?.replicas ?? 0;
  const currentAvailable = Math.min(current?.available ?? 0, currentReplicas);
  const wanted = old.map(({ replicas }) => replicas);
  let removable = currentReplicas + sum(old, 'replicas') - minAvailable - (currentReplicas - currentAvailable);
  // Broken pods first: taking them away costs no availability.
  old.forEach(({ replicas, available }, index) => {
    const broken = Math.min(Math.max(0, replicas - available), Math.max(0, removable));
    wanted[index] = replicas - broken;
    removable -= broken;
  });
  let spare =
    currentAvailable +
    old.reduce((total, { available, replicas }) => total + Math.min(available, replicas), 0) -
    minAvailable;
  return wanted.map((replicas) => {
    const less = Math.min(replicas, Math.max(0, spare));
    spare -= less;
    return replicas - less;
  });
}

function sum(counts: readonly RevisionCounts[], field: keyof RevisionCounts): number {
  return counts.reduce((total, count) => total + count[field], 0);
}
