import { multusAnnotations, spiderAnnotations, spiderApiVersion } from '../api/spider.ts';
import type { OwnerReference } from '../api/spider-schema.ts';
import type { MultusConfigSpec, NetworkAttachmentDefinition, SpiderMultusConfig } from '../api/spidermultusconfig.ts';
import { controllerOf } from '../ipam/pod-owner.ts';
import { attachmentConfig } from './attachment-config.ts';

/** The NetworkAttachmentDefinition that a SpiderMultusConfig asks for. */

export function attachmentName(config: SpiderMultusConfig): string {
  return config.metadata.annotations?.[spiderAnnotations.crName] || (config.metadata.name ?? '');
}

export function desiredAttachment(config: SpiderMultusConfig): NetworkAttachmentDefinition {
  const name = attachmentName(config);
  const spec = config.spec ?? {};
  const text = attachmentConfig(spec, { attachment: name, annotations: config.metadata.annotations ?? {} });
  return {
    apiVersion: 'k8s.cni.cncf.io/v1',
    kind: 'NetworkAttachmentDefinition',
    metadata: {
      name,
      namespace: config.metadata.namespace,
      annotations: attachmentAnnotations(config.metadata.annotations ?? {}, spec),
      ownerReferences: [ownerReferenceTo(config)],
    },
    spec: text === undefined ? {} : { config: text },
  };
}

export function ownerReferenceTo(config: SpiderMultusConfig): OwnerReference {
  return {
    apiVersion: spiderApiVersion,
    blockOwnerDeletion: true,
    controller: true,
    kind: 'SpiderMultusConfig',
    name: config.metadata.name ?? '',
    uid: config.metadata.uid ?? '',
  };
}

/** What `kubectl apply` noted about the config would be wrong about the attachment, so kubectl's own keys stay behind. */
function attachmentAnnotations(own: Readonly<Record<string, string>>, spec: MultusConfigSpec): Record<string, string> {
  const kept = Object.entries(own).filter(([key]) => !key.startsWith('kubectl.kubernetes.io/'));
  const resource = resourceName(spec);
  return {
    ...Object.fromEntries(kept),
    ...(resource === undefined ? {} : { [multusAnnotations.resourceName]: resource }),
  };
}

function resourceName(spec: MultusConfigSpec): string | undefined {
  if (spec.sriov !== undefined) return spec.sriov.resourceName;
  if (spec.ibsriov !== undefined) return spec.ibsriov.resourceName;
  if (spec.ovs?.deviceID) return `ovs-cni.network.kubevirt.io/${spec.ovs.bridge}`;
  return undefined;
}

/**
 * Who controls the attachment, if it is not this config. Compared by name: a config that was deleted and made again
 * has another UID than the one its attachment still names.
 */
export function foreignController(
  attachment: NetworkAttachmentDefinition,
  config: SpiderMultusConfig,
): OwnerReference | undefined {
  const controller = controllerOf(attachment.metadata);
  const isOwn = controller?.kind === 'SpiderMultusConfig' && controller.name === config.metadata.name;
  return isOwn ? undefined : controller;
}
