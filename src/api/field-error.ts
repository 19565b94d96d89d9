/** What is wrong with one field of an object, in the words of k8s.io/apimachinery/pkg/util/validation/field. */

export type FieldErrorKind = 'invalid' | 'required' | 'forbidden' | 'notSupported' | 'duplicate' | 'alreadyExists';

export interface FieldError {
  readonly kind: FieldErrorKind;
  /** "spec.routes[0].gw" */
  readonly field: string;
  /** As the user wrote it; absent where the value says nothing (required, forbidden). */
  readonly value?: unknown;
  /** What is wrong and what to do instead. */
  readonly detail: string;
}

/** "spec.subnet: Invalid value: \"x\": detail" */
export function formatFieldError(error: FieldError): string {
  return `${error.field}: ${fieldErrorText(error)}`;
}

/** The same without the field, as a Status cause carries it. */
export function fieldErrorText(error: FieldError): string {
  const value = JSON.stringify(error.value);
  switch (error.kind) {
    case 'invalid':
      return `Invalid value: ${value}: ${error.detail}`;
    case 'required':
      return `Required value: ${error.detail}`;
    case 'forbidden':
      return `Forbidden: ${error.detail}`;
    case 'notSupported':
      return `Unsupported value: ${value}: ${error.detail}`;
    case 'duplicate':
      return `Duplicate value: ${value}: ${error.detail}`;
    case 'alreadyExists':
      return error.detail;
  }
}

/** metav1.CauseType of the error. */
export function fieldErrorReason(error: FieldError): string {
  switch (error.kind) {
    case 'invalid':
      return 'FieldValueInvalid';
    case 'required':
      return 'FieldValueRequired';
    case 'forbidden':
      return 'FieldValueForbidden';
    case 'notSupported':
      return 'FieldValueNotSupported';
    case 'duplicate':
    case 'alreadyExists':
      return 'FieldValueDuplicate';
  }
}

export function invalid(field: string, value: unknown, detail: string): FieldError {
  return { kind: 'invalid', field, value, detail };
}

export function forbidden(field: string, detail: string): FieldError {
  return { kind: 'forbidden', field, detail };
}

export function required(field: string, detail: string): FieldError {
  return { kind: 'required', field, detail };
}

export function notSupported(field: string, value: unknown, supported: readonly string[]): FieldError {
  const detail = `supported values: ${supported.map((text) => JSON.stringify(text)).join(', ')}`;
  return { kind: 'notSupported', field, value, detail };
}
