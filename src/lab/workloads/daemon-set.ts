/** DaemonSet: one pod on every node that its template admits. */

import type { DaemonSet, Node, Pod, PodSpec, Toleration } from '../../api/kubernetes.ts';
import { daemonSets, pods as podsGvr } from '../../api/resources.ts';
import type { Action } from './action.ts';
import { matchesNode, tolerates } from './node-fit.ts';
import { claim } from './ownership.ts';
import { isFinished, isReady, isTerminating } from './pod-state.ts';
import { sameStatus } from './replica-set.ts';
import { intOrPercent } from './rollout.ts';
import { podFromTemplate, revisionHashLabel, templateHash } from './template.ts';

/** What every daemon endures (kubernetes pkg/controller/daemon/util, AddOrUpdateDaemonPodTolerations). */
const daemonTolerations: readonly Toleration[] = [
  ...['not-ready', 'unreachable'].map((key) => ({
    key: `node.kubernetes.io/${key}`,
    operator: 'Exists',
    effect: 'NoExecute',
  })),
  ...['disk-pressure', 'memory-pressure', 'pid-pressure', 'unschedulable'].map((key) => ({
    key: `node.kubernetes.io/${key}`,
    operator: 'Exists',
    effect: 'NoSchedule',
  })),
];

interface Daemons {
  readonly set: DaemonSet;
  readonly wanted: readonly string[];
  readonly pods: readonly Pod[];
  readonly hash: string;
}

export function planDaemonSet(set: DaemonSet, podsInNamespace: readonly Pod[], nodes: readonly Node[]): Action[] {
  if (set.spec === undefined) return [];
  const { owned, actions } = claim({ owner: daemonSets, object: podsGvr }, set, set.spec.selector, podsInNamespace);
  const sample = { spec: withTolerations(set.spec.template.spec) } as Pod;
  const fits = (node: Node): boolean =>
    matchesNode(sample, node) && (node.spec?.taints ?? []).every((taint) => tolerates(sample, taint));
  const wanted = nodes.filter(fits).map(({ metadata }) => metadata?.name ?? '');
  const daemons = { set, wanted, pods: owned, hash: templateHash(set.spec.template) };
  const status = planStatus(daemons);
  if (set.metadata?.deletionTimestamp !== undefined) return status;
  if (actions.length > 0) return [...actions];
  const placement = planPlacement(daemons);
  return [...placement, ...(placement.length > 0 ? [] : planUpdate(daemons)), ...status];
}

/** A terminating pod still holds its node's place. */
function planPlacement(daemons: Daemons): Action[] {
  const { pods, wanted } = daemons;
  const kept = new Set<string>();
  const doomed: Pod[] = [];
  for (const pod of pods) {
    const node = pod.spec?.nodeName ?? '';
    if (isTerminating(pod)) kept.add(node);
    else if (isFinished(pod) || !wanted.includes(node) || kept.has(node)) doomed.push(pod);
    else kept.add(node);
  }
  const leaving = new Set(doomed.map(({ spec }) => spec?.nodeName));
  const missing = wanted.filter((node) => !kept.has(node) && !leaving.has(node));
  return [...doomed.map((pod) => deletePod(daemons, pod)), ...missing.map((node) => createPod(daemons, node))];
}

/** Old pods go as long as no more than maxUnavailable nodes (default 1) are without a ready pod. */
function planUpdate(daemons: Daemons): Action[] {
  const { set, pods, wanted, hash } = daemons;
  if (set.spec?.updateStrategy?.type === 'OnDelete') return [];
  const old = pods.filter((pod) => pod.metadata?.labels?.[revisionHashLabel] !== hash && !isTerminating(pod));
  const maxUnavailable = intOrPercent(
    set.spec?.updateStrategy?.rollingUpdate?.maxUnavailable ?? 1,
    wanted.length,
    Math.ceil,
  );
  const unavailable = wanted.length - pods.filter((pod) => isReady(pod) && !isTerminating(pod)).length;
  const broken = old.filter((pod) => !isReady(pod));
  const sound = old.filter(isReady).slice(0, Math.max(0, maxUnavailable - unavailable));
  return [...broken, ...sound].map((pod) => deletePod(daemons, pod));
}

/** The node is set here: there is nothing to choose, and daemons must come up before a node can be scheduled to. */
function createPod({ set, hash }: Daemons, nodeName: string): Action {
  const identity = { generateName: `${set.metadata?.name}-`, labels: { [revisionHashLabel]: hash } };
  const pod = podFromTemplate(daemonSets, set, set.spec?.template ?? {}, identity);
  const object = { ...pod, spec: { ...withTolerations(pod.spec), nodeName } } as Pod;
  return { verb: 'create', gvr: podsGvr, object, note: note(set, 'Create', 'Created') };
}

function deletePod({ set }: Daemons, pod: Pod): Action {
  return { verb: 'delete', gvr: podsGvr, object: pod, note: note(set, 'Delete', 'Deleted') };
}

function note(set: DaemonSet, verb: 'Create' | 'Delete', done: string): Action['note'] {
  const failure = { reason: `Failed${verb}`, message: `Error ${verb === 'Create' ? 'creating' : 'deleting'}` };
  return { about: set, aboutGvr: daemonSets, reason: `Successful${verb}`, message: `${done} pod: {name}`, failure };
}

function withTolerations(spec: PodSpec | undefined): PodSpec {
  return { containers: [], ...spec, tolerations: [...(spec?.tolerations ?? []), ...daemonTolerations] };
}

function planStatus({ set, wanted, pods, hash }: Daemons): Action[] {
  const alive = pods.filter((pod) => !isTerminating(pod) && !isFinished(pod));
  const placed = alive.filter(({ spec }) => wanted.includes(spec?.nodeName ?? ''));
  const numberReady = placed.filter(isReady).length;
  const status = {
    ...set.status,
    observedGeneration: set.metadata?.generation,
    desiredNumberScheduled: wanted.length,
    currentNumberScheduled: placed.length,
    numberMisscheduled: alive.length - placed.length,
    numberReady,
    numberAvailable: numberReady,
    numberUnavailable: wanted.length - numberReady,
    updatedNumberScheduled: placed.filter((pod) => pod.metadata?.labels?.[revisionHashLabel] === hash).length,
  };
  if (sameStatus(status, set.status)) return [];
  return [{ verb: 'status', gvr: daemonSets, object: { ...set, status } as DaemonSet }];
}
