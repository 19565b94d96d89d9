/** Pods from templates, and the hash that names a template's revision. */

import { createHash } from 'node:crypto';
import type { KubeObject, Pod, PodTemplateSpec } from '../../api/kubernetes.ts';
import type { GroupVersionResource } from '../../api/resources.ts';
import { ownerReference } from './ownership.ts';

export const templateHashLabel = 'pod-template-hash';
export const revisionHashLabel = 'controller-revision-hash';

/** Letters and digits that form no words, as Kubernetes' rand.SafeEncodeString. */
const safeAlphabet = 'bcdfghjklmnpqrstvwxz2456789';

/** Ten safe characters; equal for templates that differ only in the order of their fields. */
export function templateHash(template: PodTemplateSpec): string {
  return safeHash(stableJson(template), 10);
}

export function safeHash(text: string, length: number): string {
  const digest = createHash('sha256').update(text).digest();
  return [...digest.subarray(0, length)].map((byte) => safeAlphabet[byte % safeAlphabet.length]).join('');
}

export interface PodIdentity {
  readonly name?: string;
  readonly generateName?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export function podFromTemplate(
  gvr: GroupVersionResource,
  owner: KubeObject,
  template: PodTemplateSpec,
  identity: PodIdentity,
): Pod {
  const { labels, annotations, finalizers } = template.metadata ?? {};
  const { labels: ownLabels, ...naming } = identity;
  return {
    metadata: {
      ...naming,
      namespace: owner.metadata?.namespace,
      labels: { ...labels, ...ownLabels },
      annotations,
      finalizers,
      ownerReferences: [ownerReference(gvr, owner)],
    },
    spec: template.spec,
  };
}

export function stableJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
