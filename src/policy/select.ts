/** Which identities a peer means. Selectors are matched once per identity, not per pod, and the answer is kept. */

import { matchesSelector } from '../core/labels.ts';
import type { IdentityDescriptor, IdentityId, NamedPort } from './identity.ts';
import type { PeerNode } from './node.ts';

/** What the compiler asks about identities. */
export interface Identities {
  /** The identities of this node, ascending, like the lists below. The same array until it changes. */
  readonly hosts: readonly IdentityId[];
  /** The pods' identities. */
  readonly pods: readonly IdentityId[];
  /** The identities that the peer means. The same array until they change. */
  select(peer: PeerNode): readonly IdentityId[];
  namedPorts(id: IdentityId): readonly NamedPort[];
}

type Identity = readonly [IdentityId, IdentityDescriptor];

/** An answer that is kept: whoever compares its list with the one that it was told need not ask again. */
export interface KeptAnswer {
  /** The same array until they change. */
  readonly ids: readonly IdentityId[];
}

class Selection implements KeptAnswer {
  readonly peer: PeerNode;
  readonly selects: (descriptor: IdentityDescriptor) => boolean;
  /** Since the last sweep. */
  asked = false;
  #ids: readonly IdentityId[];

  constructor(peer: PeerNode, selects: Selection['selects'], ids: readonly IdentityId[]) {
    this.peer = peer;
    this.selects = selects;
    this.#ids = ids;
  }

  get ids(): readonly IdentityId[] {
    this.asked = true;
    return this.#ids;
  }

  add(id: IdentityId): void {
    this.#ids = withId(this.#ids, id);
  }

  remove(id: IdentityId): void {
    this.#ids = withoutId(this.#ids, id);
  }

  /** Not kept up to date any more: whoever still holds it finds another array, and asks anew. */
  drop(): void {
    this.#ids = [];
  }
}

/** Selections are looked through for those that nobody asks for any more when this many have been added. */
const selectionsBetweenSweeps = 4096;

/** The identities in use, with the answers already given about them; an identity more or less changes only the answers with it. */
export class IdentityView implements Identities {
  readonly #descriptors = new Map<IdentityId, IdentityDescriptor>();
  readonly #byNamespace = new Map<string, Map<IdentityId, IdentityDescriptor>>();
  readonly #byPrefix = new Map<string, Map<IdentityId, IdentityDescriptor>>();
  readonly #selected = new Map<string, Selection>();
  /** The selections that an identity may belong to: by namespace, by cidr, and those of any namespace. */
  readonly #byScope = new Map<string, Set<Selection>>();
  #hosts: readonly IdentityId[] = [];
  /** Made when asked for. */
  #pods: readonly IdentityId[] | undefined;
  /** What `pods` answers. */
  readonly allPods: KeptAnswer;
  #revision = 0;
  #sweepAt = selectionsBetweenSweeps;

  constructor(identities: Iterable<Identity> = []) {
    const podsNow = (): readonly IdentityId[] => this.pods;
    this.allPods = {
      get ids() {
        return podsNow();
      },
    };
    for (const [id, descriptor] of [...identities].sort(([a], [b]) => a - b)) this.add(id, descriptor);
  }

  get hosts(): readonly IdentityId[] {
    return this.#hosts;
  }

  get pods(): readonly IdentityId[] {
    const isPod = (id: IdentityId): boolean => this.#descriptors.get(id)?.kind === 'pod';
    this.#pods ??= [...this.#descriptors.keys()].filter(isPod).sort((a, b) => a - b);
    return this.#pods;
  }

  /** Grows with every change. */
  get revision(): number {
    return this.#revision;
  }

  /** A number that is not in the view yet. */
  add(id: IdentityId, descriptor: IdentityDescriptor): void {
    const { kind, namespace, prefixes } = descriptor;
    this.#revision++;
    this.#descriptors.set(id, descriptor);
    if (kind === 'host') this.#hosts = withId(this.#hosts, id);
    if (kind === 'pod') this.#pods = undefined;
    if (kind === 'pod' && namespace !== undefined) addTo(this.#byNamespace, namespace, id, descriptor);
    for (const prefix of prefixes) addTo(this.#byPrefix, prefix, id, descriptor);
    for (const selection of this.#selectionsOf(descriptor)) selection.add(id);
  }

  /** Numbers that are not in the view are ignored. */
  remove(id: IdentityId): void {
    const descriptor = this.#descriptors.get(id);
    if (descriptor === undefined) return;
    const { kind, namespace, prefixes } = descriptor;
    this.#revision++;
    this.#descriptors.delete(id);
    if (kind === 'host') this.#hosts = withoutId(this.#hosts, id);
    if (kind === 'pod') this.#pods = undefined;
    if (kind === 'pod' && namespace !== undefined) removeFrom(this.#byNamespace, namespace, id);
    for (const prefix of prefixes) removeFrom(this.#byPrefix, prefix, id);
    for (const selection of this.#selectionsOf(descriptor)) selection.remove(id);
  }

  select(peer: PeerNode): readonly IdentityId[] {
    return this.selection(peer).ids;
  }

  /** What `select` answers, now and after each change, until `ids` has not been read for long. */
  selection(peer: PeerNode): KeptAnswer {
    const known = this.#selected.get(peer.key);
    if (known !== undefined) return known;
    if (this.#selected.size >= this.#sweepAt) this.#sweep();
    const selects = selectorOf(peer);
    const selection = new Selection(peer, selects, this.#compute(peer, selects));
    this.#selected.set(peer.key, selection);
    const scope = scopeOf(peer);
    this.#byScope.set(scope, (this.#byScope.get(scope) ?? new Set()).add(selection));
    return selection;
  }

  has(id: IdentityId): boolean {
    return this.#descriptors.has(id);
  }

  namedPorts(id: IdentityId): readonly NamedPort[] {
    return this.#descriptors.get(id)?.namedPorts ?? [];
  }

  #compute(peer: PeerNode, selects: Selection['selects']): readonly IdentityId[] {
    const ids: IdentityId[] = [];
    for (const candidates of this.#candidates(peer)) {
      for (const [id, descriptor] of candidates) if (selects(descriptor)) ids.push(id);
    }
    return ids.sort((a, b) => a - b);
  }

  #candidates(peer: PeerNode): readonly ReadonlyMap<IdentityId, IdentityDescriptor>[] {
    if (peer.kind === 'pods' && peer.namespace === undefined) return [...this.#byNamespace.values()];
    const list = peer.kind === 'pods' ? this.#byNamespace.get(peer.namespace ?? '') : this.#byPrefix.get(peer.cidr);
    return list === undefined ? [] : [list];
  }

  /** The selections that the identity belongs to. */
  *#selectionsOf(descriptor: IdentityDescriptor): Generator<Selection> {
    const { kind, namespace, prefixes } = descriptor;
    const scopes = prefixes.map((prefix) => `prefix ${prefix}`);
    if (kind === 'pod' && namespace !== undefined) scopes.push(anyNamespace, `in ${namespace}`);
    for (const scope of scopes) {
      for (const selection of this.#byScope.get(scope) ?? []) if (selection.selects(descriptor)) yield selection;
    }
  }

  /** Forgets what was not asked for since the last time. */
  #sweep(): void {
    for (const [key, selection] of this.#selected) {
      if (selection.asked) {
        selection.asked = false;
        continue;
      }
      const scope = scopeOf(selection.peer);
      this.#selected.delete(key);
      selection.drop();
      this.#byScope.get(scope)?.delete(selection);
      if (this.#byScope.get(scope)?.size === 0) this.#byScope.delete(scope);
    }
    this.#sweepAt = this.#selected.size + selectionsBetweenSweeps;
  }
}

const anyNamespace = 'anywhere';

function scopeOf(peer: PeerNode): string {
  if (peer.kind === 'prefix') return `prefix ${peer.cidr}`;
  return peer.namespace === undefined ? anyNamespace : `in ${peer.namespace}`;
}

/** Whether an identity of the peer's scope is meant. */
function selectorOf(peer: PeerNode): Selection['selects'] {
  // The longest except does not win over the cidr of another peer: peers are a union.
  if (peer.kind === 'prefix') return ({ prefixes }) => !peer.except.some((hole) => prefixes.includes(hole));
  const { namespaceSelector, podSelector } = peer;
  if (namespaceSelector === undefined) return ({ labels }) => matchesSelector(podSelector, labels);
  return ({ labels, namespaceLabels }) =>
    matchesSelector(namespaceSelector, namespaceLabels) && matchesSelector(podSelector, labels);
}

/** Ascending; new numbers are mostly the greatest. */
function withId(ids: readonly IdentityId[], id: IdentityId): readonly IdentityId[] {
  const last = ids.at(-1);
  return last === undefined || last < id ? [...ids, id] : [...ids, id].sort((a, b) => a - b);
}

function withoutId(ids: readonly IdentityId[], id: IdentityId): readonly IdentityId[] {
  return ids.filter((other) => other !== id);
}

function addTo<K, L, V>(map: Map<K, Map<L, V>>, key: K, inner: L, value: V): void {
  map.set(key, (map.get(key) ?? new Map<L, V>()).set(inner, value));
}

function removeFrom<K, L, V>(map: Map<K, Map<L, V>>, key: K, inner: L): void {
  const list = map.get(key);
  list?.delete(inner);
  if (list?.size === 0) map.delete(key);
}
