/**
 * Which class of addresses every address belongs to: the content of the datapath's ipcache, as a value.
 *
 * Entries are prefixes and the longest match decides: /32 and /128 for pods and nodes, and every ipBlock prefix in
 * use, so that an address nobody owns finds the longest prefix around it. The descriptor of an entry lists all the
 * prefixes in use that contain it, not only the longest.
 */

import type { Namespace, Node, Pod } from '../api/kubernetes.ts';
import {
  formatPrefix,
  ipToPrefix,
  parseIp,
  parsePrefix,
  type IpAddress,
  type IpFamily,
  type IpPrefix,
} from '../core/ip.ts';
import { compareText } from '../core/labels.ts';
import type { IdentityDescriptor, NamedPort } from './identity.ts';
import { protocolNumber } from './port.ts';

export interface IpcacheInput {
  readonly pods: Iterable<Pod>;
  readonly nodes: Iterable<Node>;
  readonly namespaces: Iterable<Namespace>;
  /** The node we run on. */
  readonly nodeName: string;
  /** Every ipBlock cidr and except of every policy that has local pods, in any text form. */
  readonly prefixes: Iterable<string>;
}

/** Prefix in canonical text → descriptor, sorted by text. The agent keeps the same up to date piece by piece: IpcacheTable. */
export function computeIpcache(input: IpcacheInput): Map<string, IdentityDescriptor> {
  const prefixes = new PrefixSet(input.prefixes);
  const namespaces = new Map([...input.namespaces].map((namespace) => [namespace.metadata?.name ?? '', namespace]));
  const entries = new Map<string, IdentityDescriptor>();
  for (const [text, prefix] of prefixes) entries.set(text, { kind: 'world', prefixes: prefixes.containing(prefix) });
  const owners = new Map<string, Pod>();
  for (const pod of input.pods) {
    const namespace = namespaces.get(pod.metadata?.namespace ?? '');
    for (const [text, descriptor] of describePodAddresses(pod, namespace, prefixes)) {
      const owner = owners.get(text);
      if (owner !== undefined && newestLast(owner, pod) > 0) continue;
      owners.set(text, pod);
      entries.set(text, descriptor);
    }
  }
  // Last, so that a pod's status can not take a node's address, whose ingress is always allowed.
  for (const node of input.nodes) {
    const kind = node.metadata?.name === input.nodeName ? 'host' : 'node';
    for (const ip of nodeAddresses(node)) {
      const prefix = ipToPrefix(ip);
      if (kind === 'node' && entries.get(formatPrefix(prefix))?.kind === 'host') continue;
      entries.set(formatPrefix(prefix), { kind, prefixes: prefixes.containing(prefix) });
    }
  }
  // The order of keys decides the order in which identities are made: it must not depend on that of the input.
  return new Map([...entries.keys()].sort().map((text) => [text, entries.get(text) as IdentityDescriptor]));
}

function describePodAddresses(
  pod: Pod,
  namespace: Namespace | undefined,
  prefixes: PrefixSet,
): (readonly [string, IdentityDescriptor])[] {
  return podAddresses(pod).map((ip) => {
    const prefix = ipToPrefix(ip);
    return [formatPrefix(prefix), describePod(pod, namespace, prefixes.containing(prefix))] as const;
  });
}

/**
 * The addresses that mean this pod. None for hostNetwork pods, whose addresses are the node's, and for pods that
 * have ended, whose addresses may already belong to another (kubernetes/kubernetes#92697).
 */
export function podAddresses(pod: Pod): IpAddress[] {
  if (pod.spec?.hostNetwork === true || hasEnded(pod)) return [];
  const texts = new Set([...(pod.status?.podIPs ?? []).map(({ ip }) => ip), pod.status?.podIP ?? '']);
  return [...texts].flatMap((text) => parseIp(text) ?? []);
}

export function hasEnded(pod: Pod): boolean {
  return pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
}

export function nodeAddresses(node: Node): IpAddress[] {
  // Host names and DNS names are among the addresses; they are no addresses.
  return (node.status?.addresses ?? []).flatMap(({ address }) => parseIp(address) ?? []);
}

export function describePod(
  pod: Pod,
  namespace: Namespace | undefined,
  prefixes: readonly string[],
): IdentityDescriptor {
  return {
    kind: 'pod',
    namespace: pod.metadata?.namespace ?? '',
    labels: pod.metadata?.labels ?? {},
    namespaceLabels: namespaceLabels(namespace, pod.metadata?.namespace ?? ''),
    namedPorts: namedPortsOf(pod),
    prefixes,
  };
}

/** The API server sets this label on every namespace (1.21); a namespace not seen yet is at least called so. */
export function namespaceLabels(namespace: Namespace | undefined, name: string): Readonly<Record<string, string>> {
  return { 'kubernetes.io/metadata.name': name, ...namespace?.metadata?.labels };
}

/** The first container that declares a name wins, as kube-proxy and the endpoint controller have it. */
export function namedPortsOf(pod: Pod): NamedPort[] {
  const ports = new Map<string, NamedPort>();
  for (const { name, protocol = 'TCP', containerPort } of (pod.spec?.containers ?? []).flatMap(
    (container) => container.ports ?? [],
  )) {
    const number = protocolNumber(protocol);
    if (name === undefined || name === '' || number === undefined) continue;
    const key = `${name}/${number}`;
    if (!ports.has(key)) ports.set(key, { name, protocol: number, port: containerPort });
  }
  return [...ports.values()].sort((a, b) => compareText(a.name, b.name) || a.protocol - b.protocol);
}

/** Prefixes, asked which of them contain another: one look-up per distinct length. */
export class PrefixSet {
  /** canonical text → prefix */
  readonly #prefixes = new Map<string, IpPrefix>();
  /** family → length → network bits → text */
  readonly #byLength = new Map<IpFamily, Map<number, Map<NetworkBits, string>>>();

  /** Texts that are no prefix are left out. */
  constructor(texts: Iterable<string>) {
    for (const text of texts) {
      const prefix = parsePrefix(text);
      if (prefix !== undefined) this.add(prefix);
    }
  }

  get size(): number {
    return this.#prefixes.size;
  }

  /** By canonical text. */
  get(text: string): IpPrefix | undefined {
    return this.#prefixes.get(text);
  }

  [Symbol.iterator](): IterableIterator<[text: string, prefix: IpPrefix]> {
    return this.#prefixes.entries();
  }

  /** Canonical. */
  texts(): IterableIterator<string> {
    return this.#prefixes.keys();
  }

  /** Sorted texts of the members that contain all of `inner`. */
  containing(inner: IpPrefix): string[] {
    const found: string[] = [];
    for (const [length, networks] of this.#byLength.get(inner.address.family) ?? []) {
      if (length > inner.prefixLen) continue;
      const text = networks.get(networkBits(inner.address, length));
      if (text !== undefined) found.push(text);
    }
    return found.sort(compareText);
  }

  add(prefix: IpPrefix): void {
    const text = formatPrefix(prefix);
    const { family } = prefix.address;
    this.#prefixes.set(text, prefix);
    const lengths = this.#byLength.get(family) ?? new Map<number, Map<NetworkBits, string>>();
    this.#byLength.set(family, lengths);
    const networks = lengths.get(prefix.prefixLen) ?? new Map<NetworkBits, string>();
    lengths.set(prefix.prefixLen, networks);
    networks.set(networkBits(prefix.address, prefix.prefixLen), text);
  }

  /** By canonical text; what is no member is ignored. */
  delete(text: string): void {
    const prefix = this.#prefixes.get(text);
    if (prefix === undefined) return;
    this.#prefixes.delete(text);
    const lengths = this.#byLength.get(prefix.address.family);
    const networks = lengths?.get(prefix.prefixLen);
    networks?.delete(networkBits(prefix.address, prefix.prefixLen));
    if (networks?.size === 0) lengths?.delete(prefix.prefixLen);
  }
}

/** Of IPv4 a plain number: ten thousands of addresses are looked at when a prefix changes. */
export type NetworkBits = bigint | number;

export function networkBits(address: IpAddress, length: number): NetworkBits {
  if (address.family === 4) return Math.floor(Number(address.value) / 2 ** (32 - length));
  return address.value >> BigInt(128 - length);
}

/**
 * When two pods show one address, the later entry wins: a pod that is not being deleted, then the younger one,
 * then, so that the order of the input does not matter, the greater uid.
 */
export function newestLast(a: Pod, b: Pod): number {
  const leaving = (pod: Pod): number => (pod.metadata?.deletionTimestamp === undefined ? 1 : 0);
  return (
    leaving(a) - leaving(b) ||
    compareText(a.metadata?.creationTimestamp ?? '', b.metadata?.creationTimestamp ?? '') ||
    compareText(a.metadata?.uid ?? '', b.metadata?.uid ?? '') ||
    compareText(a.metadata?.namespace ?? '', b.metadata?.namespace ?? '') ||
    compareText(a.metadata?.name ?? '', b.metadata?.name ?? '')
  );
}
