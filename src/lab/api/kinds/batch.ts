/** Job and CronJob. */
import { age, humanDuration } from '../age.ts';
import { equalJson, numberAt, objectAt, objectsAt, setDefault, stringAt } from '../json.ts';
import type { Json, JsonObject, KubeObject } from '../json.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import { columns } from './columns.ts';
import { defaultPodSpec } from './pod-defaults.ts';
import { templateCells, validateTemplate } from './workload.ts';

const restartPolicies = ['OnFailure', 'Never'];
const concurrencyPolicies = ['Allow', 'Forbid', 'Replace'];
const counts = ['parallelism', 'completions', 'backoffLimit', 'ttlSecondsAfterFinished'] as const;

export const job: Behaviour = {
  generation: true,
  columns: columns('Name', 'Status', 'Completions', 'Duration', 'Age', '+Containers', '+Images', '+Selector'),
  cells: (object, nowMs) => [
    object.metadata.name,
    phaseOf(object),
    completionsText(object),
    durationText(object, nowMs),
    age(object.metadata.creationTimestamp, nowMs),
    ...templateCells(object),
  ],
  selectable: (object) => ({ 'status.successful': String(numberAt(object, 'status', 'succeeded') ?? 0) }),
  defaults: (object) => jobDefaults(objectAt(object, 'spec') ?? {}),
  prepareCreate: (object) => {
    object.status = {};
    const spec = objectAt(object, 'spec');
    if (spec !== undefined && spec.manualSelector !== true) selectOwn(object, spec);
  },
  validate: (object, old) => [
    ...validateJobSpec(objectAt(object, 'spec'), 'spec'),
    ...validateTemplate(object, objectAt(object, 'spec', 'selector'), restartPolicies),
    ...(['completions', 'selector', 'template'] as const)
      .filter(
        (name) => old !== undefined && !equalJson(objectAt(object, 'spec')?.[name], objectAt(old, 'spec')?.[name]),
      )
      .map((name) => field.invalid(`spec.${name}`, objectAt(object, 'spec')?.[name] ?? null, 'field is immutable')),
  ],
};

export const cronJob: Behaviour = {
  generation: true,
  columns: columns(
    ...['Name', 'Schedule', 'Timezone', 'Suspend', 'Active#', 'Last Schedule', 'Age'],
    ...['+Containers', '+Images', '+Selector'],
  ),
  cells: (object, nowMs) => {
    const last = stringAt(object, 'status', 'lastScheduleTime');
    return [
      object.metadata.name,
      stringAt(object, 'spec', 'schedule') ?? '',
      stringAt(object, 'spec', 'timeZone') ?? '<none>',
      objectAt(object, 'spec')?.suspend === true ? 'True' : 'False',
      objectsAt(object, 'status', 'active').length,
      last === undefined ? '<none>' : age(last, nowMs),
      age(object.metadata.creationTimestamp, nowMs),
      ...templateCells({ ...object, spec: objectAt(object, 'spec', 'jobTemplate', 'spec') ?? {} }),
    ];
  },
  defaults: (object) => {
    const spec = objectAt(object, 'spec') ?? {};
    setDefault(spec, 'concurrencyPolicy', 'Allow');
    setDefault(spec, 'suspend', false);
    setDefault(spec, 'successfulJobsHistoryLimit', 3);
    setDefault(spec, 'failedJobsHistoryLimit', 1);
    const template = objectAt(spec, 'jobTemplate', 'spec', 'template', 'spec');
    if (template !== undefined) defaultPodSpec(template);
  },
  validate: (object) => {
    const errors: FieldError[] = [];
    const policy = stringAt(object, 'spec', 'concurrencyPolicy') ?? '';
    if (!concurrencyPolicies.includes(policy))
      errors.push(field.notSupported('spec.concurrencyPolicy', policy, concurrencyPolicies));
    if ((stringAt(object, 'spec', 'schedule') ?? '') === '') errors.push(field.required('spec.schedule'));
    const spec = objectAt(object, 'spec', 'jobTemplate', 'spec');
    return [
      ...errors,
      ...validateJobSpec(spec, 'spec.jobTemplate.spec'),
      ...validateTemplate({ ...object, spec: spec ?? {} }, undefined, restartPolicies),
    ];
  },
};

function jobDefaults(spec: JsonObject): void {
  // Without either it is one pod; with parallelism alone, a queue that the first success ends.
  if (spec.parallelism === undefined && spec.completions === undefined) spec.completions = 1;
  setDefault(spec, 'parallelism', 1);
  setDefault(spec, 'backoffLimit', 6);
  setDefault(spec, 'completionMode', 'NonIndexed');
  setDefault(spec, 'suspend', false);
  setDefault(spec, 'manualSelector', false);
  setDefault(spec, 'podReplacementPolicy', 'TerminatingOrFailed');
  const template = objectAt(spec, 'template', 'spec');
  if (template !== undefined) defaultPodSpec(template);
}

/** A Job selects the pods that carry its UID (kubernetes pkg/registry/batch/job, generateSelector). */
function selectOwn({ metadata }: KubeObject, spec: JsonObject): void {
  const template = objectAt(spec, 'template');
  if (template === undefined) return;
  const { uid = '', name } = metadata;
  const own = {
    'batch.kubernetes.io/controller-uid': uid,
    'batch.kubernetes.io/job-name': name,
    'controller-uid': uid,
    'job-name': name,
  };
  template.metadata = {
    ...objectAt(template, 'metadata'),
    labels: { ...objectAt(template, 'metadata', 'labels'), ...own },
  };
  spec.selector = { matchLabels: { 'batch.kubernetes.io/controller-uid': uid } };
}

function validateJobSpec(spec: JsonObject | undefined, path: string): FieldError[] {
  return counts
    .filter((name) => (numberAt(spec, name) ?? 0) < 0)
    .map((name) => field.invalid(`${path}.${name}`, spec?.[name] ?? null, 'must be greater than or equal to 0'));
}

function phaseOf(object: KubeObject): string {
  const has = (type: string): boolean =>
    objectsAt(object, 'status', 'conditions').some((each) => each.type === type && each.status === 'True');
  if (has('Complete')) return 'Complete';
  if (has('Failed')) return 'Failed';
  if (object.metadata.deletionTimestamp !== undefined) return 'Terminating';
  return ['Suspended', 'FailureTarget'].find(has) ?? 'Running';
}

function completionsText(object: KubeObject): Json {
  const succeeded = numberAt(object, 'status', 'succeeded') ?? 0;
  const completions = numberAt(object, 'spec', 'completions');
  const parallelism = numberAt(object, 'spec', 'parallelism') ?? 0;
  return `${succeeded}/${completions ?? (parallelism > 1 ? `1 of ${parallelism}` : 1)}`;
}

function durationText(object: KubeObject, nowMs: number): string {
  const started = stringAt(object, 'status', 'startTime');
  if (started === undefined) return '';
  const ended = stringAt(object, 'status', 'completionTime');
  const endMs = ended === undefined ? nowMs : Date.parse(ended);
  return humanDuration(Math.floor((endMs - Date.parse(started)) / 1000));
}
