/** metav1.LabelSelector inside objects: text form, validation, matching. */
import { matchesSelector } from '../../../core/labels.ts';
import { isObject, objectAt, objectsAt, stringAt, stringsAt, textOf } from '../json.ts';
import type { JsonObject } from '../json.ts';
import { labelValue, qualifiedName } from '../names.ts';
import { field, type FieldError } from '../status.ts';

/** metav1.FormatLabelSelector: "a=b,c in (d,e),!f", "<none>" when empty. */
export function selectorText(selector: JsonObject | undefined): string {
  const labels = Object.entries(objectAt(selector, 'matchLabels') ?? {}).map(
    ([key, value]) => `${key}=${textOf(value)}`,
  );
  const expressions = objectsAt(selector, 'matchExpressions').map((item) => {
    const key = stringAt(item, 'key') ?? '';
    const values = [...stringsAt(item, 'values')].sort().join(',');
    switch (item.operator) {
      case 'In':
        return `${key} in (${values})`;
      case 'NotIn':
        return `${key} notin (${values})`;
      case 'Exists':
        return key;
      default:
        return `!${key}`;
    }
  });
  const terms = [...labels, ...expressions].sort();
  return terms.length === 0 ? '<none>' : terms.join(',');
}

export function selectorMatches(selector: JsonObject, labels: JsonObject): boolean {
  const text = (map: JsonObject | undefined): Record<string, string> =>
    Object.fromEntries(Object.entries(map ?? {}).map(([key, value]) => [key, textOf(value)]));
  return matchesSelector(
    {
      matchLabels: text(objectAt(selector, 'matchLabels')),
      matchExpressions: objectsAt(selector, 'matchExpressions').map((item) => ({
        key: stringAt(item, 'key') ?? '',
        operator: stringAt(item, 'operator') ?? '',
        values: stringsAt(item, 'values'),
      })),
    },
    text(labels),
  );
}

export function validateSelector(selector: JsonObject | undefined, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const labels = selector?.matchLabels;
  for (const [key, value] of Object.entries(isObject(labels) ? labels : {})) {
    errors.push(...qualifiedName(key).map((wrong) => field.invalid(`${path}.matchLabels`, key, wrong)));
    errors.push(...labelValue(textOf(value)).map((wrong) => field.invalid(`${path}.matchLabels`, value, wrong)));
  }
  for (const [index, item] of objectsAt(selector, 'matchExpressions').entries()) {
    errors.push(...validateExpression(item, `${path}.matchExpressions[${index}]`));
  }
  return errors;
}

function validateExpression(item: JsonObject, path: string): FieldError[] {
  const values = stringsAt(item, 'values');
  const key = stringAt(item, 'key') ?? '';
  const errors = [
    ...qualifiedName(key).map((wrong) => field.invalid(`${path}.key`, key, wrong)),
    ...values.flatMap((value, index) =>
      labelValue(value).map((wrong) => field.invalid(`${path}.values[${index}]`, value, wrong)),
    ),
  ];
  switch (item.operator) {
    case 'In':
    case 'NotIn':
      if (values.length === 0) {
        errors.push(field.required(`${path}.values`, "must be specified when `operator` is 'In' or 'NotIn'"));
      }
      break;
    case 'Exists':
    case 'DoesNotExist':
      if (values.length > 0) {
        errors.push(
          field.forbidden(`${path}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        );
      }
      break;
    default:
      errors.push(field.invalid(`${path}.operator`, item.operator ?? '', 'not a valid selector operator'));
  }
  return errors;
}
