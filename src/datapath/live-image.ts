/**
 * The entries of a policy in force. Identities come to it and go one by one, in each of a node's policies, so it grows and
 * shrinks in place.
 */
import { policyKey, policyValue } from './abi.ts';
import {
  entryCount,
  forEachIdentity,
  pickEntries,
  type PolicyImage,
  positionsOf,
  withoutKeysOf,
} from './policy-image.ts';

export class LiveImage {
  /** With room behind the entries. */
  #keys: Uint8Array;
  #values: Uint8Array;
  #count: number;
  /** No identity in it is greater. */
  #highest: number;

  /** `image` is not to be used any more. */
  constructor(image: PolicyImage) {
    this.#keys = image.keys;
    this.#values = image.values;
    this.#count = entryCount(image);
    this.#highest = highestIdentity(image);
  }

  /** Until the next change. */
  get image(): PolicyImage {
    return {
      keys: this.#keys.subarray(0, this.#count * policyKey.size),
      values: this.#values.subarray(0, this.#count * policyValue.size),
    };
  }

  get count(): number {
    return this.#count;
  }

  /** The entries of `image` that match nothing an entry here matches just so. */
  lackedOf(image: PolicyImage): PolicyImage {
    // Identities that come are mostly new, and above all that it knows.
    const known = new Set<number>();
    forEachIdentity(image, (identity) => {
      if (identity <= this.#highest) known.add(identity);
    });
    return known.size === 0 ? image : withoutKeysOf(image, this.of(known));
  }

  /** The entries of these identities. */
  of(identities: ReadonlySet<number>): PolicyImage {
    return pickEntries(this.image, positionsOf(this.image, identities));
  }

  /** Entries that match nothing an entry here matches just so. */
  add(image: PolicyImage): void {
    const count = this.#count + entryCount(image);
    this.#keys = withRoom(this.#keys, count * policyKey.size);
    this.#values = withRoom(this.#values, count * policyValue.size);
    this.#keys.set(image.keys, this.#count * policyKey.size);
    this.#values.set(image.values, this.#count * policyValue.size);
    this.#count = count;
    this.#highest = Math.max(this.#highest, highestIdentity(image));
  }

  remove(identities: ReadonlySet<number>): void {
    const positions = positionsOf(this.image, identities);
    closeGaps(this.#keys, this.#count, positions, policyKey.size);
    closeGaps(this.#values, this.#count, positions, policyValue.size);
    this.#count -= positions.length;
  }
}

/** 0 when there is none. */
function highestIdentity(image: PolicyImage): number {
  let highest = 0;
  forEachIdentity(image, (identity) => (highest = Math.max(highest, identity)));
  return highest;
}

function withRoom(rows: Uint8Array, length: number): Uint8Array {
  if (rows.length >= length) return rows;
  const roomy = new Uint8Array(Math.ceil(length * 1.25));
  roomy.set(rows);
  return roomy;
}

/** Takes the rows at `positions` (ascending) out of the first `count`. */
function closeGaps(rows: Uint8Array, count: number, positions: readonly number[], size: number): void {
  for (const [i, position] of positions.entries()) {
    const next = positions[i + 1] ?? count;
    rows.copyWithin((position - i) * size, (position + 1) * size, next * size);
  }
}
