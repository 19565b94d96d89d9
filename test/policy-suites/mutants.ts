/**
 * Mistakes that a policy compiler can make, one line each: several were made by others (dataplane facts, §5.1). A
 * mutant is a copy of the compiler's sources with one line changed; the product has no seams for this.
 */

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../src/kernel/package-root.ts';
import type { CompilerModules } from './compiler.ts';

export interface Mutation {
  readonly name: string;
  /** Below src/. */
  readonly file: string;
  /** Must stand in the file exactly once. */
  readonly replace: string;
  readonly by: string;
}

export const mutations: readonly Mutation[] = [
  { name: 'except is dropped', file: 'policy/parse.ts', replace: 'except: texts,', by: 'except: [],' },
  {
    name: 'except covers only the upper half of its block',
    file: 'policy/parse.ts',
    replace: 'hole === undefined ? [] : formatPrefix(hole)',
    by: 'hole === undefined ? [] : formatPrefix({ ...hole, prefixLen: Math.min(hole.prefixLen + 1, 32) })',
  },
  {
    name: 'the protocol of a port is ignored',
    file: 'policy/parse.ts',
    replace: "protocolNumber(port.protocol ?? 'TCP')",
    by: "protocolNumber('TCP')",
  },
  { name: 'SCTP is taken for TCP', file: 'policy/port.ts', replace: 'SCTP: 132', by: 'SCTP: 6' },
  {
    name: 'pod and namespace selectors of one peer are joined by or',
    file: 'policy/select.ts',
    replace: 'namespaceLabels) && matchesSelector(podSelector, labels)',
    by: 'namespaceLabels) || matchesSelector(podSelector, labels)',
  },
  {
    name: 'only the first peer of a rule counts',
    file: 'policy/compile.ts',
    replace: 'union(rule.peers.map(',
    by: 'union(rule.peers.slice(0, 1).map(',
  },
  {
    name: 'an empty from is nobody',
    file: 'policy/parse.ts',
    replace: 'list === undefined || list === null || list.length === 0 ? undefined : list',
    by: 'list === undefined || list === null ? undefined : list',
  },
  {
    name: 'without policyTypes egress is always isolated',
    file: 'policy/parse.ts',
    replace: "return { ingress: true, egress: types.includes('Egress') || (spec.egress ?? []).length > 0 };",
    by: 'return { ingress: true, egress: true };',
  },
  {
    name: 'without policyTypes ingress is isolated only with ingress rules',
    file: 'policy/parse.ts',
    replace: 'return { ingress: true, egress: types',
    by: 'return { ingress: (spec.ingress ?? []).length > 0, egress: types',
  },
  {
    name: 'policy types are swapped',
    file: 'policy/parse.ts',
    replace: "return { ingress: types.includes('Ingress'), egress: types.includes('Egress') };",
    by: "return { ingress: types.includes('Egress'), egress: types.includes('Ingress') };",
  },
  {
    name: 'endPort is ignored',
    file: 'policy/parse.ts',
    replace: 'const last = isPresent(endPort) ? endPort : first;',
    by: 'const last = first;',
  },
  {
    name: 'endPort is not included in its range',
    file: 'policy/parse.ts',
    replace: 'portPrefixes(first, last)',
    by: 'portPrefixes(first, Math.max(first, last - 1))',
  },
  {
    name: 'a named port is resolved on the source',
    file: 'policy/compile.ts',
    replace: "port.kind === 'named' && rule.direction === 'egress'",
    by: "port.kind === 'named' && rule.direction === 'ingress'",
  },
  {
    name: 'a podSelector alone selects in every namespace',
    file: 'policy/parse.ts',
    replace: 'namespace: namespaceSelector === undefined ? namespace : undefined,',
    by: 'namespace: undefined,',
  },
  {
    name: 'NotIn demands the label',
    file: 'core/labels.ts',
    replace: 'return value === undefined || !values.includes(value);',
    by: 'return value !== undefined && !values.includes(value);',
  },
  {
    name: 'only the primary address of a pod counts',
    file: 'policy/ipcache.ts',
    replace: '[...texts].flatMap(',
    by: '[...texts].slice(0, 1).flatMap(',
  },
  {
    name: 'pods that have ended keep their address',
    file: 'policy/ipcache.ts',
    replace: 'pod.spec?.hostNetwork === true || hasEnded(pod)',
    by: 'pod.spec?.hostNetwork === true',
  },
  {
    name: 'a subject that is not understood selects nobody',
    file: 'policy/parse.ts',
    replace: 'subject: subjectIsValid ? (spec.podSelector ?? {}) : {},',
    by: "subject: subjectIsValid ? (spec.podSelector ?? {}) : { matchLabels: { never: 'there' } },",
  },
  {
    name: 'the node is an outsider as soon as an ipBlock contains it',
    file: 'policy/compile.ts',
    replace: 'hosts.map((identity) => allow(',
    by: 'hosts.slice(0, 1).map((identity) => allow(',
  },
];

/** A copy of the compiler's sources with the mutation, or without any; to be disposed of after use. */
export class MutantSources implements Disposable {
  readonly #root = mkdtempSync(join(tmpdir(), 'sluice-mutant-'));

  constructor(mutation?: Mutation) {
    writeFileSync(join(this.#root, 'package.json'), '{ "type": "module" }');
    for (const folder of ['core', 'api', 'policy']) {
      cpSync(join(packageRoot(), 'src', folder), join(this.#root, folder), { recursive: true });
    }
    if (mutation !== undefined) this.#mutate(mutation);
  }

  async load(): Promise<CompilerModules> {
    const load = <T>(name: string): Promise<T> =>
      import(pathToFileURL(join(this.#root, 'policy', `${name}.ts`)).href) as Promise<T>;
    return {
      compile: await load<CompilerModules['compile']>('compile'),
      identity: await load<CompilerModules['identity']>('identity'),
      ipcache: await load<CompilerModules['ipcache']>('ipcache'),
      policyIndex: await load<CompilerModules['policyIndex']>('policy-index'),
      ruleId: await load<CompilerModules['ruleId']>('rule-id'),
      select: await load<CompilerModules['select']>('select'),
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.#root, { recursive: true, force: true });
  }

  #mutate({ name, file, replace, by }: Mutation): void {
    const path = join(this.#root, file);
    const parts = readFileSync(path, 'utf8').split(replace);
    if (parts.length !== 2) {
      throw new Error(`mutation "${name}": its text stands in src/${file} ${parts.length - 1} times, not once`);
    }
    writeFileSync(path, parts.join(by));
  }
}
