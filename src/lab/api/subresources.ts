/** scale, pods/binding and pods/eviction, and the reviews a client may ask of itself. */
import { isAllowed, type Requester } from './authorizer.ts';
import { cloneJson, isObject, numberAt, objectAt, setOwn, stringAt, stringsAt, valueAt } from './json.ts';
import type { Json, JsonObject, KubeObject } from './json.ts';
import { selectorText } from './kinds/selector.ts';
import { deleteObject, deleteOptions } from './delete.ts';
import { timestamp } from '../../core/timestamp.ts';
import { applyPatch, patchTypeOf } from './patch.ts';
import { apiVersionOf, type ScalePaths } from './resource.ts';
import * as status from './status.ts';
import { getObject, patchObject, type ApiParts, type Call, type Target } from './write.ts';

export function readScale(parts: ApiParts, target: Target): KubeObject {
  return scaleOf(getObject(parts.store, { ...target, subresource: '' }), pathsOf(target));
}

function pathsOf(target: Target): ScalePaths {
  if (target.resource.scale === undefined) throw status.pathNotFound();
  return target.resource.scale;
}

function scaleOf(object: KubeObject, paths: ScalePaths): KubeObject {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const selector = paths.selector === undefined ? undefined : valueAt(object, ...paths.selector);
  const text = isObject(selector) ? selectorText(selector) : typeof selector === 'string' ? selector : '';
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: { replicas: numberAt(object, ...paths.specReplicas) ?? 0 },
    status: { replicas: numberAt(object, ...paths.statusReplicas) ?? 0, ...(text === '' ? {} : { selector: text }) },
  };
}

export async function writeScale(
  parts: ApiParts,
  target: Target,
  body: Json,
  contentType: string | undefined,
  call: Call,
): Promise<KubeObject> {
  const paths = pathsOf(target);
  const current = readScale(parts, target);
  const next =
    contentType === undefined
      ? isObject(body)
        ? body
        : {}
      : await applyPatch(patchTypeOf(contentType, true), 'Scale', current, body);
  const replicas = numberAt(next, 'spec', 'replicas') ?? 0;
  if (replicas < 0) {
    throw status.invalid({ group: 'autoscaling', kind: 'Scale' }, target.name, [
      status.field.invalid('spec.replicas', replicas, 'must be greater than or equal to 0'),
    ]);
  }
  const resourceVersion = stringAt(contentType === undefined ? next : body, 'metadata', 'resourceVersion') ?? '';
  const patch = nested(paths.specReplicas, replicas);
  if (resourceVersion !== '') patch.metadata = { resourceVersion };
  const main = { ...target, subresource: '' };
  return scaleOf(await patchObject(parts, main, 'application/merge-patch+json', patch, call), paths);
}

function nested(path: readonly string[], value: Json): JsonObject {
  const [first = '', ...rest] = path;
  const result: JsonObject = {};
  setOwn(result, first, rest.length === 0 ? value : nested(rest, value));
  return result;
}

/** What a scheduler does: gives the pod its node, once. */
export async function bindPod(parts: ApiParts, target: Target, body: JsonObject, call: Call): Promise<JsonObject> {
  const nodeName = stringAt(body, 'target', 'name') ?? '';
  if (nodeName === '') {
    throw status.invalid({ group: '', kind: 'Binding' }, target.name, [status.field.required('target.name')]);
  }
  const main = { ...target, subresource: '' };
  const pod = getObject(parts.store, main);
  const assigned = stringAt(pod, 'spec', 'nodeName') ?? '';
  if (assigned !== '') {
    throw status.conflict(
      { group: '', plural: 'pods/binding' },
      target.name,
      `pod ${target.name} is already assigned to node "${assigned}"`,
    );
  }
  const patch = { metadata: { resourceVersion: pod.metadata.resourceVersion ?? '' }, spec: { nodeName } };
  const bound = await patchObject(parts, main, 'application/merge-patch+json', patch, call);
  const condition = {
    type: 'PodScheduled',
    status: 'True',
    lastProbeTime: null,
    lastTransitionTime: timestamp(parts.clock.nowMs()),
  };
  const others = cloneJson(valueAt(bound, 'status', 'conditions') ?? []);
  const conditions = [
    ...(Array.isArray(others) ? (others as Json[]) : []).filter((item) => stringAt(item, 'type') !== 'PodScheduled'),
    condition,
  ];
  if (!call.dryRun) {
    await patchObject(
      parts,
      { ...target, subresource: 'status' },
      'application/merge-patch+json',
      { status: { conditions } },
      call,
    );
  }
  return success(201);
}

export async function evictPod(parts: ApiParts, target: Target, body: JsonObject, call: Call): Promise<JsonObject> {
  const options = deleteOptions(objectAt(body, 'deleteOptions'), new URLSearchParams());
  await deleteObject(parts, { ...target, subresource: '' }, options, call);
  return success(201);
}

export function success(code: number, details?: JsonObject): JsonObject {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    ...(details === undefined ? {} : { details }),
    ...(details === undefined ? { code } : {}),
  };
}

/** What the roles allow the one who asks, or the one asked about. */
export function answerReview(parts: Pick<ApiParts, 'store'>, target: Target, body: JsonObject, call: Call): JsonObject {
  const head = { kind: target.resource.kind, apiVersion: apiVersionOf(target.resource), metadata: {} };
  const everything = { verbs: ['*'], apiGroups: ['*'], resources: ['*'] };
  switch (target.resource.kind) {
    case 'SelfSubjectAccessReview':
      return { ...head, spec: body.spec ?? {}, status: { allowed: allows(parts, call, body) } };
    case 'SubjectAccessReview': {
      const asked = { user: stringAt(body, 'spec', 'user') ?? '', groups: stringsAt(body, 'spec', 'groups') };
      return { ...head, spec: body.spec ?? {}, status: { allowed: allows(parts, asked, body) } };
    }
    case 'SelfSubjectRulesReview':
      return {
        ...head,
        spec: body.spec ?? {},
        status: {
          resourceRules: [everything],
          nonResourceRules: [{ verbs: ['*'], nonResourceURLs: ['*'] }],
          incomplete: false,
        },
      };
    default:
      return { ...head, status: { userInfo: { username: call.user, groups: [...call.groups] } } };
  }
}

function allows({ store }: Pick<ApiParts, 'store'>, requester: Requester, body: JsonObject): boolean {
  const of = (key: string): string => stringAt(body, 'spec', 'resourceAttributes', key) ?? '';
  // Other paths than resources are open to every token that is known.
  if (objectAt(body, 'spec', 'resourceAttributes') === undefined) return true;
  return isAllowed(store, requester, {
    ...{ verb: of('verb'), group: of('group'), resource: of('resource'), subresource: of('subresource') },
    ...{ namespace: of('namespace'), name: of('name') },
  });
}
