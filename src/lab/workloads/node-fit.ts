/** Whether a pod may run on a node, and if not, why, in the words of Kubernetes' scheduler. */

import type { Node, Pod, Taint, Toleration } from '../../api/kubernetes.ts';
import { matchesSelector, type Labels } from '../../core/labels.ts';

/** The parts of core/v1 NodeAffinity that count for placement. */
interface NodeSelectorTerm {
  readonly matchExpressions?: readonly NodeRequirement[];
  readonly matchFields?: readonly NodeRequirement[];
}
interface NodeRequirement {
  readonly key: string;
  readonly operator: string;
  readonly values?: readonly string[];
}
interface RequiredNodeAffinity {
  readonly nodeAffinity?: {
    readonly requiredDuringSchedulingIgnoredDuringExecution?: {
      readonly nodeSelectorTerms?: readonly NodeSelectorTerm[];
    };
  };
}

export interface Placed {
  readonly pod: Pod;
  readonly nodeName: string;
}

/** Undefined when it fits. `placed` are the pods that have a node already. */
export function whyNot(pod: Pod, node: Node, placed: readonly Placed[], nodes: readonly Node[]): string | undefined {
  if (!isNodeReady(node)) return 'node(s) were not ready';
  if (node.spec?.unschedulable === true && !toleratesUnschedulable(pod)) return 'node(s) were unschedulable';
  const taint = (node.spec?.taints ?? []).find((candidate) => !tolerates(pod, candidate));
  if (taint !== undefined) return `node(s) had untolerated taint {${taint.key}: ${taint.value ?? ''}}`;
  if (!matchesNode(pod, node)) return "node(s) didn't match Pod's node affinity/selector";
  if (hostPortTaken(pod, node, placed)) return "node(s) didn't have free ports for the requested pod ports";
  if (violatesAntiAffinity(pod, node, placed, nodes)) return "node(s) didn't match pod anti-affinity rules";
  return undefined;
}

export function isNodeReady(node: Node): boolean {
  return node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

/** nodeSelector and the required node affinity: any of its terms, all requirements of the term. */
export function matchesNode(pod: Pod, node: Node): boolean {
  if (!matchesSelector({ matchLabels: pod.spec?.nodeSelector }, node.metadata?.labels)) return false;
  const affinity = pod.spec?.affinity as RequiredNodeAffinity | undefined;
  const terms = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  return terms === undefined || terms.some((term) => matchesTerm(term, node));
}

function matchesTerm({ matchExpressions = [], matchFields = [] }: NodeSelectorTerm, node: Node): boolean {
  if (matchExpressions.length + matchFields.length === 0) return false;
  const fields = { 'metadata.name': node.metadata?.name ?? '' };
  return (
    matchExpressions.every((requirement) => matchesRequirement(requirement, node.metadata?.labels ?? {})) &&
    matchFields.every((requirement) => matchesRequirement(requirement, fields))
  );
}

/** Gt and Lt exist for nodes only. */
function matchesRequirement(requirement: NodeRequirement, labels: Labels): boolean {
  const { key, operator, values = [] } = requirement;
  if (operator !== 'Gt' && operator !== 'Lt') return matchesSelector({ matchExpressions: [requirement] }, labels);
  const [own, limit] = [Number(labels[key]), Number(values[0])];
  return operator === 'Gt' ? own > limit : own < limit;
}

export function tolerates(pod: Pod, taint: Taint): boolean {
  if (taint.effect === 'PreferNoSchedule') return true;
  return (pod.spec?.tolerations ?? []).some((toleration) => coversTaint(toleration, taint));
}

function coversTaint({ key = '', operator = 'Equal', value = '', effect = '' }: Toleration, taint: Taint): boolean {
  if (effect !== '' && effect !== taint.effect) return false;
  if (key === '') return operator === 'Exists';
  return key === taint.key && (operator === 'Exists' || value === (taint.value ?? ''));
}

function toleratesUnschedulable(pod: Pod): boolean {
  return tolerates(pod, { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' });
}

function hostPortTaken(pod: Pod, node: Node, placed: readonly Placed[]): boolean {
  const wanted = hostPorts(pod);
  if (wanted.length === 0) return false;
  const taken = placed
    .filter(({ nodeName }) => nodeName === node.metadata?.name)
    .flatMap((other) => hostPorts(other.pod));
  return wanted.some((port) => taken.includes(port));
}

function hostPorts(pod: Pod): string[] {
  const ports = pod.spec?.containers.flatMap(({ ports: declared = [] }) => declared) ?? [];
  return ports
    .filter(({ hostPort }) => (hostPort ?? 0) > 0)
    .map(({ hostPort, protocol = 'TCP' }) => `${protocol}/${hostPort}`);
}

function violatesAntiAffinity(pod: Pod, node: Node, placed: readonly Placed[], nodes: readonly Node[]): boolean {
  const terms = pod.spec?.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  return terms.some(({ topologyKey, labelSelector, namespaces }) => {
    const domain = topologyOf(node, topologyKey);
    if (domain === undefined || labelSelector === undefined) return false;
    const spaces = namespaces ?? [pod.metadata?.namespace ?? ''];
    const inDomain = new Set(
      nodes.filter((other) => topologyOf(other, topologyKey) === domain).map(({ metadata }) => metadata?.name),
    );
    return placed.some(
      (other) =>
        inDomain.has(other.nodeName) &&
        spaces.includes(other.pod.metadata?.namespace ?? '') &&
        matchesSelector(labelSelector, other.pod.metadata?.labels),
    );
  });
}

function topologyOf(node: Node, key: string): string | undefined {
  const label = node.metadata?.labels?.[key];
  return label ?? (key === 'kubernetes.io/hostname' ? node.metadata?.name : undefined);
}
