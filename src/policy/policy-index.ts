/** The policies known, parsed once each and found by namespace: an endpoint never looks at another namespace's. */

import type { NetworkPolicy } from '../api/kubernetes.ts';
import { compareText } from '../core/labels.ts';
import { sameItems } from '../core/same-items.ts';
import type { Diagnostic } from './diagnostics.ts';
import { prefixesOf, type PolicyNode } from './node.ts';
import { parsePolicy } from './parse.ts';

export class PolicyIndex {
  /** namespace → name → policy; parsed when somebody asks, since a node looks at few namespaces of many. */
  readonly #namespaces = new Map<string, Map<string, LazyPolicy>>();
  /** namespace → its policies by name, made when asked for */
  readonly #sorted = new Map<string, readonly PolicyNode[]>();
  /** namespace → the prefixes that its policies name, likewise */
  readonly #prefixes = new Map<string, readonly string[]>();
  /** What they were before the namespace changed: mostly they are the same again. */
  readonly #prefixesBefore = new Map<string, readonly string[]>();
  readonly #union = new Union();

  constructor(policies: Iterable<NetworkPolicy> = []) {
    for (const policy of policies) this.set(policy);
  }

  /** Adds a policy or replaces the one of that name. */
  set(policy: NetworkPolicy): void {
    const { namespace = '', name = '' } = policy.metadata ?? {};
    const policies = this.#namespaces.get(namespace) ?? new Map<string, LazyPolicy>();
    this.#namespaces.set(namespace, policies.set(name, new LazyPolicy(policy)));
    this.#changed(namespace);
  }

  delete(namespace: string, name: string): void {
    const policies = this.#namespaces.get(namespace);
    if (policies?.delete(name) !== true) return;
    if (policies.size === 0) this.#namespaces.delete(namespace);
    this.#changed(namespace);
  }

  get(namespace: string, name: string): PolicyNode | undefined {
    return this.#namespaces.get(namespace)?.get(name)?.node;
  }

  /** By name. The same array until a policy of the namespace changes. */
  inNamespace(namespace: string): readonly PolicyNode[] {
    const known = this.#sorted.get(namespace);
    if (known !== undefined) return known;
    const policies = [...(this.#namespaces.get(namespace)?.values() ?? [])].map(({ node }) => node);
    policies.sort((a, b) => compareText(a.name, b.name));
    this.#sorted.set(namespace, policies);
    return policies;
  }

  /**
   * The ipBlock prefixes that the policies of these namespaces name, once each: what the ipcache must tell apart. The same array
   * while no namespace names others.
   */
  prefixes(namespaces: Iterable<string> = this.#namespaces.keys()): readonly string[] {
    const lists = Array.from(namespaces, (namespace) => this.#prefixesIn(namespace));
    return this.#union.of(lists);
  }

  /** What parsing had to say, by policy. */
  diagnostics(): Diagnostic[] {
    const namespaces = [...this.#namespaces.keys()].sort(compareText);
    return namespaces.flatMap((namespace) => this.inNamespace(namespace).flatMap((policy) => policy.diagnostics));
  }

  #changed(namespace: string): void {
    this.#sorted.delete(namespace);
    const before = this.#prefixes.get(namespace);
    if (before !== undefined && before.length > 0) this.#prefixesBefore.set(namespace, before);
    this.#prefixes.delete(namespace);
  }

  #prefixesIn(namespace: string): readonly string[] {
    const known = this.#prefixes.get(namespace);
    if (known !== undefined) return known;
    const texts = [...new Set(this.inNamespace(namespace).flatMap(prefixesOf))];
    const before = texts.length === 0 ? noPrefixes : this.#prefixesBefore.get(namespace);
    const kept = before !== undefined && sameItems(texts, before) ? before : texts;
    this.#prefixesBefore.delete(namespace);
    this.#prefixes.set(namespace, kept);
    return kept;
  }
}

const noPrefixes: readonly string[] = [];

/** What several lists hold together; of lists that come anew only those that are others than before are looked through. */
class Union {
  #lists: readonly (readonly string[])[] = [];
  /** Text → how many lists hold it. */
  readonly #counts = new Map<string, number>();
  #texts: readonly string[] = [];

  /** The same array while each list holds what the one before it did. */
  of(lists: readonly (readonly string[])[]): readonly string[] {
    let isOther = false;
    for (let i = 0; i < Math.max(lists.length, this.#lists.length); i++) {
      const list = lists[i] ?? noPrefixes;
      const before = this.#lists[i] ?? noPrefixes;
      if (list === before) continue;
      for (const text of list) if (this.#count(text, 1) === 1) isOther = true;
      for (const text of before) if (this.#count(text, -1) === 0) isOther = true;
    }
    this.#lists = lists;
    if (isOther) this.#texts = [...this.#counts.keys()];
    return this.#texts;
  }

  #count(text: string, by: number): number {
    const count = (this.#counts.get(text) ?? 0) + by;
    if (count === 0) this.#counts.delete(text);
    else this.#counts.set(text, count);
    return count;
  }
}

class LazyPolicy {
  readonly #policy: NetworkPolicy;
  #node: PolicyNode | undefined;

  constructor(policy: NetworkPolicy) {
    this.#policy = policy;
  }

  get node(): PolicyNode {
    this.#node ??= parsePolicy(this.#policy);
    return this.#node;
  }
}
