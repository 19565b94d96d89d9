import { createHash } from 'node:crypto';
import { applicationAffinityKeys, spiderLabels } from '../api/spider.ts';

/** The workload at the top of a pod's owners, and how pools name it in labels. */

export interface Application {
  /** "apps/v1" */
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** "apps_v1_Deployment_ns_name": how a subnet's status names the application of a pool. */
export function applicationText(application: Omit<Application, 'uid'>): string {
  const { apiVersion, kind, namespace, name } = application;
  return [groupVersionLabel(apiVersion), kind, namespace, name].join('_');
}

/** "apps/v1" → "apps_v1": a label value may not hold a slash. */
export function groupVersionLabel(apiVersion: string): string {
  return apiVersion.replace('/', '_');
}

/** The labels that tie a pool to its application. */
export function applicationLabels(application: Application): Record<string, string> {
  return {
    [spiderLabels.ownerGroupVersion]: groupVersionLabel(application.apiVersion),
    [spiderLabels.ownerKind]: application.kind,
    [spiderLabels.ownerNamespace]: application.namespace,
    [spiderLabels.ownerName]: labelValue(application.name),
    [spiderLabels.ownerUid]: application.uid,
  };
}

/** `spec.podAffinity.matchLabels` of a pool that only this application's pods draw from. */
export function applicationAffinity(application: Omit<Application, 'uid'>): Record<string, string> {
  const [version = '', group = ''] = application.apiVersion.split('/').reverse();
  return {
    [applicationAffinityKeys.apiGroup]: group,
    [applicationAffinityKeys.apiVersion]: version,
    [applicationAffinityKeys.kind]: application.kind,
    [applicationAffinityKeys.namespace]: application.namespace,
    [applicationAffinityKeys.name]: labelValue(application.name),
  };
}

/** The name itself, or its beginning and a digest: a label value has 63 characters, a workload's name may have 253. */
export function labelValue(name: string): string {
  if (name.length <= 63) return name;
  const digest = createHash('sha256').update(name).digest('hex').slice(0, 10);
  return `${name.slice(0, 52)}-${digest}`;
}
