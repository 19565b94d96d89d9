/** What the files of `sluice policy check` hold: pods (also those that workloads would make), namespaces, policies. */

import type { KubeObject, Namespace, NetworkPolicy, Pod, PodTemplateSpec } from '../api/kubernetes.ts';

/** One document of a file. */
export interface SourceObject {
  readonly file: string;
  /** Of its first line, from 1. */
  readonly line: number;
  readonly object: KubeObject;
}

export interface SourcePolicy {
  readonly source: SourceObject;
  readonly policy: NetworkPolicy;
}

export interface LintWorld {
  readonly policies: readonly SourcePolicy[];
  /** One for each pod and each workload; named as "pod web", "deployment web". */
  readonly pods: readonly Pod[];
  readonly namespaces: readonly Namespace[];
  /** Objects that say nothing about policy, by kind. */
  readonly others: readonly SourceObject[];
}

export function lintWorldOf(objects: readonly SourceObject[]): LintWorld {
  const policies: SourcePolicy[] = [];
  const pods: Pod[] = [];
  const namespaces = new Map<string, Namespace>();
  const others: SourceObject[] = [];
  for (const source of objects) {
    const { object } = source;
    if (isNetworkPolicy(object)) {
      policies.push({ source, policy: withNamespace(object) });
    } else if (object.kind === 'Namespace') {
      namespaces.set(object.metadata?.name ?? '', withNameLabel(object));
    } else {
      const made = podsOf(object);
      if (made.length === 0) others.push(source);
      pods.push(...made);
    }
  }
  // A namespace that is only named exists somewhere, with the label that the API server gives every one.
  for (const { metadata } of [...pods, ...policies.map(({ policy }) => policy)]) {
    const name = metadata?.namespace ?? 'default';
    if (!namespaces.has(name)) namespaces.set(name, withNameLabel({ metadata: { name } }));
  }
  return { policies, pods, namespaces: [...namespaces.values()], others };
}

export function isNetworkPolicy(object: KubeObject): boolean {
  return object.kind === 'NetworkPolicy' && (object.apiVersion ?? '').startsWith('networking.k8s.io/');
}

/** "Pod", "Deployment", … of what has pods; the name pods carry in findings. */
const templates: Readonly<Record<string, (spec: WorkloadSpec) => PodTemplateSpec | undefined>> = {
  Deployment: (spec) => spec.template,
  StatefulSet: (spec) => spec.template,
  DaemonSet: (spec) => spec.template,
  ReplicaSet: (spec) => spec.template,
  ReplicationController: (spec) => spec.template,
  Job: (spec) => spec.template,
  CronJob: (spec) => spec.jobTemplate?.spec?.template,
};

interface WorkloadSpec {
  readonly template?: PodTemplateSpec;
  readonly jobTemplate?: { readonly spec?: { readonly template?: PodTemplateSpec } };
}

function podsOf(object: KubeObject): Pod[] {
  if (object.kind === 'Pod') return [withNamespace(object)];
  const spec = (object as { readonly spec?: WorkloadSpec }).spec;
  const template = spec && templates[object.kind ?? '']?.(spec);
  if (template === undefined || template === null) return [];
  const { namespace = 'default', name = '' } = object.metadata ?? {};
  const metadata = { namespace, name: `${name} (${object.kind ?? ''})`, labels: template.metadata?.labels ?? {} };
  return [{ metadata, ...(template.spec && { spec: template.spec }) }];
}

function withNamespace<T extends KubeObject>(object: T): T {
  return { ...object, metadata: { ...object.metadata, namespace: object.metadata?.namespace ?? 'default' } };
}

function withNameLabel(namespace: Namespace): Namespace {
  const name = namespace.metadata?.name ?? '';
  return {
    ...namespace,
    metadata: { ...namespace.metadata, labels: { 'kubernetes.io/metadata.name': name, ...namespace.metadata?.labels } },
  };
}
