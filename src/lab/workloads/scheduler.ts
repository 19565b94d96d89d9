/** Which node each waiting pod goes to: where the fewest pods of the same owner are, then the fewest pods at all. */

import type { Node, Pod } from '../../api/kubernetes.ts';
import { whyNot, type Placed } from './node-fit.ts';
import { controllerOf } from './ownership.ts';
import { isFinished, isTerminating } from './pod-state.ts';

export interface Decision {
  readonly pod: Pod;
  /** Undefined: it stays where it is, for this reason. */
  readonly nodeName?: string;
  readonly reason?: string;
}

/**
 * Decides for all pods without a node, oldest first; each decision counts for the next. `assumed` are bindings that
 * were made but do not show in the pods yet (pod uid → node).
 */
export function planScheduling(
  pods: readonly Pod[],
  nodes: readonly Node[],
  assumed: ReadonlyMap<string, string>,
): Decision[] {
  const placed: Placed[] = [];
  const waiting: Pod[] = [];
  for (const pod of pods) {
    const nodeName = (pod.spec?.nodeName || assumed.get(pod.metadata?.uid ?? '')) ?? '';
    if (nodeName !== '') {
      if (!isFinished(pod)) placed.push({ pod, nodeName });
    } else if (!isTerminating(pod) && !isFinished(pod) && isOurs(pod)) waiting.push(pod);
  }
  return waiting.sort(byAge).map((pod) => {
    const decision = decide(pod, nodes, placed);
    if (decision.nodeName !== undefined) placed.push({ pod, nodeName: decision.nodeName });
    return decision;
  });
}

/** A pod that asks for another scheduler is left to it (PodSpec.schedulerName). */
function isOurs({ spec }: Pod): boolean {
  return (spec?.schedulerName ?? 'default-scheduler') === 'default-scheduler';
}

function decide(pod: Pod, nodes: readonly Node[], placed: readonly Placed[]): Decision {
  const refusals = new Map<string, number>();
  const fitting: string[] = [];
  for (const node of nodes) {
    const reason = whyNot(pod, node, placed, nodes);
    if (reason === undefined) fitting.push(node.metadata?.name ?? '');
    else refusals.set(reason, (refusals.get(reason) ?? 0) + 1);
  }
  const nodeName = leastLoaded(pod, fitting, placed);
  return nodeName === undefined ? { pod, reason: explain(nodes.length, refusals) } : { pod, nodeName };
}

function leastLoaded(pod: Pod, names: readonly string[], placed: readonly Placed[]): string | undefined {
  const owner = controllerOf(pod)?.uid;
  const score = (name: string): [number, number] => {
    const here = placed.filter(({ nodeName }) => nodeName === name);
    return [
      owner === undefined ? 0 : here.filter((other) => controllerOf(other.pod)?.uid === owner).length,
      here.length,
    ];
  };
  const ranked = names.map((name) => ({ name, score: score(name) }));
  ranked.sort((a, b) => a.score[0] - b.score[0] || a.score[1] - b.score[1] || (a.name < b.name ? -1 : 1));
  return ranked[0]?.name;
}

/** "0/2 nodes are available: 1 node(s) were unschedulable, 1 node(s) didn't match Pod's node affinity/selector." */
function explain(total: number, refusals: ReadonlyMap<string, number>): string {
  if (total === 0) return 'no nodes available to schedule pods';
  const parts = [...refusals].map(([reason, count]) => `${count} ${reason}`).sort();
  return `0/${total} nodes are available: ${parts.join(', ')}.`;
}

function byAge(a: Pod, b: Pod): number {
  const [left, right] = [a, b].map(
    (pod) => `${pod.metadata?.creationTimestamp} ${pod.metadata?.namespace}/${pod.metadata?.name}`,
  );
  return (left ?? '') < (right ?? '') ? -1 : 1;
}
