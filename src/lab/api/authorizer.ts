/** Role-based access control: what the Role, ClusterRole and binding objects in the store allow. */
import { accountUser } from '../../api/service-account.ts';
import { objectsAt, stringAt, stringsAt, type JsonObject, type KubeObject } from './json.ts';
import type { ResourcePath } from './path.ts';
import type { ResourceName } from './status.ts';
import * as status from './status.ts';
import type { Store } from './store.ts';

export interface Requester {
  readonly user: string;
  readonly groups: readonly string[];
}

/** What is asked for, as SubjectAccessReviews name it. */
export interface Attributes {
  readonly verb: string;
  readonly group: string;
  /** Plural. */
  readonly resource: string;
  /** "" is none. */
  readonly subresource: string;
  /** "": of the cluster, or in all namespaces. */
  readonly namespace: string;
  /** "": none, or all. */
  readonly name: string;
}

const admins = 'system:masters';
const group = 'rbac.authorization.k8s.io';

export function isAllowed(store: Store, requester: Requester, attributes: Attributes): boolean {
  if (requester.groups.includes(admins)) return true;
  const isBound = (binding: KubeObject): boolean =>
    objectsAt(binding, 'subjects').some((subject) => isSubject(subject, requester, binding.metadata.namespace ?? ''));
  const clusterWide = store.list(`${group}/clusterrolebindings`).filter(isBound);
  const { namespace } = attributes;
  const inNamespace = namespace === '' ? [] : store.list(`${group}/rolebindings`, namespace).filter(isBound);
  return [...clusterWide, ...inNamespace].some((binding) =>
    rulesOf(store, binding).some((rule) => ruleAllows(rule, attributes)),
  );
}

/** Throws Forbidden, worded as kube-apiserver words it. */
export function authorize(store: Store, requester: Requester, attributes: Attributes): void {
  if (isAllowed(store, requester, attributes)) return;
  const { verb, resource, subresource, namespace, name } = attributes;
  const what = subresource === '' ? resource : `${resource}/${subresource}`;
  const where = namespace === '' ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  const asked = `cannot ${verb} resource "${what}" in API group "${attributes.group}" ${where}`;
  const named: ResourceName = { group: attributes.group, plural: resource };
  throw status.forbidden(named, name, `User "${requester.user}" ${asked}`);
}

/** Of a request on a resource. */
export function attributesOf(method: string, path: ResourcePath, query: URLSearchParams): Attributes {
  const name = path.name ?? /^metadata\.name=([^,]+)$/.exec(query.get('fieldSelector') ?? '')?.[1] ?? '';
  return {
    ...{ group: path.group, resource: path.plural, subresource: path.subresource, name },
    verb: verbOf(method, path, query),
    // A namespace is in itself.
    namespace: path.namespace ?? (path.group === '' && path.plural === 'namespaces' ? name : ''),
  };
}

function verbOf(method: string, path: ResourcePath, query: URLSearchParams): string {
  const one = path.name !== undefined;
  switch (method) {
    case 'GET':
      if (path.watch || /^(1|true)$/.test(query.get('watch') ?? '')) return 'watch';
      return one ? 'get' : 'list';
    case 'POST':
      return 'create';
    case 'PUT':
      return 'update';
    case 'PATCH':
      return 'patch';
    case 'DELETE':
      return one ? 'delete' : 'deletecollection';
    default:
      return method.toLowerCase();
  }
}

function isSubject(subject: JsonObject, { user, groups }: Requester, namespace: string): boolean {
  const name = stringAt(subject, 'name') ?? '';
  switch (stringAt(subject, 'kind')) {
    case 'User':
      return name === user;
    case 'Group':
      return groups.includes(name);
    case 'ServiceAccount':
      return user === accountUser(stringAt(subject, 'namespace') ?? namespace, name);
    default:
      return false;
  }
}

function rulesOf(store: Store, binding: KubeObject): JsonObject[] {
  const name = stringAt(binding, 'roleRef', 'name') ?? '';
  const role =
    stringAt(binding, 'roleRef', 'kind') === 'ClusterRole'
      ? store.get(`${group}/clusterroles`, name)
      : store.get(`${group}/roles`, `${binding.metadata.namespace ?? ''}/${name}`);
  return role === undefined ? [] : objectsAt(role, 'rules');
}

function ruleAllows(rule: JsonObject, attributes: Attributes): boolean {
  const { verb, resource, subresource, name } = attributes;
  const wanted = subresource === '' ? [resource] : [`${resource}/${subresource}`, `*/${subresource}`];
  const names = stringsAt(rule, 'resourceNames');
  return (
    (names.length === 0 || names.includes(name)) &&
    has(rule, 'verbs', verb) &&
    has(rule, 'apiGroups', attributes.group) &&
    wanted.some((each) => has(rule, 'resources', each))
  );
}

function has(rule: JsonObject, key: string, value: string): boolean {
  const listed = stringsAt(rule, key);
  return listed.includes('*') || listed.includes(value);
}
