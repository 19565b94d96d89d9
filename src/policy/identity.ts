/**
 * Identities: numbers, local to the node, for classes of addresses that no policy can tell apart.
 *
 * A class is described by what policies look at: whose address it is, the pod's namespace and labels, the named
 * ports, and which of the ipBlock prefixes in use contain it. Since the prefixes are part of the class, an ipBlock
 * reaches pod addresses as the API demands (CIDR rules that skip pods: cilium/cilium#14497), and a policy entry
 * stays (identity, protocol, port).
 */

import { compareText, type Labels } from '../core/labels.ts';

declare const identityBrand: unique symbol;
export type IdentityId = number & { readonly [identityBrand]: true };

/** In a policy entry: whoever it is. Never the identity of an address. */
export const anyIdentity = 0 as IdentityId;
/** The node we run on, without an ipBlock that contains its address. */
export const hostIdentity = 1 as IdentityId;
/** Any address that no pod or node has and no ipBlock in use contains. */
export const worldIdentity = 2 as IdentityId;
/** Other nodes, likewise. */
export const nodeIdentity = 3 as IdentityId;
export const firstAllocatedIdentity = 256 as IdentityId;
/** 24 bits are left so that an identity fits a packet mark beside 8 bits of flags. */
export const lastAllocatedIdentity = 0xff_ffff as IdentityId;

/**
 * `host` is the node we run on and its hostNetwork pods: its ingress is always allowed (kubelet's probes).
 * `node` is another node and its hostNetwork pods: only an ipBlock selects it.
 */
export type IdentityKind = 'pod' | 'host' | 'node' | 'world';

export interface NamedPort {
  readonly name: string;
  /** IP protocol number. */
  readonly protocol: number;
  readonly port: number;
}

export interface IdentityDescriptor {
  readonly kind: IdentityKind;
  /** Pods only, like the three below. */
  readonly namespace?: string | undefined;
  readonly labels?: Labels | undefined;
  readonly namespaceLabels?: Labels | undefined;
  readonly namedPorts?: readonly NamedPort[] | undefined;
  /** In canonical text, sorted: the prefixes in use that contain the address. */
  readonly prefixes: readonly string[];
  /** Makes a class of its own of addresses that policies cannot tell from others; means nothing to policies. */
  readonly apart?: number | undefined;
}

/** Equal texts for equal classes, whatever the order of labels and lists. */
export function descriptorKey(descriptor: IdentityDescriptor): string {
  const { kind, namespace, labels, namespaceLabels, namedPorts = [], prefixes, apart } = descriptor;
  const ports = namedPorts.map(({ name, protocol, port }) => `${name}/${protocol}/${port}`).sort();
  return JSON.stringify([kind, namespace, sorted(labels), sorted(namespaceLabels), ports, [...prefixes].sort(), apart]);
}

export interface IdentityAllocatorOptions {
  /** Milliseconds on any clock that does not go back. */
  readonly nowMs: () => number;
  /**
   * How long a number stays unused after its last address is gone. Policy entries and connections that still name
   * it must be gone before it means someone else.
   */
  readonly reuseDelayMs?: number;
  /** The first number given out: after a restart, one above all that the kernel still holds. */
  readonly firstNumber?: number;
  /** Numbers that the kernel still holds with another meaning: never given out. */
  readonly taken?: ReadonlySet<number>;
  /** Told of every class that gets a number, the reserved ones included, and of every number that is given back. */
  readonly onAdded?: (id: IdentityId, descriptor: IdentityDescriptor) => void;
  readonly onRemoved?: (id: IdentityId) => void;
}

interface Allocation {
  readonly id: IdentityId;
  readonly descriptor: IdentityDescriptor;
  references: number;
}

/** Gives each class of addresses its number and counts its users. A descriptor must not change once it was given. */
export class IdentityAllocator {
  readonly #options: IdentityAllocatorOptions;
  readonly #nowMs: () => number;
  readonly #reuseDelayMs: number;
  readonly #byKey = new Map<string, Allocation>();
  readonly #byId = new Map<IdentityId, Allocation>();
  /** Descriptors come back unchanged in every run; making the text of one is most of the work. */
  readonly #keys = new WeakMap<IdentityDescriptor, string>();
  #free: { readonly id: IdentityId; readonly sinceMs: number }[] = [];
  #next: number;
  #revision = 0;

  constructor(options: IdentityAllocatorOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs;
    this.#reuseDelayMs = options.reuseDelayMs ?? 60_000;
    this.#next = Math.max(firstAllocatedIdentity, options.firstNumber ?? 0);
    for (const [kind, id] of [
      ['host', hostIdentity],
      ['world', worldIdentity],
      ['node', nodeIdentity],
    ] as const) {
      this.#keep({ id, descriptor: Object.freeze({ kind, prefixes: [] }), references: 1 });
    }
  }

  /** Changes when the set of identities does. */
  get revision(): number {
    return this.#revision;
  }

  get size(): number {
    return this.#byId.size;
  }

  /** The class's number, made if it has none; one more user. Undefined when all numbers are taken. */
  acquire(descriptor: IdentityDescriptor): IdentityId | undefined {
    const key = this.#keyOf(descriptor);
    const known = this.#byKey.get(key);
    if (known !== undefined) {
      known.references++;
      return known.id;
    }
    const id = this.#takeNumber();
    if (id !== undefined) this.#keep({ id, descriptor, references: 1 });
    return id;
  }

  /** One user less; the number of a class without users is kept back for a while. Unknown numbers are ignored. */
  release(id: IdentityId): void {
    const allocation = this.#byId.get(id);
    if (allocation === undefined || --allocation.references > 0) return;
    this.#byId.delete(id);
    this.#byKey.delete(this.#keyOf(allocation.descriptor));
    this.#free.push({ id, sinceMs: this.#nowMs() });
    this.#revision++;
    this.#options.onRemoved?.(id);
  }

  /** The descriptor behind a number. */
  get(id: IdentityId): IdentityDescriptor | undefined {
    return this.#byId.get(id)?.descriptor;
  }

  /** All classes in use, the reserved ones included. */
  entries(): [IdentityId, IdentityDescriptor][] {
    return [...this.#byId.values()].map(({ id, descriptor }) => [id, descriptor]);
  }

  #keep(allocation: Allocation): void {
    this.#byKey.set(this.#keyOf(allocation.descriptor), allocation);
    this.#byId.set(allocation.id, allocation);
    this.#revision++;
    this.#options.onAdded?.(allocation.id, allocation.descriptor);
  }

  #keyOf(descriptor: IdentityDescriptor): string {
    const known = this.#keys.get(descriptor);
    if (known !== undefined) return known;
    const key = descriptorKey(descriptor);
    this.#keys.set(descriptor, key);
    return key;
  }

  /** New numbers first: the longer a number rests, the better. */
  #takeNumber(): IdentityId | undefined {
    while (this.#options.taken?.has(this.#next) === true) this.#next++;
    if (this.#next <= lastAllocatedIdentity) return this.#next++ as IdentityId;
    const oldest = this.#free[0];
    if (oldest === undefined || this.#nowMs() - oldest.sinceMs < this.#reuseDelayMs) return undefined;
    this.#free = this.#free.slice(1);
    return oldest.id;
  }
}

function sorted(labels: Labels | undefined): [string, string][] | undefined {
  return labels && Object.entries(labels).sort((a, b) => compareText(a[0], b[0]));
}
