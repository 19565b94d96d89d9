/** Deployment, ReplicaSet, StatefulSet and DaemonSet. */
import { age } from '../age.ts';
import {
  equalJson,
  isArray,
  isObject,
  numberAt,
  objectAt,
  objectsAt,
  setDefault,
  stringAt,
  valueAt,
  textOf,
} from '../json.ts';
import type { Json, JsonObject, KubeObject } from '../json.ts';
import { validateLabels } from '../meta.ts';
import { dns1123Subdomain } from '../names.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import { columns } from './columns.ts';
import { defaultPodSpec } from './pod-defaults.ts';
import { validatePodSpec } from './pod-validation.ts';
import { selectorMatches, selectorText, validateSelector } from './selector.ts';

export const deployment: Behaviour = {
  generation: true,
  columns: columns('Name', 'Ready', 'Up-to-date#', 'Available#', 'Age', '+Containers', '+Images', '+Selector'),
  cells: (object, nowMs) => [
    object.metadata.name,
    `${status(object, 'readyReplicas')}/${replicas(object)}`,
    status(object, 'updatedReplicas'),
    status(object, 'availableReplicas'),
    age(object.metadata.creationTimestamp, nowMs),
    ...templateCells(object),
  ],
  defaults: (object) => {
    const spec = workloadDefaults(object);
    setDefault(spec, 'replicas', 1);
    setDefault(spec, 'strategy', {});
    const strategy = objectAt(spec, 'strategy') ?? {};
    setDefault(strategy, 'type', 'RollingUpdate');
    if (strategy.type === 'RollingUpdate') {
      setDefault(strategy, 'rollingUpdate', {});
      const rolling = objectAt(strategy, 'rollingUpdate') ?? {};
      setDefault(rolling, 'maxUnavailable', '25%');
      setDefault(rolling, 'maxSurge', '25%');
    }
    setDefault(spec, 'revisionHistoryLimit', 10);
    setDefault(spec, 'progressDeadlineSeconds', 600);
  },
  validate: (object, old) => {
    const errors = validateWorkload(object, old, ['Always']);
    const strategy = objectAt(object, 'spec', 'strategy');
    const type = stringAt(strategy, 'type') ?? '';
    if (type === 'Recreate' && objectAt(strategy, 'rollingUpdate') !== undefined) {
      errors.push(
        field.forbidden('spec.strategy.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'"),
      );
    } else if (type !== 'Recreate' && type !== 'RollingUpdate') {
      errors.push(field.notSupported('spec.strategy.type', type, ['Recreate', 'RollingUpdate']));
    }
    return errors;
  },
};

export const replicaSet: Behaviour = {
  generation: true,
  columns: columns('Name', 'Desired#', 'Current#', 'Ready#', 'Age', '+Containers', '+Images', '+Selector'),
  cells: (object, nowMs) => [
    object.metadata.name,
    replicas(object),
    status(object, 'replicas'),
    status(object, 'readyReplicas'),
    age(object.metadata.creationTimestamp, nowMs),
    ...templateCells(object),
  ],
  selectable: (object) => ({ 'status.replicas': String(status(object, 'replicas')) }),
  defaults: (object) => {
    setDefault(workloadDefaults(object), 'replicas', 1);
  },
  validate: (object, old) => validateWorkload(object, old, ['Always']),
};

export const statefulSet: Behaviour = {
  generation: true,
  columns: columns('Name', 'Ready', 'Age', '+Containers', '+Images'),
  cells: (object, nowMs) => [
    object.metadata.name,
    `${status(object, 'readyReplicas')}/${replicas(object)}`,
    age(object.metadata.creationTimestamp, nowMs),
    ...templateCells(object).slice(0, 2),
  ],
  defaults: (object) => {
    const spec = workloadDefaults(object);
    setDefault(spec, 'replicas', 1);
    setDefault(spec, 'podManagementPolicy', 'OrderedReady');
    setDefault(spec, 'updateStrategy', {});
    const strategy = objectAt(spec, 'updateStrategy') ?? {};
    setDefault(strategy, 'type', 'RollingUpdate');
    if (strategy.type === 'RollingUpdate') {
      setDefault(strategy, 'rollingUpdate', {});
      setDefault(objectAt(strategy, 'rollingUpdate') ?? {}, 'partition', 0);
    }
    setDefault(spec, 'revisionHistoryLimit', 10);
    setDefault(spec, 'persistentVolumeClaimRetentionPolicy', { whenDeleted: 'Retain', whenScaled: 'Retain' });
  },
  validate: (object, old) => [...validateWorkload(object, old, ['Always']), ...validateStatefulUpdate(object, old)],
};

export const daemonSet: Behaviour = {
  generation: true,
  columns: columns(
    'Name',
    'Desired#',
    'Current#',
    'Ready#',
    'Up-to-date#',
    'Available#',
    'Node Selector',
    'Age',
    '+Containers',
    '+Images',
    '+Selector',
  ),
  cells: (object, nowMs) => [
    object.metadata.name,
    status(object, 'desiredNumberScheduled'),
    status(object, 'currentNumberScheduled'),
    status(object, 'numberReady'),
    status(object, 'updatedNumberScheduled'),
    status(object, 'numberAvailable'),
    mapText(objectAt(object, 'spec', 'template', 'spec', 'nodeSelector')),
    age(object.metadata.creationTimestamp, nowMs),
    ...templateCells(object),
  ],
  defaults: (object) => {
    const spec = workloadDefaults(object);
    setDefault(spec, 'updateStrategy', {});
    const strategy = objectAt(spec, 'updateStrategy') ?? {};
    setDefault(strategy, 'type', 'RollingUpdate');
    if (strategy.type === 'RollingUpdate') {
      setDefault(strategy, 'rollingUpdate', {});
      const rolling = objectAt(strategy, 'rollingUpdate') ?? {};
      setDefault(rolling, 'maxUnavailable', 1);
      setDefault(rolling, 'maxSurge', 0);
    }
    setDefault(spec, 'revisionHistoryLimit', 10);
  },
  validate: (object, old) => validateWorkload(object, old, ['Always']),
};

export function mapText(map: JsonObject | undefined): string {
  const entries = Object.entries(map ?? {});
  return entries.length === 0
    ? '<none>'
    : entries
        .map(([key, value]) => `${key}=${textOf(value)}`)
        .sort()
        .join(',');
}

function status(object: KubeObject, name: string): number {
  return numberAt(object, 'status', name) ?? 0;
}

function replicas(object: KubeObject): number {
  return numberAt(object, 'spec', 'replicas') ?? 0;
}

export function templateCells(object: KubeObject): Json[] {
  const containers = objectsAt(object, 'spec', 'template', 'spec', 'containers');
  return [
    containers.map((container) => stringAt(container, 'name') ?? '').join(','),
    containers.map((container) => stringAt(container, 'image') ?? '').join(','),
    selectorText(objectAt(object, 'spec', 'selector')),
  ];
}

function workloadDefaults(object: KubeObject): JsonObject {
  const spec = objectAt(object, 'spec') ?? {};
  const template = objectAt(spec, 'template', 'spec');
  if (template !== undefined) defaultPodSpec(template);
  return spec;
}

function validateWorkload(
  object: KubeObject,
  old: KubeObject | undefined,
  restartPolicies: readonly string[],
): FieldError[] {
  const errors: FieldError[] = [];
  const selector = objectAt(object, 'spec', 'selector');
  const count = numberAt(object, 'spec', 'replicas') ?? 0;
  if (count < 0) errors.push(field.invalid('spec.replicas', count, 'must be greater than or equal to 0'));
  if (selector === undefined) errors.push(field.required('spec.selector'));
  else {
    errors.push(...validateSelector(selector, 'spec.selector'));
    if (Object.keys(selector).length === 0) {
      errors.push(field.invalid('spec.selector', selector, 'empty selector is invalid for deployment'));
    }
  }
  errors.push(...validateTemplate(object, selector, restartPolicies));
  if (old !== undefined && !equalJson(selector, objectAt(old, 'spec', 'selector'))) {
    errors.push(field.invalid('spec.selector', selector, 'field is immutable'));
  }
  return errors;
}

export function validateTemplate(
  object: KubeObject,
  selector: JsonObject | undefined,
  restartPolicies: readonly string[],
): FieldError[] {
  const template = objectAt(object, 'spec', 'template');
  const labels = valueAt(template, 'metadata', 'labels');
  const errors: FieldError[] = [];
  if (selector !== undefined && !selectorMatches(selector, isObject(labels) ? labels : {})) {
    errors.push(
      field.invalid('spec.template.metadata.labels', labels ?? null, '`selector` does not match template `labels`'),
    );
  }
  errors.push(...validateLabels(labels, 'spec.template.metadata.labels'));
  errors.push(...validatePodSpec(objectAt(template, 'spec'), 'spec.template.spec'));
  const restart = stringAt(template, 'spec', 'restartPolicy');
  if (restart !== undefined && !restartPolicies.includes(restart)) {
    errors.push(field.notSupported('spec.template.spec.restartPolicy', restart, restartPolicies));
  }
  return errors;
}

const mutableStateful = [
  'replicas',
  'ordinals',
  'template',
  'updateStrategy',
  'revisionHistoryLimit',
  'persistentVolumeClaimRetentionPolicy',
  'minReadySeconds',
  'selector',
];

function validateStatefulUpdate(object: KubeObject, old: KubeObject | undefined): FieldError[] {
  const errors: FieldError[] = [];
  const name = stringAt(object, 'spec', 'serviceName') ?? '';
  if (name !== '')
    errors.push(...dns1123Subdomain(name).map((wrong) => field.invalid('spec.serviceName', name, wrong)));
  const [next, before] = [objectAt(object, 'spec') ?? {}, objectAt(old, 'spec')];
  if (before === undefined) return errors;
  const rest = (spec: JsonObject): JsonObject =>
    Object.fromEntries(
      Object.entries(spec).filter(
        ([key, value]) => !mutableStateful.includes(key) && !(isArray(value) && value.length === 0),
      ),
    );
  if (!equalJson(rest(next), rest(before))) {
    errors.push(
      field.forbidden(
        'spec',
        "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
      ),
    );
  }
  return errors;
}
