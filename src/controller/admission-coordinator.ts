import { spiderCoordinatorSchema } from '../api/spidercoordinator.ts';
import { allow, allowChanged, deny, type AdmissionRequest, type AdmissionResponse } from './admission.ts';
import { schemaErrors } from './admission-schema.ts';
import { defaultSpiderCoordinator } from './coordinator-defaults.ts';
import { validateSpiderCoordinator } from './coordinator-validation.ts';

/** Admission of SpiderCoordinators. */

export function mutateCoordinator(request: AdmissionRequest): AdmissionResponse {
  const parsed = spiderCoordinatorSchema.safeParse(request.object);
  if (!parsed.success || request.operation === 'DELETE') return allow(request);
  return allowChanged(request, request.object as object, defaultSpiderCoordinator(parsed.data));
}

export function admitCoordinator(request: AdmissionRequest): AdmissionResponse {
  if (request.operation === 'DELETE') return allow(request);
  const parsed = spiderCoordinatorSchema.safeParse(request.object);
  if (!parsed.success) return deny(request, request.name ?? '', schemaErrors(parsed.error));
  // The last step of a deletion is an update that removes the finalizer; it must never be refused.
  if (parsed.data.metadata.deletionTimestamp) return allow(request);
  const errors = validateSpiderCoordinator(parsed.data);
  return errors.length > 0 ? deny(request, parsed.data.metadata.name ?? request.name ?? '', errors) : allow(request);
}
