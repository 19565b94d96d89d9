/**
 * Which NetworkAttachmentDefinitions a pod's interfaces use, by Multus' rules (src/api/network-selection.ts): the default network
 * on eth0, which an annotation may replace, and the networks of another annotation beside it. Pure.
 */
import {
  additionalNetworks,
  defaultInterface,
  defaultNetwork,
  type AnnotatedPod,
  type NamedSelection,
} from '../../api/network-selection.ts';
import { multusAnnotations } from '../../api/spider.ts';
import { SluiceError } from '../../core/error.ts';

/** The lab's stand-in for the namespace Multus is installed in. */
export const multusNamespace = 'kube-system';
export const labDefaultNetwork: AttachmentName = { namespace: multusNamespace, name: 'default' };

export interface AttachmentName {
  readonly namespace: string;
  readonly name: string;
}

/** In the order of their ADDs, eth0 first. Throws SluiceError invalid_resource for a malformed annotation. */
export function selectAttachments(pod: AnnotatedPod): NamedSelection[] {
  const first = defaultNetwork(pod, multusNamespace) ?? { ...labDefaultNetwork, interface: defaultInterface };
  return [first, ...additionalNetworks(pod)];
}

/** The error for a selected attachment that does not exist; `existing` helps to spot the misspelling. */
export function missingAttachment(
  pod: AnnotatedPod,
  wanted: NamedSelection,
  existing: readonly AttachmentName[],
): SluiceError {
  const annotation =
    wanted.interface === defaultInterface ? multusAnnotations.defaultNetwork : multusAnnotations.networks;
  const text = pod.annotations?.[annotation];
  const list = existing.map((entry) => `${entry.namespace}/${entry.name}`).sort();
  const shown = list.length === 0 ? 'none exists' : `these exist: ${list.slice(0, 10).join(', ')}`;
  const origin =
    text === undefined
      ? `the default network (the pod has no ${annotation} annotation)`
      : `annotation ${annotation}="${text}"`;
  return new SluiceError({
    code: 'not_found',
    operation: 'attach',
    object: `pod ${pod.namespace}/${pod.name}`,
    what: `${origin}: NetworkAttachmentDefinition ${wanted.namespace}/${wanted.name} does not exist; ${shown}`,
    remedy:
      text === undefined
        ? `create SpiderMultusConfig ${wanted.namespace}/${wanted.name}`
        : `correct the annotation, or create SpiderMultusConfig ${wanted.namespace}/${wanted.name}`,
  });
}
