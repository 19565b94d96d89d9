/**
 * The entries of a policy in order (compareEntries), no two of which match the same.
 *
 * Identities come and go one by one, in each of a node's policies. A list that comes from another one shares what that one was
 * made with, and is written out when somebody reads it: lists of hundreds of entries, one more for each endpoint and change,
 * would live just long enough to become old to the garbage collector.
 */
import { mergeEntries, withoutIdentities, type PolicyEntry } from './compile.ts';
import type { IdentityId } from './identity.ts';

/** Beyond it a list is written out at once. */
const fewChanges = 32;
const nobody: ReadonlySet<IdentityId> = new Set();

export class EntryList {
  readonly length: number;
  #written: readonly PolicyEntry[];
  /** Identities whose entries in `#written` do not count. */
  #gone: ReadonlySet<IdentityId>;
  /** Entries that count besides. */
  #added: readonly PolicyEntry[];

  /** `written` and `added` are sorted; of no identity are entries in both, unless it is in `gone`. */
  private constructor(
    written: readonly PolicyEntry[],
    gone: ReadonlySet<IdentityId>,
    added: readonly PolicyEntry[],
    length: number,
  ) {
    this.#written = written;
    this.#gone = gone;
    this.#added = added;
    this.length = length;
  }

  /** `entries` are sorted, and no two match the same. */
  static of(entries: readonly PolicyEntry[]): EntryList {
    return new EntryList(entries, nobody, [], entries.length);
  }

  /** The array is the same at each call. */
  get items(): readonly PolicyEntry[] {
    this.#write();
    return this.#written;
  }

  /** Without the entries of `gone`, with `added`: sorted, no two match the same, of identities that have no others here. */
  changed(gone: ReadonlySet<IdentityId>, added: readonly PolicyEntry[]): EntryList {
    const kept = withoutIdentities(this.#added, gone);
    const isLost = ({ identity }: PolicyEntry): boolean => gone.has(identity) && !this.#gone.has(identity);
    const lost = gone.size === 0 ? [] : this.#written.filter(isLost);
    const allGone = lost.length === 0 ? this.#gone : new Set([...this.#gone, ...lost.map(({ identity }) => identity)]);
    const length = this.length - lost.length - (this.#added.length - kept.length) + added.length;
    const list = new EntryList(this.#written, allGone, mergeEntries(kept, added), length);
    if (allGone.size + list.#added.length > fewChanges) list.#write();
    return list;
  }

  equals(other: EntryList): boolean {
    if (this === other) return true;
    return this.length === other.length && this.items.every((entry, i) => sameEntry(entry, other.items[i]));
  }

  #write(): void {
    if (this.#gone.size + this.#added.length === 0) return;
    this.#written = mergeEntries(withoutIdentities(this.#written, this.#gone), this.#added);
    [this.#gone, this.#added] = [nobody, []];
  }
}

function sameEntry(a: PolicyEntry, b: PolicyEntry | undefined): boolean {
  return (
    a === b ||
    (b !== undefined &&
      a.identity === b.identity &&
      a.direction === b.direction &&
      a.protocol === b.protocol &&
      a.port === b.port &&
      a.portPrefixLen === b.portPrefixLen &&
      a.ruleId === b.ruleId)
  );
}
