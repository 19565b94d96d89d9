import { reservedIpSchema } from '../api/spiderreservedip.ts';
import { defaultReservedIp, validateReservedIp } from '../ipam/reserved-ip.ts';
import { allow, allowChanged, deny, type AdmissionRequest, type AdmissionResponse } from './admission.ts';
import { schemaErrors } from './admission-schema.ts';

/** Admission of SpiderReservedIPs. */

export function mutateReservedIp(request: AdmissionRequest): AdmissionResponse {
  const parsed = reservedIpSchema.safeParse(request.object);
  if (!parsed.success || request.operation === 'DELETE') return allow(request);
  return allowChanged(request, request.object as object, defaultReservedIp(parsed.data));
}

export function admitReservedIp(
  request: AdmissionRequest,
  disabledFamilies: readonly number[] = [],
): AdmissionResponse {
  if (request.operation === 'DELETE') return allow(request);
  const parsed = reservedIpSchema.safeParse(request.object);
  if (!parsed.success) return deny(request, request.name ?? '', schemaErrors(parsed.error));
  const old = request.operation === 'UPDATE' ? reservedIpSchema.safeParse(request.oldObject).data : undefined;
  const errors = validateReservedIp(parsed.data, { old, disabledFamilies });
  return errors.length > 0 ? deny(request, parsed.data.metadata.name ?? request.name ?? '', errors) : allow(request);
}
