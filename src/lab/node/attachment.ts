/**
 * Which NetworkAttachmentDefinition a pod's first interface uses, by Multus' rule: the annotation
 * `v1.multus-cni.io/default-network`, else the cluster's default. A name without a namespace is looked up in the
 * namespace of Multus itself (kube-system here), not in the pod's. Pure.
 */
import { SluiceError } from '../../core/error.ts';

export const defaultNetworkAnnotation = 'v1.multus-cni.io/default-network';
/** The lab's stand-in for the namespace Multus is installed in. */
export const multusNamespace = 'kube-system';
export const labDefaultNetwork: AttachmentName = { namespace: multusNamespace, name: 'default' };

export interface AttachmentName {
  readonly namespace: string;
  readonly name: string;
}

export interface PodIdentity {
  readonly namespace: string;
  readonly name: string;
}

/** RFC 1123 label or subdomain, as Kubernetes' names. */
const namePattern = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

/** Throws SluiceError 'invalid_resource' for a value that is not `<name>` or `<namespace>/<name>`. */
export function selectAttachment(pod: PodIdentity, annotations: Readonly<Record<string, string>>): AttachmentName {
  const text = annotations[defaultNetworkAnnotation]?.trim();
  if (text === undefined || text === '') return labDefaultNetwork;
  const parts = text.split('/');
  const [namespace, name] = parts.length === 1 ? [multusNamespace, parts[0]] : parts;
  if (parts.length > 2 || !namePattern.test(namespace ?? '') || !namePattern.test(name ?? '')) {
    throw new SluiceError({
      code: 'invalid_resource',
      operation: 'read annotation',
      object: `${defaultNetworkAnnotation} of pod ${pod.namespace}/${pod.name}`,
      what: `"${text}" is not a NetworkAttachmentDefinition's name`,
      remedy: 'write <namespace>/<name>, or <name> for one in kube-system',
    });
  }
  return { namespace: namespace ?? '', name: name ?? '' };
}

/** The error for a selected attachment that does not exist; `existing` helps to spot the misspelling. */
export function missingAttachment(
  pod: PodIdentity,
  annotations: Readonly<Record<string, string>>,
  wanted: AttachmentName,
  existing: readonly AttachmentName[],
): SluiceError {
  const annotated = annotations[defaultNetworkAnnotation] !== undefined;
  const list = existing.map((entry) => `${entry.namespace}/${entry.name}`).sort();
  const shown = list.length === 0 ? 'none exists' : `these exist: ${list.slice(0, 10).join(', ')}`;
  const origin = annotated
    ? `annotation ${defaultNetworkAnnotation}="${annotations[defaultNetworkAnnotation]}"`
    : 'the default network (the pod has no ' + defaultNetworkAnnotation + ' annotation)';
  return new SluiceError({
    code: 'not_found',
    operation: 'attach',
    object: `pod ${pod.namespace}/${pod.name}`,
    what: `${origin}: NetworkAttachmentDefinition ${wanted.namespace}/${wanted.name} does not exist; ${shown}`,
    remedy: annotated
      ? `correct the annotation, or create SpiderMultusConfig ${wanted.namespace}/${wanted.name}`
      : `create SpiderMultusConfig ${wanted.namespace}/${wanted.name}`,
  });
}
