/**
 * Which identity every entry of the ipcache has, and which it gets next. Entries move one by one, and between any two of
 * them, and until the policies have followed, packets are judged: so how an address moves depends on what is in force.
 *
 * - Policies *settled* (they are what they are to be, for every identity there is): an address may join any identity.
 * - Not settled: to join an identity that others have would mean to be judged as one of them by the old policies. An
 *   address that changes its class then gets an identity which no address had before, if need be one *apart* from that of
 *   its equals, and an entry that is to go keeps one for what is around it. They join the others, and go, when the
 *   policies are settled.
 *
 * When there is no room for everything, addresses of pods and of other nodes are left out. Such an address counts as what is
 * around it, a prefix or the world, and that only takes away: an ipBlock looks at prefixes alone, and nothing else selects who
 * is outside. Leaving out a prefix would open what an `except` closes; so some room is kept for prefixes.
 */
import type { Clock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { parsePrefix, type IpPrefix } from '../core/ip.ts';
import {
  firstAllocatedIdentity,
  IdentityAllocator,
  lastAllocatedIdentity,
  type IdentityDescriptor,
  type IdentityId,
} from '../policy/identity.ts';
import type { IpcacheTable } from '../policy/ipcache-table.ts';
import type { IdentityView } from '../policy/select.ts';

export interface IpcacheChange {
  readonly upsert: readonly (readonly [IpPrefix, number])[];
  readonly remove: readonly IpPrefix[];
}

export interface IdentityAssignmentInit {
  readonly clock: Clock;
  /** Kept equal to the identities in use. */
  readonly view: IdentityView;
  /** What the kernel's ipcache holds: prefix in canonical text → identity. */
  readonly inKernel: () => ReadonlyMap<string, number>;
  /** Identities that the kernel's policies know from before. */
  readonly inPolicies: Iterable<number>;
  /** Entries that the kernel's ipcache takes. */
  readonly capacity: number;
}

/** Of the ipcache, for ipBlock prefixes and the node's own addresses. */
const keptForPrefixes = 1 / 16;

export class IdentityAssignment {
  readonly #inKernel: () => ReadonlyMap<string, number>;
  readonly #identities: IdentityAllocator;
  /** The entries that this process wrote, each with a reference in the allocator. */
  readonly #held = new Map<string, IdentityId>();
  /** What the kernel holds, when that may differ from `#held`: before the first move, and after a failure. */
  #found: ReadonlyMap<string, number> | undefined;
  /** Entries that are apart from their equals, or are to go. */
  readonly #waiting = new Set<string>();
  readonly #leftOut = new Set<string>();
  readonly #roomForAddresses: number;
  #apart = 0;

  constructor({ clock, view, inKernel, inPolicies, capacity }: IdentityAssignmentInit) {
    this.#inKernel = inKernel;
    this.#roomForAddresses = Math.floor(capacity * (1 - keptForPrefixes));
    this.#found = inKernel();
    const taken = new Set([...this.#found.values(), ...inPolicies]);
    this.#identities = new IdentityAllocator({
      nowMs: () => clock.monotonicMs(),
      firstNumber: firstFreeNumber(taken),
      taken,
      onAdded: (id, descriptor) => view.add(id, descriptor),
      onRemoved: (id) => view.remove(id),
    });
  }

  /** Number of identities in use. */
  get size(): number {
    return this.#identities.size;
  }

  /** How many addresses have no entry for want of room. */
  get leftOut(): number {
    return this.#leftOut.size;
  }

  /** Whether entries wait for the policies to be settled. */
  get waiting(): boolean {
    return this.#waiting.size > 0;
  }

  /**
   * Gives the entries of the table their identities. `write` is to put the change into the kernel; `created` are the
   * identities in it that no address had before. After a failure the assignment is as it was, and everything is compared
   * with the kernel the next time.
   */
  update(
    addresses: IpcacheTable,
    settled: boolean,
    write: (change: IpcacheChange, created: ReadonlySet<IdentityId>) => void,
  ): void {
    const moves: Move[] = [];
    try {
      const created = this.#plan(addresses, settled, moves);
      const change = ipcacheChange(moves);
      if (change.upsert.length + change.remove.length > 0) write(change, created);
    } catch (error) {
      for (const { to } of moves) if (to !== undefined) this.#identities.release(to);
      // The changes were taken from the table, and the kernel may have some of them.
      this.#found = this.#inKernel();
      throw error;
    }
    this.#found = undefined;
    if (settled) this.#waiting.clear();
    for (const { text, to, waits } of moves) {
      const before = this.#held.get(text);
      if (to === undefined) this.#held.delete(text);
      else this.#held.set(text, to);
      if (before !== undefined) this.#identities.release(before);
      if (waits) this.#waiting.add(text);
    }
  }

  /** Which of the entries that may have changed go where, with a reference for each new identity. Answers the identities made. */
  #plan(addresses: IpcacheTable, settled: boolean, moves: Move[]): ReadonlySet<IdentityId> {
    const created = new Set<IdentityId>();
    /** Identity that others have → the one of this run beside it. */
    const apart = new Map<IdentityId, IdentityId>();
    const present = this.#found ?? this.#held;
    // New entries are written before others go.
    let entries = present.size;
    // The order decides which identity gets which number: it must not depend on that of the events.
    for (const text of [...this.#affected(addresses, settled)].sort()) {
      const from = present.get(text);
      const descriptor = addresses.get(text);
      this.#leftOut.delete(text);
      if (descriptor === undefined && (settled || from === undefined)) {
        moves.push({ text, from, to: undefined, waits: false });
        continue;
      }
      if (descriptor !== undefined && from === undefined) {
        if (mayBeLeftOut(text, descriptor) && entries >= this.#roomForAddresses) {
          this.#leftOut.add(text);
          continue;
        }
        entries++;
      }
      const meant = descriptor ?? addresses.around(text);
      const equal = this.#acquire(meant, created);
      const mayJoin = settled || equal === from || created.has(equal);
      const to = mayJoin ? equal : this.#setApart(equal, meant, created, apart);
      moves.push({ text, from, to, waits: descriptor === undefined || to !== equal });
    }
    return created;
  }

  #affected(addresses: IpcacheTable, settled: boolean): Set<string> {
    const changed = addresses.takeChanged();
    if (this.#found !== undefined)
      return new Set([...addresses.texts(), ...this.#found.keys(), ...this.#held.keys(), ...this.#leftOut]);
    return new Set([...changed, ...this.#leftOut, ...(settled ? this.#waiting : [])]);
  }

  #acquire(descriptor: IdentityDescriptor, created: Set<IdentityId>): IdentityId {
    const known = this.#identities.size;
    const id = this.#identities.acquire(descriptor);
    if (id === undefined) throw outOfIdentities();
    if (this.#identities.size > known) created.add(id);
    return id;
  }

  /** Gives back `equal` for an identity of the same meaning that no address had before this run. */
  #setApart(
    equal: IdentityId,
    descriptor: IdentityDescriptor,
    created: Set<IdentityId>,
    apart: Map<IdentityId, IdentityId>,
  ): IdentityId {
    const known = apart.get(equal);
    const marked = known === undefined ? { ...descriptor, apart: ++this.#apart } : this.#identities.get(known);
    const id = this.#acquire(marked ?? descriptor, created);
    this.#identities.release(equal);
    apart.set(equal, id);
    return id;
  }
}

function mayBeLeftOut(text: string, { kind, prefixes }: IdentityDescriptor): boolean {
  return kind !== 'host' && !prefixes.includes(text);
}

/** One entry of the ipcache: what the kernel has and what it is to have. */
interface Move {
  readonly text: string;
  readonly from: number | undefined;
  readonly to: IdentityId | undefined;
  readonly waits: boolean;
}

/**
 * Entries are written one after the other, so the order counts: the longest prefixes are added first and removed last. A
 * shorter one added before them would for a moment answer for addresses that it is not to answer for.
 */
function ipcacheChange(moves: readonly Move[]): IpcacheChange {
  const upsert: [IpPrefix, number][] = [];
  const remove: IpPrefix[] = [];
  for (const { text, from, to } of moves) {
    if (to === from) continue;
    if (to === undefined) remove.push(prefixOf(text));
    else upsert.push([prefixOf(text), to]);
  }
  upsert.sort(([a], [b]) => b.prefixLen - a.prefixLen);
  remove.sort((a, b) => a.prefixLen - b.prefixLen);
  return { upsert, remove };
}

function prefixOf(text: string): IpPrefix {
  const prefix = parsePrefix(text);
  if (prefix !== undefined) return prefix;
  throw new SluiceError({ code: 'internal', operation: 'parse prefix', object: text, what: 'not canonical' });
}

/** Above all numbers in use; from the start again when less than a quarter of them is left. */
function firstFreeNumber(used: Iterable<number>): number {
  let highest: number = firstAllocatedIdentity - 1;
  for (const id of used) highest = Math.max(highest, id);
  return highest < lastAllocatedIdentity * 0.75 ? highest + 1 : firstAllocatedIdentity;
}

function outOfIdentities(): SluiceError {
  return new SluiceError({
    code: 'limit_exceeded',
    operation: 'allocate',
    object: 'identity',
    what: 'all numbers are in use or rest after use',
    remedy: 'restart the agent; fewer distinct label sets or ipBlock prefixes need fewer identities',
  });
}
