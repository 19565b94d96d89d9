import type { z } from 'zod';
import { invalid, type FieldError } from '../api/field-error.ts';

/** Only API servers that do not check the CRD's schema send such objects. */
export function schemaErrors(error: z.ZodError): FieldError[] {
  return error.issues.map(({ path, message }) => {
    const field = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
    return invalid(field.replace(/^\./, ''), null, `${message}; see docs/reference for the fields`);
  });
}
