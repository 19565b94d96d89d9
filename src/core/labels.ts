/** Label selectors as Kubernetes objects carry them, and whether they match. */

export type Labels = Readonly<Record<string, string>>;

export interface LabelSelectorRequirement {
  readonly key: string;
  /** In, NotIn, Exists or DoesNotExist; a string because the API server may be newer than we are. */
  readonly operator: string;
  readonly values?: readonly string[] | undefined;
}

/** All requirements must hold; an empty selector matches everything. */
export interface LabelSelector {
  readonly matchLabels?: Labels | undefined;
  readonly matchExpressions?: readonly LabelSelectorRequirement[] | undefined;
}

export const selectorOperators = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;
export type SelectorOperator = (typeof selectorOperators)[number];

export function isSelectorOperator(text: string): text is SelectorOperator {
  return (selectorOperators as readonly string[]).includes(text);
}

/**
 * Whether the labels satisfy the selector. A requirement whose operator is unknown matches nothing.
 * NotIn and DoesNotExist hold for an absent key (k8s.io/apimachinery/pkg/labels, Requirement.Matches).
 */
export function matchesSelector(selector: LabelSelector, labels: Labels | undefined): boolean {
  const own = labels ?? {};
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) {
    if (labelOf(own, key) !== value) return false;
  }
  return (selector.matchExpressions ?? []).every((requirement) => matchesRequirement(requirement, own));
}

/** A text that is equal for selectors that select the same by construction: sorted keys and values. */
export function selectorKey(selector: LabelSelector): string {
  const labels = Object.entries(selector.matchLabels ?? {}).sort(byText);
  const expressions = (selector.matchExpressions ?? [])
    .map(({ key, operator, values }) => [key, operator, [...(values ?? [])].sort()] as const)
    .sort((a, b) => compareText(JSON.stringify(a), JSON.stringify(b)));
  return JSON.stringify([labels, expressions]);
}

/** Code unit order, the same on every machine whatever its locale. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function byText(a: readonly [string, string], b: readonly [string, string]): number {
  return compareText(a[0], b[0]);
}

/** Own properties only: a label may be called "constructor". */
function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

function matchesRequirement(requirement: LabelSelectorRequirement, labels: Labels): boolean {
  const value = labelOf(labels, requirement.key);
  const values = requirement.values ?? [];
  if (!isSelectorOperator(requirement.operator)) return false;
  switch (requirement.operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}
