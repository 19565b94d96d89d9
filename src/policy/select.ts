/** Which identities a peer means. Selectors are matched once per identity, not per pod, and the answer is kept. */

import { matchesSelector } from '../core/labels.ts';
import type { IdentityDescriptor, IdentityId, IdentityKind, NamedPort } from './identity.ts';
import type { PeerNode } from './node.ts';

/** A set of identities at one moment, with the answers already given about it. */
export class IdentityView {
  /** The identities of this node. */
  readonly hosts: readonly IdentityId[];
  /** The pods' identities. */
  readonly pods: readonly IdentityId[];
  readonly #all: readonly (readonly [IdentityId, IdentityDescriptor])[];
  readonly #byNamespace = new Map<string, (readonly [IdentityId, IdentityDescriptor])[]>();
  readonly #byPrefix = new Map<string, (readonly [IdentityId, IdentityDescriptor])[]>();
  readonly #descriptors: ReadonlyMap<IdentityId, IdentityDescriptor>;
  readonly #selected = new Map<string, readonly IdentityId[]>();

  constructor(identities: Iterable<readonly [IdentityId, IdentityDescriptor]>) {
    this.#all = [...identities].sort(([a], [b]) => a - b);
    this.#descriptors = new Map(this.#all);
    for (const entry of this.#all) {
      const [, { kind, namespace, prefixes }] = entry;
      if (kind === 'pod' && namespace !== undefined) pushTo(this.#byNamespace, namespace, entry);
      for (const prefix of prefixes) pushTo(this.#byPrefix, prefix, entry);
    }
    this.hosts = this.#ofKind('host');
    this.pods = this.#ofKind('pod');
  }

  /** The identities that the peer means, ascending. */
  select(peer: PeerNode): readonly IdentityId[] {
    const known = this.#selected.get(peer.key);
    if (known !== undefined) return known;
    const selected = peer.kind === 'prefix' ? this.#selectPrefix(peer) : this.#selectPods(peer);
    this.#selected.set(peer.key, selected);
    return selected;
  }

  #ofKind(kind: IdentityKind): readonly IdentityId[] {
    return this.#all.filter(([, descriptor]) => descriptor.kind === kind).map(([id]) => id);
  }

  namedPorts(id: IdentityId): readonly NamedPort[] {
    return this.#descriptors.get(id)?.namedPorts ?? [];
  }

  /** The longest except does not win over the cidr of another peer: peers are a union. */
  #selectPrefix(peer: PeerNode & { kind: 'prefix' }): IdentityId[] {
    const inCidr = this.#byPrefix.get(peer.cidr) ?? [];
    return inCidr.filter(([, { prefixes }]) => !peer.except.some((hole) => prefixes.includes(hole))).map(([id]) => id);
  }

  #selectPods(peer: PeerNode & { kind: 'pods' }): IdentityId[] {
    const candidates = this.#namespacesOf(peer).flatMap((namespace) => this.#byNamespace.get(namespace) ?? []);
    const { namespaceSelector, podSelector } = peer;
    return candidates
      .filter(([, { labels, namespaceLabels }]) => {
        const inNamespace = namespaceSelector === undefined || matchesSelector(namespaceSelector, namespaceLabels);
        return inNamespace && matchesSelector(podSelector, labels);
      })
      .map(([id]) => id)
      .sort((a, b) => a - b);
  }

  #namespacesOf(peer: PeerNode & { kind: 'pods' }): string[] {
    return peer.namespace === undefined ? [...this.#byNamespace.keys()] : [peer.namespace];
  }
}

function pushTo<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
