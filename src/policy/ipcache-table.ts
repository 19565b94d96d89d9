/**
 * The content of the ipcache, kept up to date object by object: after any sequence of changes it is what `computeIpcache`
 * makes of the objects as they are then (a property test compares the two). With 30,000 pods a change costs what it
 * touches: a pod its addresses, an ipBlock prefix the addresses inside it.
 *
 * Descriptors of equal pods are one object, so that whoever numbers them need not look into them.
 */

import type { Namespace, Node, Pod } from '../api/kubernetes.ts';
import { bitsOf, formatPrefix, ipToPrefix, parseIp, parsePrefix, type IpAddress, type IpPrefix } from '../core/ip.ts';
import { compareText, type Labels } from '../core/labels.ts';
import { sameItems } from '../core/same-items.ts';
import type { IdentityDescriptor, IdentityKind, NamedPort } from './identity.ts';
import { namedPortsOf, namespaceLabels, newestLast, nodeAddresses, podAddresses, PrefixSet } from './ipcache.ts';
import { PrefixTable } from './prefix-table.ts';

/** Addresses that are known better than from the pod's status, which shows them only after ADD. */
export interface OwnAddresses {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly ips: readonly string[];
}

/** What policies can tell apart about pods, whatever their addresses. */
interface PodClass {
  readonly key: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly namedPorts: readonly NamedPort[];
  /** Prefixes around the address, joined → descriptor; empty again when the namespace's labels change. */
  readonly descriptors: Map<string, IdentityDescriptor>;
  pods: number;
}

interface PodState {
  pod: Pod;
  podClass: PodClass;
  addresses: readonly string[];
}

/** One address, or one ipBlock prefix, or both when the prefix has one address. */
interface Entry {
  readonly prefix: IpPrefix;
  pods: readonly PodState[];
  nodes: readonly string[];
}

/** Beyond this, equal descriptors may be several objects; it bounds what prefixes that came and went leave behind. */
const descriptorsPerClass = 256;

export class IpcacheTable {
  readonly #nodeName: string;
  readonly #pods = new Map<string, PodState>();
  readonly #nodes = new Map<string, readonly string[]>();
  readonly #namespaces = new Map<string, Namespace>();
  readonly #classes = new Map<string, PodClass>();
  readonly #plain = new Map<string, IdentityDescriptor>();
  readonly #prefixes = new PrefixSet([]);
  readonly #entries = new PrefixTable<Entry>();
  readonly #changed = new Set<string>();
  #own: ReadonlyMap<string, OwnAddresses> = new Map();

  /** `nodeName`: the node we run on. */
  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  /** Adds a pod or replaces the one of that name. */
  setPod(pod: Pod): void {
    const key = podKey(pod.metadata?.namespace ?? '', pod.metadata?.name ?? '');
    this.#placePod(key, pod);
  }

  deletePod(namespace: string, name: string): void {
    const key = podKey(namespace, name);
    const state = this.#pods.get(key);
    if (state === undefined) return;
    this.#pods.delete(key);
    this.#movePod(state, state.addresses, []);
    this.#leaveClass(state.podClass);
  }

  setNode(node: Node): void {
    this.#placeNode(node.metadata?.name ?? '', nodeAddresses(node));
  }

  deleteNode(name: string): void {
    this.#placeNode(name, []);
    this.#nodes.delete(name);
  }

  setNamespace(namespace: Namespace): void {
    this.#relabel(namespace.metadata?.name ?? '', namespace);
  }

  deleteNamespace(name: string): void {
    this.#relabel(name, undefined);
  }

  /** The ipBlock prefixes in use, in any text form; texts that are no prefix are left out. `keepOthers`: those of before too. */
  setPrefixes(texts: Iterable<string>, { keepOthers = false } = {}): void {
    const wanted = keepOthers ? undefined : new Set<string>();
    const come = new Map<string, IpPrefix>();
    for (const text of texts) {
      // Mostly they are canonical, and known.
      const isKnown = this.#prefixes.get(text) !== undefined;
      const prefix = isKnown ? undefined : parsePrefix(text);
      const canonical = prefix === undefined ? text : formatPrefix(prefix);
      wanted?.add(canonical);
      if (prefix !== undefined && this.#prefixes.get(canonical) === undefined) come.set(canonical, prefix);
    }
    const gone = new Map<string, IpPrefix>();
    if (wanted !== undefined) {
      for (const text of this.#prefixes.texts()) {
        const prefix = wanted.has(text) ? undefined : this.#prefixes.get(text);
        if (prefix !== undefined) gone.set(text, prefix);
      }
    }
    for (const text of gone.keys()) this.#prefixes.delete(text);
    for (const [text, prefix] of come) {
      this.#prefixes.add(prefix);
      if (this.#entries.get(text) === undefined) this.#entries.set(text, { prefix, pods: [], nodes: [] });
    }
    for (const prefix of [...gone.values(), ...come.values()])
      for (const text of this.#entries.inside(prefix)) this.#changed.add(text);
    for (const text of gone.keys()) this.#dropUnused(text);
  }

  /** Replaces what was given before. Of pods that are not known, or are of another uid, nothing is taken. */
  setOwnAddresses(list: readonly OwnAddresses[]): void {
    const before = this.#own;
    const now = new Map<string, OwnAddresses>();
    for (const own of list) {
      const key = podKey(own.namespace, own.name);
      const known = now.get(key);
      now.set(key, known?.uid === own.uid ? { ...own, ips: [...known.ips, ...own.ips] } : own);
    }
    this.#own = now;
    for (const key of new Set([...before.keys(), ...now.keys()])) {
      const state = this.#pods.get(key);
      if (state !== undefined && !sameOwn(before.get(key), now.get(key))) this.#placePod(key, state.pod);
    }
  }

  /** Prefixes whose descriptor may have changed since the last call, or that have come or gone. */
  takeChanged(): string[] {
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /** Every prefix that has a descriptor. */
  texts(): IterableIterator<string> {
    return this.#entries.texts();
  }

  /** Undefined when the ipcache has no such entry. */
  get(text: string): IdentityDescriptor | undefined {
    const entry = this.#entries.get(text);
    if (entry === undefined) return undefined;
    const around = this.#prefixes.containing(entry.prefix);
    // A pod's status can not take a node's address, whose ingress is always allowed.
    if (entry.nodes.length > 0) return this.#describe(entry.nodes.includes(this.#nodeName) ? 'host' : 'node', around);
    const [first, ...others] = entry.pods;
    if (first === undefined) return this.#describe('world', around);
    const owner = others.reduce((best, other) => (newestLast(best.pod, other.pod) > 0 ? best : other), first);
    return this.#describePod(owner.podClass, around);
  }

  /** What the address or prefix is to policy without an entry of its own. */
  around(text: string): IdentityDescriptor {
    const prefix = parsePrefix(text);
    return this.#describe('world', prefix === undefined ? [] : this.#prefixes.containing(prefix));
  }

  /** Of the ipBlock prefixes in use. */
  get prefixCount(): number {
    return this.#prefixes.size;
  }

  #placePod(key: string, pod: Pod): void {
    const own = this.#own.get(key);
    const actual = own === undefined || own.uid !== (pod.metadata?.uid ?? '') ? pod : withAddresses(pod, own.ips);
    const addresses = podAddresses(actual).map((ip) => this.#textOf(ip));
    const podClass = this.#enterClass(pod);
    const state = this.#pods.get(key);
    if (state === undefined) {
      const made = { pod, podClass, addresses };
      this.#pods.set(key, made);
      this.#movePod(made, [], addresses);
      return;
    }
    const before = { ...state };
    state.pod = pod;
    state.podClass = podClass;
    if (!sameItems(before.addresses, addresses)) {
      state.addresses = addresses;
      this.#movePod(state, before.addresses, addresses);
    }
    // The same class again leaves every descriptor; who wins a contended address may depend on more.
    if (before.podClass !== podClass || newestLast(before.pod, pod) !== 0)
      for (const text of addresses) this.#changed.add(text);
    this.#leaveClass(before.podClass);
  }

  #movePod(state: PodState, from: readonly string[], to: readonly string[]): void {
    for (const text of from) {
      const entry = this.#entries.get(text);
      if (entry === undefined) continue;
      entry.pods = entry.pods.filter((other) => other !== state);
      this.#changed.add(text);
      this.#dropUnused(text);
    }
    for (const text of to) {
      const entry = this.#entryOf(text);
      entry.pods = [...entry.pods, state];
      this.#changed.add(text);
    }
  }

  #placeNode(name: string, ips: readonly IpAddress[]): void {
    const addresses = [...new Set(ips.map((ip) => this.#textOf(ip)))];
    const before = this.#nodes.get(name) ?? [];
    this.#nodes.set(name, addresses);
    if (sameItems(before, addresses)) return;
    for (const text of before) {
      const entry = this.#entries.get(text);
      if (entry === undefined) continue;
      entry.nodes = entry.nodes.filter((other) => other !== name);
      this.#changed.add(text);
      this.#dropUnused(text);
    }
    for (const text of addresses) {
      const entry = this.#entryOf(text);
      entry.nodes = [...entry.nodes, name];
      this.#changed.add(text);
    }
  }

  #relabel(name: string, namespace: Namespace | undefined): void {
    const labelsOf = (object: Namespace | undefined): string => labelsKey(namespaceLabels(object, name));
    const same = labelsOf(this.#namespaces.get(name)) === labelsOf(namespace);
    if (namespace === undefined) this.#namespaces.delete(name);
    else this.#namespaces.set(name, namespace);
    if (same) return;
    for (const { podClass, addresses } of this.#pods.values()) {
      if (podClass.namespace !== name) continue;
      podClass.descriptors.clear();
      for (const text of addresses) this.#changed.add(text);
    }
  }

  #textOf(ip: IpAddress): string {
    return formatPrefix(ipToPrefix(ip));
  }

  #entryOf(text: string): Entry {
    const known = this.#entries.get(text);
    if (known !== undefined) return known;
    const slash = text.lastIndexOf('/');
    const address = parseIp(text.slice(0, slash));
    if (address === undefined) throw new RangeError(`not an address: ${text}`);
    const made: Entry = { prefix: { address, prefixLen: bitsOf(address.family) }, pods: [], nodes: [] };
    this.#entries.set(text, made);
    return made;
  }

  #dropUnused(text: string): void {
    const entry = this.#entries.get(text);
    if (entry === undefined || entry.pods.length + entry.nodes.length > 0) return;
    if (this.#prefixes.get(text) === undefined) this.#entries.delete(text);
  }

  #enterClass(pod: Pod): PodClass {
    const namespace = pod.metadata?.namespace ?? '';
    const labels = pod.metadata?.labels ?? {};
    const namedPorts = namedPortsOf(pod);
    const key = `${namespace} ${labelsKey(labels)} ${JSON.stringify(namedPorts)}`;
    const known = this.#classes.get(key);
    const podClass = known ?? { key, namespace, labels, namedPorts, descriptors: new Map(), pods: 0 };
    podClass.pods++;
    if (known === undefined) this.#classes.set(key, podClass);
    return podClass;
  }

  #leaveClass(podClass: PodClass): void {
    if (--podClass.pods === 0) this.#classes.delete(podClass.key);
  }

  #describe(kind: IdentityKind, prefixes: readonly string[]): IdentityDescriptor {
    const key = `${kind} ${prefixes.join(' ')}`;
    return remember(this.#plain, key, () => ({ kind, prefixes }));
  }

  #describePod(podClass: PodClass, prefixes: readonly string[]): IdentityDescriptor {
    const { namespace, labels, namedPorts } = podClass;
    return remember(podClass.descriptors, prefixes.join(' '), () => ({
      kind: 'pod',
      namespace,
      labels,
      namespaceLabels: namespaceLabels(this.#namespaces.get(namespace), namespace),
      namedPorts,
      prefixes,
    }));
  }
}

function remember(
  descriptors: Map<string, IdentityDescriptor>,
  key: string,
  make: () => IdentityDescriptor,
): IdentityDescriptor {
  const known = descriptors.get(key);
  if (known !== undefined) return known;
  if (descriptors.size >= descriptorsPerClass) descriptors.clear();
  const made = make();
  descriptors.set(key, made);
  return made;
}

function withAddresses(pod: Pod, ips: readonly string[]): Pod {
  return { ...pod, status: { ...pod.status, podIP: undefined, podIPs: ips.map((ip) => ({ ip })) } };
}

function podKey(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

function labelsKey(labels: Labels): string {
  return JSON.stringify(Object.entries(labels).sort((a, b) => compareText(a[0], b[0])));
}

function sameOwn(a: OwnAddresses | undefined, b: OwnAddresses | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && a.uid === b.uid && sameItems(a.ips, b.ips));
}
