import type { CniErrorCode } from '../api/cni.ts';

/** A failure to be answered as the specification's error object: `msg` in one line, `details` with object, field and remedy. */
export class CniError extends Error {
  readonly code: CniErrorCode;
  readonly details: string;

  constructor(code: CniErrorCode, message: string, details = '', options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'CniError';
    this.code = code;
    this.details = details;
  }
}
