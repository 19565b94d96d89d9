import jsonPatch from 'fast-json-patch';
import { z } from 'zod';
import { fieldErrorReason, fieldErrorText, formatFieldError, type FieldError } from '../api/field-error.ts';

/** AdmissionReview v1 (admission.k8s.io): what the API server asks and what it is answered. */

const reviewSchema = z.looseObject({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.looseObject({
    uid: z.string(),
    kind: z.looseObject({ group: z.string(), kind: z.string() }),
    name: z.string().optional(),
    namespace: z.string().optional(),
    operation: z.enum(['CREATE', 'UPDATE', 'DELETE', 'CONNECT']),
    dryRun: z.boolean().nullish(),
    object: z.unknown(),
    oldObject: z.unknown(),
  }),
});

export type AdmissionRequest = z.infer<typeof reviewSchema>['request'];

export interface AdmissionResponse {
  readonly uid: string;
  readonly allowed: boolean;
  readonly patchType?: 'JSONPatch';
  /** base64 */
  readonly patch?: string;
  readonly warnings?: readonly string[];
  readonly status?: AdmissionStatus;
}

interface AdmissionStatus {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  readonly details?: {
    readonly group: string;
    readonly kind: string;
    readonly name: string;
    readonly causes: readonly { readonly field: string; readonly reason: string; readonly message: string }[];
  };
}

/** Undefined when the body is not an AdmissionReview v1. */
export function parseAdmissionReview(body: unknown): AdmissionRequest | undefined {
  const parsed = reviewSchema.safeParse(body);
  return parsed.success ? parsed.data.request : undefined;
}

export function admissionReview(response: AdmissionResponse): object {
  return { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response };
}

export function allow(request: AdmissionRequest, warnings: readonly string[] = []): AdmissionResponse {
  return { uid: request.uid, allowed: true, ...(warnings.length > 0 ? { warnings } : {}) };
}

/** The difference as a JSON patch; no patch when there is none. */
export function allowChanged(
  request: AdmissionRequest,
  before: object,
  after: object,
  warnings: readonly string[] = [],
): AdmissionResponse {
  // Through JSON, because a property set to undefined is absent there and a difference here.
  const patch = jsonPatch.compare(before, JSON.parse(JSON.stringify(after)) as object);
  if (patch.length === 0) return allow(request, warnings);
  const text = Buffer.from(JSON.stringify(patch)).toString('base64');
  return { ...allow(request, warnings), patchType: 'JSONPatch', patch: text };
}

/** In the shape of a validation error of the API server itself, so that kubectl prints each field on a line. */
export function deny(request: AdmissionRequest, name: string, errors: readonly FieldError[]): AdmissionResponse {
  const { group, kind } = request.kind;
  const exists = errors.some((error) => error.kind === 'alreadyExists');
  const text = errors.map(formatFieldError).join('; ');
  const causes = errors.map((error) => ({
    field: error.field,
    reason: fieldErrorReason(error),
    message: fieldErrorText(error),
  }));
  return {
    uid: request.uid,
    allowed: false,
    status: {
      code: exists ? 409 : 422,
      reason: exists ? 'AlreadyExists' : 'Invalid',
      message: `${kind} "${name}" is invalid: ${text}`,
      details: { group, kind, name, causes },
    },
  };
}
