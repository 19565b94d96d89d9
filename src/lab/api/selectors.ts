/** Label and field selectors as they come in a query string (k8s.io/apimachinery/pkg/labels, pkg/fields). */
import { badRequest } from './status.ts';

export interface LabelRequirement {
  readonly key: string;
  readonly operator: '=' | '!=' | 'in' | 'notin' | 'exists' | '!' | '>' | '<';
  readonly values: readonly string[];
}

export interface FieldRequirement {
  readonly field: string;
  readonly operator: '=' | '!=';
  readonly value: string;
}

export function parseLabelSelector(text: string): LabelRequirement[] {
  return splitTopLevel(text).map(parseRequirement);
}

/** Commas inside parentheses belong to a set. */
function splitTopLevel(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let current = '';
  for (const char of text) {
    if (char === '(') depth++;
    if (char === ')') depth--;
    if (char === ',' && depth === 0) {
      parts.push(current);
      current = '';
    } else {
      current += char;
    }
  }
  parts.push(current);
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

const keyForm = '[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?';
const forms: readonly [RegExp, (groups: readonly string[]) => LabelRequirement][] = [
  [new RegExp(`^!\\s*(${keyForm})$`), ([key = '']) => ({ key, operator: '!', values: [] })],
  [new RegExp(`^(${keyForm})$`), ([key = '']) => ({ key, operator: 'exists', values: [] })],
  [
    new RegExp(`^(${keyForm})\\s+(in|notin)\\s*\\(([^()]*)\\)$`),
    ([key = '', operator, values = '']) => ({
      key,
      operator: operator === 'in' ? 'in' : 'notin',
      values: values.split(',').map((value) => value.trim()),
    }),
  ],
  [
    new RegExp(`^(${keyForm})\\s*(==|=|!=)\\s*([-A-Za-z0-9_.]*)$`),
    ([key = '', operator, value = '']) => ({ key, operator: operator === '!=' ? '!=' : '=', values: [value] }),
  ],
  [
    new RegExp(`^(${keyForm})\\s*([<>])\\s*(-?\\d+)$`),
    ([key = '', operator, value = '']) => ({ key, operator: operator === '>' ? '>' : '<', values: [value] }),
  ],
];

function parseRequirement(text: string): LabelRequirement {
  for (const [form, make] of forms) {
    const match = form.exec(text);
    if (match !== null) return make(match.slice(1));
  }
  throw badRequest(`unable to parse requirement: found '${text}', expected: a label selector requirement`);
}

export function matchesLabels(
  requirements: readonly LabelRequirement[],
  labels: Readonly<Record<string, string>> | undefined,
): boolean {
  return requirements.every((requirement) => {
    const value = labels !== undefined && Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
    switch (requirement.operator) {
      case '=':
      case 'in':
        return value !== undefined && requirement.values.includes(value);
      case '!=':
      case 'notin':
        return value === undefined || !requirement.values.includes(value);
      case 'exists':
        return value !== undefined;
      case '!':
        return value === undefined;
      case '>':
        return value !== undefined && Number(value) > Number(requirement.values[0]);
      case '<':
        return value !== undefined && Number(value) < Number(requirement.values[0]);
    }
  });
}

/** `\\`, `\,` and `\=` escape in values. */
export function parseFieldSelector(text: string): FieldRequirement[] {
  return text
    .split(/(?<!\\),/)
    .filter((term) => term.trim() !== '')
    .map((term) => {
      const match = /^([^=!]+?)(!=|==|=)(.*)$/.exec(term);
      if (match === null) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
      const [, name = '', operator, value = ''] = match;
      return {
        field: name.trim(),
        operator: operator === '!=' ? '!=' : '=',
        value: value.replace(/\\([\\,=])/g, '$1'),
      };
    });
}

/** `selectable` holds every field the kind may be selected by. */
export function matchesFields(
  requirements: readonly FieldRequirement[],
  selectable: Readonly<Record<string, string>>,
): boolean {
  return requirements.every((requirement) => {
    const value = selectable[requirement.field] ?? '';
    return requirement.operator === '=' ? value === requirement.value : value !== requirement.value;
  });
}
