/** What the controllers ask about a pod. */

import type { Pod } from '../../api/kubernetes.ts';

export function isTerminating(pod: Pod): boolean {
  return pod.metadata?.deletionTimestamp !== undefined;
}

/** Ended for good: its restart policy lets nothing start again. */
export function isFinished(pod: Pod): boolean {
  return pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
}

/** Counts towards a controller's replicas. */
export function isActive(pod: Pod): boolean {
  return !isTerminating(pod) && !isFinished(pod);
}

export function isReady(pod: Pod): boolean {
  return readyCondition(pod)?.status === 'True';
}

/** Ready for at least minReadySeconds. */
export function isAvailable(pod: Pod, minReadySeconds: number, nowMs: number): boolean {
  if (!isReady(pod) || isTerminating(pod)) return false;
  if (minReadySeconds === 0) return true;
  const sinceMs = Date.parse(readyCondition(pod)?.lastTransitionTime ?? '');
  return nowMs - sinceMs >= minReadySeconds * 1000;
}

/**
 * Which pod a controller gives up first: unscheduled, then pending, then not ready, then where more of its siblings
 * are on the same node, then the one ready for the shortest time, then the youngest
 * (kubernetes pkg/controller/controller_utils.go, ActivePodsWithRanks).
 */
export function byDeletionPreference(siblings: readonly Pod[]): (a: Pod, b: Pod) => number {
  const perNode = new Map<string, number>();
  for (const { spec } of siblings) perNode.set(spec?.nodeName ?? '', (perNode.get(spec?.nodeName ?? '') ?? 0) + 1);
  const rank = (pod: Pod): number[] => [
    Number((pod.spec?.nodeName ?? '') !== ''),
    ['Pending', 'Unknown', 'Running'].indexOf(pod.status?.phase ?? 'Pending'),
    Number(isReady(pod)),
    -(perNode.get(pod.spec?.nodeName ?? '') ?? 0),
    isReady(pod) ? -Date.parse(readyCondition(pod)?.lastTransitionTime ?? '') : 0,
    -Date.parse(pod.metadata?.creationTimestamp ?? ''),
  ];
  return (a, b) => {
    const [left, right] = [rank(a), rank(b)];
    const at = left.findIndex((value, index) => value !== right[index]);
    return at < 0 ? compareNames(a, b) : (left[at] ?? 0) - (right[at] ?? 0) || compareNames(a, b);
  };
}

function compareNames(a: Pod, b: Pod): number {
  return (a.metadata?.name ?? '') < (b.metadata?.name ?? '') ? -1 : 1;
}

function readyCondition(pod: Pod): { readonly status: string; readonly lastTransitionTime?: string } | undefined {
  return pod.status?.conditions?.find(({ type }) => type === 'Ready');
}
