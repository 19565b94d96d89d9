import { multusConfigSchema, type NetworkAttachmentDefinition } from '../api/spidermultusconfig.ts';
import { allow, allowChanged, deny, type AdmissionRequest, type AdmissionResponse } from './admission.ts';
import { schemaErrors } from './admission-schema.ts';
import { attachmentName } from './attachment.ts';
import { defaultMultusConfig } from './multus-defaults.ts';
import { validateMultusConfig } from './multus-validation.ts';

/** Admission of SpiderMultusConfigs. */

export type AttachmentReader = (namespace: string, name: string) => Promise<NetworkAttachmentDefinition | undefined>;

export function mutateMultusConfig(request: AdmissionRequest): AdmissionResponse {
  const parsed = multusConfigSchema.safeParse(request.object);
  if (!parsed.success || request.operation === 'DELETE') return allow(request);
  return allowChanged(request, request.object as object, defaultMultusConfig(parsed.data));
}

export async function admitMultusConfig(
  request: AdmissionRequest,
  readAttachment: AttachmentReader,
): Promise<AdmissionResponse> {
  if (request.operation === 'DELETE') return allow(request);
  const parsed = multusConfigSchema.safeParse(request.object);
  if (!parsed.success) return deny(request, request.name ?? '', schemaErrors(parsed.error));
  const config = parsed.data;
  // The last step of a deletion is an update that removes finalizers; it must never be refused.
  if (config.metadata.deletionTimestamp) return allow(request);
  const name = config.metadata.name ?? request.name ?? '';
  const namespace = config.metadata.namespace ?? request.namespace ?? '';
  const attachment = await readAttachment(namespace, attachmentName(config));
  const old = multusConfigSchema.safeParse(request.oldObject);
  const context = {
    ...(old.success && request.operation === 'UPDATE' ? { old: old.data } : {}),
    ...(attachment === undefined ? {} : { attachment }),
  };
  const errors = validateMultusConfig(config, context);
  return errors.length > 0 ? deny(request, name, errors) : allow(request, multusWarnings(config));
}

/** The chaining handlers of Cilium and of older installations go by the network's name. */
function multusWarnings(config: ReturnType<typeof multusConfigSchema.parse>): string[] {
  const chainsCilium = (config.spec?.chainCNIJsonData ?? []).some((text) => /"type"\s*:\s*"cilium-cni"/.test(text));
  const network = config.metadata.annotations?.['cni.spidernet.io/cniconfig-name'];
  if (!chainsCilium || network === 'spidernet-chainer') return [];
  return ['a chained "cilium-cni" expects the annotation cni.spidernet.io/cniconfig-name: spidernet-chainer'];
}
