/**
 * Which entries of the `policy` map belong to which policy. A policy is written under an id of its own, then
 * made the endpoint's by one update of `endpoints`, and stays until the next one has been replaced in turn: a
 * packet that has read the old id a moment ago still finds its entries.
 */
import { isErrno, type BpfMap, Errno } from '../kernel/index.ts';
import { SluiceError } from '../core/error.ts';
import { policyKey } from './abi.ts';
import { LiveImage } from './live-image.ts';
import { mapRemedies } from './map-usage.ts';
import {
  decodeImage,
  emptyImage,
  encodePolicy,
  entryCount,
  imageOf,
  joinImages,
  type PolicyEntry,
  type PolicyImage,
  ruleIdsOf,
  sameImage,
} from './policy-image.ts';

export type { PolicyEntry } from './policy-image.ts';

interface Generation {
  readonly policyId: number;
  readonly live: LiveImage;
}

export class PolicyTable {
  readonly #map: BpfMap;
  readonly #current = new Map<number, Generation>();
  readonly #retired = new Map<number, Generation>();

  constructor(map: BpfMap) {
    this.#map = map;
  }

  /** Learns what the kernel holds, and deletes what belongs to no endpoint (left by a crash half-way). */
  adopt(policyIdByEndpoint: ReadonlyMap<number, number>): void {
    const byPolicy = new Map<number, (readonly [Uint8Array, Uint8Array])[]>();
    for (const entry of this.#map.entries()) {
      const { policyId } = policyKey.decode(entry[0]);
      const known = byPolicy.get(policyId);
      if (known === undefined) byPolicy.set(policyId, [entry]);
      else known.push(entry);
    }
    for (const [endpointId, policyId] of policyIdByEndpoint) {
      const image = imageOf(byPolicy.get(policyId) ?? []);
      this.#current.set(endpointId, { policyId, live: new LiveImage(image) });
      byPolicy.delete(policyId);
    }
    for (const entries of byPolicy.values()) this.#erase(imageOf(entries));
  }

  /** Whether the endpoint has exactly these entries already. */
  isCurrent(endpointId: number, entries: readonly PolicyEntry[]): boolean {
    const current = this.#current.get(endpointId);
    return current !== undefined && sameImage(encodePolicy(current.policyId, entries), current.live.image);
  }

  /** Writes the entries under `policyId`; nobody reads them yet. All or nothing. */
  write(policyId: number, entries: readonly PolicyEntry[]): PolicyImage {
    const image = encodePolicy(policyId, entries);
    this.#put(image);
    return image;
  }

  /** To be called when the kernel uses `policyId`. */
  commit(endpointId: number, policyId: number, image: PolicyImage): void {
    const previous = this.#current.get(endpointId);
    const older = this.#retired.get(endpointId);
    this.#current.set(endpointId, { policyId, live: new LiveImage(image) });
    if (previous !== undefined) this.#retired.set(endpointId, previous);
    if (older !== undefined) this.#erase(older.live.image);
  }

  /**
   * Adds entries (by endpoint id) to the policies in force, in place. Not atomic, so what is added must do no harm without the rest
   * of it. Where a policy has an entry that matches the same, that one stays. All or nothing.
   */
  extend(additions: ReadonlyMap<number, readonly PolicyEntry[]>): void {
    const parts = Array.from(additions, ([endpointId, entries]) => {
      const { policyId, live } = this.#mustCurrent(endpointId);
      return { live, added: live.lackedOf(encodePolicy(policyId, entries)) };
    });
    this.#put(joinImages(parts.map(({ added }) => added)));
    for (const { live, added } of parts) live.add(added);
  }

  /** Removes all entries of the identities, in place. Not atomic, so no address may have them. */
  forgetIdentities(endpointId: number, identities: ReadonlySet<number>): void {
    const { live } = this.#mustCurrent(endpointId);
    this.#erase(live.of(identities));
    live.remove(identities);
  }

  forget(endpointId: number): void {
    for (const generations of [this.#current, this.#retired]) {
      const generation = generations.get(endpointId);
      if (generation !== undefined) this.#erase(generation.live.image);
      generations.delete(endpointId);
    }
  }

  entries(endpointId: number): PolicyEntry[] {
    return decodeImage(this.#current.get(endpointId)?.live.image ?? emptyImage);
  }

  /** Of the endpoint's policy and the one before it. */
  ruleIds(endpointId: number): Set<number> {
    const generations = [this.#current.get(endpointId), this.#retired.get(endpointId)];
    return new Set(
      generations.flatMap((generation) => (generation === undefined ? [] : [...ruleIdsOf(generation.live.image)])),
    );
  }

  /** Entries in the map. */
  get size(): number {
    const generations = [...this.#current.values(), ...this.#retired.values()];
    return generations.reduce((sum, { live }) => sum + live.count, 0);
  }

  #mustCurrent(endpointId: number): Generation {
    const current = this.#current.get(endpointId);
    if (current === undefined) throw new RangeError(`endpoint ${endpointId} has no policy`);
    return current;
  }

  #put(image: PolicyImage): void {
    try {
      this.#map.updatePacked(image.keys, image.values);
    } catch (error) {
      this.#erase(image);
      if (!isErrno(error, Errno.ENOSPC, Errno.E2BIG)) throw error;
      throw new SluiceError({
        code: 'limit_exceeded',
        operation: 'write policy',
        object: `with ${entryCount(image)} entries`,
        what: `the node's policies may have ${this.#map.spec.maxEntries} entries together`,
        remedy: mapRemedies.policy,
        cause: error,
      });
    }
  }

  #erase({ keys }: PolicyImage): void {
    this.#map.deletePacked(keys);
  }
}
