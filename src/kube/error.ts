/** An answer of the API server that is not 2xx, as a SluiceError. */

import type { Status } from '../api/kubernetes.ts';
import { hasErrorCode, SluiceError, type ErrorCode } from '../core/error.ts';

export class KubeError extends SluiceError {
  readonly httpStatus: number;
  /** metav1.StatusReason: "Conflict", "AlreadyExists", "NotFound", "Expired", "Invalid" … */
  readonly reason: string;
  readonly status: Status;
  /** How long the server asks to wait, from `Retry-After` or the status's details. */
  readonly retryAfterMs: number | undefined;

  constructor(operation: string, object: string, httpStatus: number, body: string, retryAfter?: string) {
    const status = parseStatus(body);
    super({
      code: codeOf(httpStatus),
      operation,
      object,
      what: status.message ?? `HTTP ${httpStatus}${body === '' ? '' : ` ${body.slice(0, 200)}`}`,
    });
    this.httpStatus = httpStatus;
    this.reason = status.reason ?? '';
    this.status = status;
    const seconds = Number(retryAfter ?? status.details?.retryAfterSeconds ?? NaN);
    this.retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : undefined;
  }
}

export function isNotFound(error: unknown): boolean {
  return error instanceof KubeError && error.httpStatus === 404;
}

/** What the call answers; undefined when the API server has no such object, or does not know the resource. */
export async function unlessNotFound<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (hasErrorCode(error, 'kube_not_found')) return undefined;
    throw error;
  }
}

/** The object changed since it was read (an "AlreadyExists" is a 409 too, see `isAlreadyExists`). */
export function isConflict(error: unknown): boolean {
  return error instanceof KubeError && error.httpStatus === 409 && error.reason !== 'AlreadyExists';
}

export function isAlreadyExists(error: unknown): boolean {
  return error instanceof KubeError && error.httpStatus === 409 && error.reason === 'AlreadyExists';
}

/** The resourceVersion or continue token is no longer served. */
export function isExpired(error: unknown): boolean {
  return error instanceof KubeError && error.httpStatus === 410;
}

function codeOf(httpStatus: number): ErrorCode {
  switch (httpStatus) {
    case 401:
      return 'kube_unauthorized';
    case 403:
      return 'kube_forbidden';
    case 404:
      return 'kube_not_found';
    case 409:
      return 'kube_conflict';
    case 410:
      return 'kube_expired';
    case 429:
      return 'kube_throttled';
    default:
      return httpStatus >= 500 ? 'kube_server_error' : 'kube_invalid';
  }
}

function parseStatus(body: string): Status {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
