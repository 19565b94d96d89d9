/** Events: stored in their core/v1 form, offered also as events.k8s.io/v1. */
import { age } from '../age.ts';
import { numberAt, objectAt, stringAt } from '../json.ts';
import type { Json, JsonObject, KubeObject } from '../json.ts';
import type { Behaviour } from '../resource.ts';
import { columns } from './columns.ts';

export const event: Behaviour = {
  columns: columns(
    'Last Seen',
    'Type',
    'Reason',
    'Object',
    '+Subobject',
    '+Source',
    'Message',
    '+First Seen',
    '+Count',
    '+Name',
  ),
  cells: eventCells,
  selectable: (served) => {
    const object = served.regarding === undefined ? served : fromEventsV1(served);
    const involved = objectAt(object, 'involvedObject') ?? {};
    const source = stringAt(object, 'source', 'component') ?? '';
    return {
      ...Object.fromEntries(
        ['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath'].map((name) => [
          `involvedObject.${name}`,
          stringAt(involved, name) ?? '',
        ]),
      ),
      reason: stringAt(object, 'reason') ?? '',
      reportingComponent: stringAt(object, 'reportingComponent') ?? '',
      source: source === '' ? (stringAt(object, 'reportingComponent') ?? '') : source,
      type: stringAt(object, 'type') ?? '',
    };
  },
};

function eventCells(served: KubeObject, nowMs: number): Json[] {
  const object = served.regarding === undefined ? served : fromEventsV1(served);
  const first = stringAt(object, 'firstTimestamp') ?? stringAt(object, 'eventTime');
  const last = stringAt(object, 'series', 'lastObservedTime') ?? stringAt(object, 'lastTimestamp') ?? first;
  const involved = objectAt(object, 'involvedObject');
  const kind = (stringAt(involved, 'kind') ?? '').toLowerCase();
  const name = stringAt(involved, 'name') ?? '';
  const component = stringAt(object, 'source', 'component') ?? stringAt(object, 'reportingComponent') ?? '';
  const host = stringAt(object, 'source', 'host') ?? '';
  return [
    age(last, nowMs),
    stringAt(object, 'type') ?? '',
    stringAt(object, 'reason') ?? '',
    name === '' ? kind : `${kind}/${name}`,
    stringAt(involved, 'fieldPath') ?? '',
    host === '' ? component : `${component}, ${host}`,
    (stringAt(object, 'message') ?? '').trim(),
    age(first, nowMs),
    String(numberAt(object, 'series', 'count') ?? numberAt(object, 'count') ?? 1),
    object.metadata.name,
  ];
}

/** core/v1 name → events.k8s.io/v1 name. */
const renamed: readonly (readonly [string, string])[] = [
  ['involvedObject', 'regarding'],
  ['message', 'note'],
  ['source', 'deprecatedSource'],
  ['firstTimestamp', 'deprecatedFirstTimestamp'],
  ['lastTimestamp', 'deprecatedLastTimestamp'],
  ['count', 'deprecatedCount'],
  ['reportingComponent', 'reportingController'],
];

export function toEventsV1(stored: KubeObject): KubeObject {
  return rename(stored, 'events.k8s.io/v1', new Map(renamed));
}

export function fromEventsV1(served: KubeObject): KubeObject {
  return rename(served, 'v1', new Map(renamed.map(([core, v1]) => [v1, core])));
}

function rename(object: KubeObject, apiVersion: string, names: ReadonlyMap<string, string>): KubeObject {
  const result: JsonObject = {};
  for (const [name, value] of Object.entries(object)) result[names.get(name) ?? name] = value;
  return { ...result, apiVersion, kind: 'Event', metadata: object.metadata };
}
