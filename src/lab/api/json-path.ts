/** The part of kubectl's JSONPath that printer columns use: members, indices, ['quoted'], [*] and [?(@.a=="b")]. */
import { isArray, isObject, valueAt, type Json, textOf } from './json.ts';

type Step = (value: Json) => Json[];

export function parseJsonPath(text: string): readonly Step[] {
  const steps: Step[] = [];
  let rest = text
    .trim()
    .replace(/^\{?\$?/, '')
    .replace(/\}$/, '');
  while (rest !== '') {
    const [length, step] = nextStep(rest);
    if (length === 0) throw new Error(`JSONPath "${text}": cannot understand "${rest}"`);
    steps.push(step);
    rest = rest.slice(length);
  }
  return steps;
}

function nextStep(rest: string): [number, Step] {
  const filter = /^\[\?\(@((?:\.[\w-]+)+)\s*(==|!=)\s*(?:"([^"]*)"|'([^']*)'|([\w.-]+))\)\]/.exec(rest);
  if (filter !== null) {
    const path = (filter[1] ?? '').split('.').slice(1);
    const wanted = filter[3] ?? filter[4] ?? filter[5] ?? '';
    const equal = filter[2] === '==';
    const keep = (item: Json): boolean => (textOf(valueAt(item, ...path)) === wanted) === equal;
    return [filter[0].length, (value) => (isArray(value) ? value.filter(keep) : [])];
  }
  const index = /^\[(-?\d+)\]/.exec(rest);
  if (index !== null) return [index[0].length, (value) => (isArray(value) ? one(value.at(Number(index[1]))) : [])];
  const all = /^(\[\*\]|\.\*)/.exec(rest);
  if (all !== null) {
    return [
      all[0].length,
      (value) => (isArray(value) ? [...value] : isObject(value) ? Object.values(value).flatMap(one) : []),
    ];
  }
  const quoted = /^\[(?:'([^']*)'|"([^"]*)")\]/.exec(rest);
  if (quoted !== null) return [quoted[0].length, memberStep(quoted[1] ?? quoted[2] ?? '')];
  const member = /^\.?((?:\\.|[^.[\]\\])+)/.exec(rest);
  return member === null ? [0, () => []] : [member[0].length, memberStep((member[1] ?? '').replace(/\\(.)/g, '$1'))];
}

function memberStep(name: string): Step {
  return (value) => (isObject(value) && Object.hasOwn(value, name) ? one(value[name]) : []);
}

function one(value: Json | undefined): Json[] {
  return value === undefined ? [] : [value];
}

export function evaluateJsonPath(steps: readonly Step[], value: Json): Json[] {
  return steps.reduce<Json[]>((values, step) => values.flatMap(step), [value]);
}
