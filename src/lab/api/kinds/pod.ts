/** Pods: defaults, validation, printed columns and graceful deletion. */
import { age } from '../age.ts';
import { boolAt, cloneJson, equalJson, isObject, numberAt, objectAt, objectsAt, stringAt, valueAt } from '../json.ts';
import type { Json, JsonObject, KubeObject } from '../json.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import { columns } from './columns.ts';
import { defaultPodSpec } from './pod-defaults.ts';
import { validatePodSpec } from './pod-validation.ts';

export const pod: Behaviour = {
  columns: columns('Name', 'Ready', 'Status', 'Restarts', 'Age', '+IP', '+Node', '+Nominated Node', '+Readiness Gates'),
  cells: podCells,
  selectable: (object) => ({
    'spec.nodeName': stringAt(object, 'spec', 'nodeName') ?? '',
    'spec.restartPolicy': stringAt(object, 'spec', 'restartPolicy') ?? '',
    'spec.schedulerName': stringAt(object, 'spec', 'schedulerName') ?? '',
    'spec.serviceAccountName': stringAt(object, 'spec', 'serviceAccountName') ?? '',
    'spec.hostNetwork': String(boolAt(object, 'spec', 'hostNetwork') ?? false),
    'status.phase': stringAt(object, 'status', 'phase') ?? '',
    'status.podIP': stringAt(object, 'status', 'podIP') ?? '',
    'status.nominatedNodeName': stringAt(object, 'status', 'nominatedNodeName') ?? '',
  }),
  defaults: (object) => {
    const spec = objectAt(object, 'spec');
    if (spec === undefined) return;
    defaultPodSpec(spec);
    if (spec.enableServiceLinks === undefined) spec.enableServiceLinks = true;
  },
  prepareCreate: (object) => {
    object.status = { phase: 'Pending', qosClass: qosClass(object) };
    const spec = objectAt(object, 'spec');
    // The admission chain of a cluster fills the account in; the lab mounts no tokens.
    if (spec !== undefined) {
      spec.serviceAccountName ??= 'default';
      spec.serviceAccount ??= spec.serviceAccountName;
      spec.priority ??= 0;
      spec.preemptionPolicy ??= 'PreemptLowerPriority';
      addDefaultTolerations(spec);
    }
  },
  prepareUpdate: (object, old, context) => {
    if (context.subresource === 'status') object.metadata.ownerReferences = old.metadata.ownerReferences;
  },
  validate: (object, old) => {
    const errors = validatePodSpec(objectAt(object, 'spec'), 'spec');
    return old === undefined ? errors : [...errors, ...validatePodUpdate(object, old)];
  },
  gracePeriodSeconds: podGracePeriod,
};

function podGracePeriod(object: KubeObject, requested: number | undefined): number {
  const phase = stringAt(object, 'status', 'phase');
  if ((stringAt(object, 'spec', 'nodeName') ?? '') === '') return 0;
  if (phase === 'Succeeded' || phase === 'Failed') return 0;
  const wanted = requested ?? numberAt(object, 'spec', 'terminationGracePeriodSeconds') ?? 30;
  // A negative period means "at once, but through the kubelet".
  return wanted < 0 ? 1 : wanted;
}

const nodeProblems = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'];

/** The DefaultTolerationSeconds admission plugin. */
function addDefaultTolerations(spec: JsonObject): void {
  const tolerations = objectsAt(spec, 'tolerations');
  const missing = nodeProblems.filter(
    (key) =>
      !tolerations.some((item) => (item.key === key || !item.key) && (item.effect === 'NoExecute' || !item.effect)),
  );
  spec.tolerations = [
    ...tolerations,
    ...missing.map((key) => ({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 })),
  ];
}

function qosClass(object: KubeObject): string {
  const containers = objectsAt(object, 'spec', 'containers');
  const part = (container: JsonObject, kind: string, resource: string): Json | undefined =>
    valueAt(container, 'resources', kind, resource);
  const resources = ['cpu', 'memory'];
  const guaranteed = containers.every((container) =>
    resources.every(
      (name) =>
        part(container, 'limits', name) !== undefined &&
        equalJson(part(container, 'limits', name), part(container, 'requests', name)),
    ),
  );
  if (guaranteed) return 'Guaranteed';
  const some = containers.some((container) =>
    resources.some(
      (name) => part(container, 'limits', name) !== undefined || part(container, 'requests', name) !== undefined,
    ),
  );
  return some ? 'Burstable' : 'BestEffort';
}

const immutablePodSpec =
  'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)';

function validatePodUpdate(next: KubeObject, old: KubeObject): FieldError[] {
  const [a, b] = [comparable(next, old), comparable(old, old)];
  return equalJson(a, b) ? [] : [field.forbidden('spec', immutablePodSpec)];
}

/** The spec without what may change. A node name may be set once, by binding. */
function comparable(object: KubeObject, old: KubeObject): JsonObject {
  const spec = cloneJson(objectAt(object, 'spec') ?? {});
  for (const list of ['containers', 'initContainers']) {
    for (const container of objectsAt(spec, list)) delete container.image;
  }
  delete spec.activeDeadlineSeconds;
  delete spec.tolerations;
  delete spec.terminationGracePeriodSeconds;
  delete spec.ephemeralContainers;
  if (objectsAt(old, 'spec', 'schedulingGates').length > 0) delete spec.schedulingGates;
  if ((stringAt(old, 'spec', 'nodeName') ?? '') === '') delete spec.nodeName;
  return spec;
}

/** printPod of k8s.io/kubernetes/pkg/printers/internalversion. */
function podCells(object: KubeObject, nowMs: number): Json[] {
  const containers = objectsAt(object, 'spec', 'containers');
  const statuses = objectsAt(object, 'status', 'containerStatuses');
  const restarts = statuses.reduce((sum, status) => sum + (numberAt(status, 'restartCount') ?? 0), 0);
  const ready = statuses.filter(
    (status) => status.ready === true && isObject(valueAt(status, 'state', 'running')),
  ).length;
  const ips = objectsAt(object, 'status', 'podIPs').map((item) => stringAt(item, 'ip') ?? '');
  const gates = objectsAt(object, 'spec', 'readinessGates');
  return [
    object.metadata.name,
    `${ready}/${containers.length}`,
    podReason(object, statuses),
    restartText(restarts, statuses, nowMs),
    age(object.metadata.creationTimestamp, nowMs),
    ips[0] ?? stringAt(object, 'status', 'podIP') ?? '<none>',
    stringAt(object, 'spec', 'nodeName') ?? '<none>',
    stringAt(object, 'status', 'nominatedNodeName') ?? '<none>',
    gates.length === 0 ? '<none>' : `${readyGates(object, gates)}/${gates.length}`,
  ];
}

function podReason(object: KubeObject, statuses: readonly JsonObject[]): string {
  let reason = stringAt(object, 'status', 'reason') ?? stringAt(object, 'status', 'phase') ?? 'Unknown';
  for (const status of [...statuses].reverse()) {
    const waiting = stringAt(status, 'state', 'waiting', 'reason') ?? '';
    const terminated = objectAt(status, 'state', 'terminated');
    if (waiting !== '') reason = waiting;
    else if (terminated !== undefined) {
      const signal = numberAt(terminated, 'signal') ?? 0;
      const told = stringAt(terminated, 'reason') ?? '';
      reason =
        told !== '' ? told : signal !== 0 ? `Signal:${signal}` : `ExitCode:${numberAt(terminated, 'exitCode') ?? 0}`;
    }
  }
  const running = statuses.some((status) => status.ready === true && isObject(valueAt(status, 'state', 'running')));
  if (reason === 'Completed' && running) reason = hasReadyCondition(object) ? 'Running' : 'NotReady';
  if (object.metadata.deletionTimestamp === undefined) return reason;
  return stringAt(object, 'status', 'reason') === 'NodeLost' ? 'Unknown' : 'Terminating';
}

function hasReadyCondition(object: KubeObject): boolean {
  return objectsAt(object, 'status', 'conditions').some((item) => item.type === 'Ready' && item.status === 'True');
}

function restartText(restarts: number, statuses: readonly JsonObject[], nowMs: number): string {
  const finished = statuses
    .map((status) => stringAt(status, 'lastState', 'terminated', 'finishedAt'))
    .filter((time) => time !== undefined)
    .sort();
  const last = finished.at(-1);
  return restarts === 0 || last === undefined ? String(restarts) : `${restarts} (${age(last, nowMs)} ago)`;
}

function readyGates(object: KubeObject, gates: readonly JsonObject[]): number {
  const conditions = objectsAt(object, 'status', 'conditions');
  return gates.filter((gate) => conditions.some((item) => item.type === gate.conditionType && item.status === 'True'))
    .length;
}
