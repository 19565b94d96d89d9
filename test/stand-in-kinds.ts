/** Kinds that the lab's API does not have, defined as custom resources without a schema: a test plays their controller. */
import type { KubeObject } from '../src/api/kubernetes.ts';
import type { GroupVersionResource } from '../src/api/resources.ts';

/** Another project's workload. */
export const cloneSets = {
  ...{ group: 'apps.kruise.io', version: 'v1alpha1', plural: 'clonesets', kind: 'CloneSet' },
  namespaced: true,
} as const;

export function definitionName({ group, plural }: GroupVersionResource): string {
  return `${plural}.${group}`;
}

export function definitionOf(gvr: GroupVersionResource): KubeObject {
  const { group, version, plural, kind } = gvr;
  const openAPIV3Schema = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  const versions = [{ name: version, served: true, storage: true, schema: { openAPIV3Schema } }];
  const names = { plural, kind, singular: kind.toLowerCase(), listKind: `${kind}List` };
  const spec = { group, scope: 'Namespaced', names, versions };
  return { metadata: { name: definitionName(gvr) }, spec } as KubeObject;
}

/** What an object that `owner` controls has in its metadata. */
export function controlledBy({ apiVersion, kind, metadata }: KubeObject): KubeObject['metadata'] {
  const { name = '', uid = '' } = metadata ?? {};
  return { ownerReferences: [{ apiVersion: apiVersion ?? '', kind: kind ?? '', name, uid, controller: true }] };
}
