/**
 * The API's errors: metav1.Status with the reasons, messages and causes that kubectl and client libraries match on
 * (k8s.io/apimachinery/pkg/api/errors).
 */
import type { Json, JsonObject } from './json.ts';

export interface StatusCause extends JsonObject {
  reason: string;
  message: string;
  field?: string;
}

export interface StatusDetails extends JsonObject {
  name?: string;
  group?: string;
  kind?: string;
  uid?: string;
  causes?: StatusCause[];
  retryAfterSeconds?: number;
}

export class ApiError extends Error {
  readonly httpCode: number;
  readonly reason: string;
  readonly details: StatusDetails | undefined;

  constructor(httpCode: number, reason: string, message: string, details?: StatusDetails) {
    super(message);
    this.name = 'ApiError';
    this.httpCode = httpCode;
    this.reason = reason;
    this.details = details;
  }

  toStatus(): JsonObject {
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message: this.message,
      reason: this.reason,
      ...(this.details === undefined ? {} : { details: this.details }),
      code: this.httpCode,
    };
  }
}

/** What an error says its object is: "deployments.apps". */
export interface ResourceName {
  readonly group: string;
  readonly plural: string;
}

export interface KindName {
  readonly group: string;
  readonly kind: string;
}

export function qualified(group: string, name: string): string {
  return group === '' ? name : `${name}.${group}`;
}

function detailsOf(resource: ResourceName, name: string): StatusDetails {
  return { name, ...(resource.group === '' ? {} : { group: resource.group }), kind: resource.plural };
}

export function notFound(resource: ResourceName, name: string): ApiError {
  const message = `${qualified(resource.group, resource.plural)} "${name}" not found`;
  return new ApiError(404, 'NotFound', message, detailsOf(resource, name));
}

export function alreadyExists(resource: ResourceName, name: string): ApiError {
  const message = `${qualified(resource.group, resource.plural)} "${name}" already exists`;
  return new ApiError(409, 'AlreadyExists', message, detailsOf(resource, name));
}

export function conflict(resource: ResourceName, name: string, what: string): ApiError {
  const message = `Operation cannot be fulfilled on ${qualified(resource.group, resource.plural)} "${name}": ${what}`;
  return new ApiError(409, 'Conflict', message, detailsOf(resource, name));
}

export const modifiedMeanwhile =
  'the object has been modified; please apply your changes to the latest version and try again';

export function forbidden(resource: ResourceName, name: string, what: string, causes?: StatusCause[]): ApiError {
  const subject = name === '' ? '' : ` "${name}"`;
  const message = `${qualified(resource.group, resource.plural)}${subject} is forbidden: ${what}`;
  return new ApiError(403, 'Forbidden', message, { ...detailsOf(resource, name), ...(causes ? { causes } : {}) });
}

export function badRequest(message: string): ApiError {
  return new ApiError(400, 'BadRequest', message);
}

export function expired(message: string): ApiError {
  return new ApiError(410, 'Expired', message);
}

export function methodNotAllowed(): ApiError {
  return new ApiError(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource', {});
}

export function unsupportedMediaType(what: string): ApiError {
  return new ApiError(415, 'UnsupportedMediaType', what);
}

export function pathNotFound(): ApiError {
  return new ApiError(404, 'NotFound', 'the server could not find the requested resource', {});
}

export function internalError(message: string): ApiError {
  return new ApiError(500, 'InternalError', `Internal error occurred: ${message}`, {
    causes: [{ reason: '', message }],
  });
}

/** field.Error of apimachinery: what a validator returns. */
export interface FieldError {
  readonly type:
    | 'FieldValueRequired'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueDuplicate'
    | 'FieldValueForbidden'
    | 'FieldValueNotFound'
    | 'FieldValueTooLong'
    | 'FieldValueTooMany'
    | 'FieldValueTypeInvalid';
  readonly field: string;
  /** Everything after "field: ". */
  readonly message: string;
}

/** As Go's field.Error prints a value: strings quoted, the rest as JSON. */
export function showValue(value: Json | undefined): string {
  return value === undefined ? 'null' : JSON.stringify(value);
}

export const field = {
  required: (path: string, detail = ''): FieldError => ({
    type: 'FieldValueRequired',
    field: path,
    message: detail === '' ? 'Required value' : `Required value: ${detail}`,
  }),
  invalid: (path: string, value: Json | undefined, detail: string): FieldError => ({
    type: 'FieldValueInvalid',
    field: path,
    message: `Invalid value: ${showValue(value)}: ${detail}`,
  }),
  typeInvalid: (path: string, value: Json | undefined, detail: string): FieldError => ({
    type: 'FieldValueTypeInvalid',
    field: path,
    message: `Invalid value: ${showValue(value)}: ${detail}`,
  }),
  notSupported: (path: string, value: Json | undefined, supported: readonly string[]): FieldError => ({
    type: 'FieldValueNotSupported',
    field: path,
    message: `Unsupported value: ${showValue(value)}: supported values: ${supported.map((item) => `"${item}"`).join(', ')}`,
  }),
  duplicate: (path: string, value: Json | undefined): FieldError => ({
    type: 'FieldValueDuplicate',
    field: path,
    message: `Duplicate value: ${showValue(value)}`,
  }),
  forbidden: (path: string, detail: string): FieldError => ({
    type: 'FieldValueForbidden',
    field: path,
    message: `Forbidden: ${detail}`,
  }),
  tooLong: (path: string, max: number): FieldError => ({
    type: 'FieldValueTooLong',
    field: path,
    message: `Too long: may not be more than ${max} bytes`,
  }),
  tooMany: (path: string, actual: number, max: number): FieldError => ({
    type: 'FieldValueTooMany',
    field: path,
    message: `Too many: ${actual}: must have at most ${max} items`,
  }),
};

/** 422: `Kind.group "name" is invalid: …` with one cause per error. */
export function invalid(kind: KindName, name: string, errors: readonly FieldError[]): ApiError {
  const lines = errors.map((error) => `${error.field}: ${error.message}`);
  const text = lines.length === 1 ? (lines[0] ?? '') : `[${lines.join(', ')}]`;
  const causes = errors.map((error) => ({ reason: error.type, message: error.message, field: error.field }));
  return new ApiError(422, 'Invalid', `${qualified(kind.group, kind.kind)} "${name}" is invalid: ${text}`, {
    name,
    ...(kind.group === '' ? {} : { group: kind.group }),
    kind: kind.kind,
    causes,
  });
}
