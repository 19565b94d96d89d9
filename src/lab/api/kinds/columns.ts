/** Column definitions in one line each. */
import type { Column } from '../resource.ts';

/** "Ready" narrow string; a leading "+" shows it only with -o wide; a trailing "#" makes it an integer. */
export function columns(...names: readonly string[]): Column[] {
  return names.map((text) => {
    const wide = text.startsWith('+');
    const integer = text.endsWith('#');
    const name = text.replace(/^\+|#$/g, '');
    return {
      name,
      type: integer ? 'integer' : 'string',
      format: name === 'Name' ? 'name' : '',
      priority: wide ? 1 : 0,
    };
  });
}

export function listOr(values: readonly string[], empty: string): string {
  return values.length === 0 ? empty : values.join(',');
}
