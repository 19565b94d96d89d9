/**
 * Which entries of the `policy` map belong to which policy. A policy is written under an id of its own, then
 * made the endpoint's by one update of `endpoints`, and stays until the next one has been replaced in turn: a
 * packet that has read the old id a moment ago still finds its entries.
 */
import { isErrno, type BpfMap, Errno } from '../kernel/index.ts';
import { SluiceError } from '../core/error.ts';
import {
  ACTION_ALLOW,
  directions,
  type Direction,
  POLICY_ANY_PORT,
  POLICY_EXACT_BITS,
  policyKey,
  policyValue,
  reservedRule,
} from './abi.ts';
import { mapRemedies } from './map-usage.ts';

/** The same shape as the policy compiler's entries. */
export interface PolicyEntry {
  readonly direction: Direction;
  /** 0 is any. */
  readonly identity: number;
  /** IP protocol number; 0 is any. */
  readonly protocol: number;
  readonly port: number;
  /** 0 … 16: how many leading bits of `port` must match. */
  readonly portPrefixLen: number;
  readonly ruleId: number;
  readonly action: 'allow';
}

interface Generation {
  readonly policyId: number;
  /** Keys and values one after the other, sorted: equal policies have equal images. */
  readonly image: Uint8Array;
}

const entrySize = policyKey.size + policyValue.size;

export class PolicyTable {
  readonly #map: BpfMap;
  readonly #current = new Map<number, Generation>();
  readonly #retired = new Map<number, Generation>();

  constructor(map: BpfMap) {
    this.#map = map;
  }

  /** Learns what the kernel holds, and deletes what belongs to no endpoint (left by a crash half-way). */
  adopt(policyIdByEndpoint: ReadonlyMap<number, number>): void {
    const byPolicy = new Map<number, Uint8Array[]>();
    for (const [key, value] of this.#map.entries()) {
      const { policyId } = policyKey.decode(key);
      byPolicy.set(policyId, [...(byPolicy.get(policyId) ?? []), Buffer.concat([key, value])]);
    }
    for (const [endpointId, policyId] of policyIdByEndpoint) {
      this.#current.set(endpointId, { policyId, image: concatSorted(byPolicy.get(policyId) ?? []) });
      byPolicy.delete(policyId);
    }
    for (const [policyId, entries] of byPolicy) this.#erase({ policyId, image: Buffer.concat(entries) });
  }

  /** Whether the endpoint has exactly these entries already. */
  isCurrent(endpointId: number, entries: readonly PolicyEntry[]): boolean {
    const current = this.#current.get(endpointId);
    return current !== undefined && Buffer.compare(encodePolicy(current.policyId, entries), current.image) === 0;
  }

  /** Writes the entries under `policyId`; nobody reads them yet. All or nothing. */
  write(policyId: number, entries: readonly PolicyEntry[]): Uint8Array {
    const image = encodePolicy(policyId, entries);
    try {
      this.#map.updateBatch(splitEntries(image));
    } catch (error) {
      this.#erase({ policyId, image });
      if (!isErrno(error, Errno.ENOSPC, Errno.E2BIG)) throw error;
      throw new SluiceError({
        code: 'limit_exceeded',
        operation: 'write policy',
        object: `with ${entries.length} entries`,
        what: `the node's policies may have ${this.#map.spec.maxEntries} entries together`,
        remedy: mapRemedies.policy,
        cause: error,
      });
    }
    return image;
  }

  /** To be called when the kernel uses `policyId`. */
  commit(endpointId: number, policyId: number, image: Uint8Array): void {
    const previous = this.#current.get(endpointId);
    const older = this.#retired.get(endpointId);
    this.#current.set(endpointId, { policyId, image });
    if (previous !== undefined) this.#retired.set(endpointId, previous);
    if (older !== undefined) this.#erase(older);
  }

  /**
   * Changes the policy in force in place: adds entries and removes all of the identities in `forget`. Not atomic, so only
   * for identities that no address has: no packet finds their entries. All or nothing of what is added.
   */
  amend(endpointId: number, add: readonly PolicyEntry[], forget: ReadonlySet<number>): void {
    const current = this.#current.get(endpointId);
    if (current === undefined) throw new RangeError(`endpoint ${endpointId} has no policy`);
    const added = add.length === 0 ? [] : splitImage(this.write(current.policyId, add), entrySize);
    const before = splitImage(current.image, entrySize);
    const isForgotten = (entry: Uint8Array): boolean => forget.has(identityOf(entry));
    const gone = before.filter(isForgotten);
    if (gone.length > 0) this.#map.deleteBatch(gone.map((entry) => entry.subarray(0, policyKey.size)));
    const kept = gone.length === 0 ? before : before.filter((entry) => !isForgotten(entry));
    this.#current.set(endpointId, { ...current, image: concatSorted([...kept, ...added]) });
  }

  forget(endpointId: number): void {
    for (const generations of [this.#current, this.#retired]) {
      const generation = generations.get(endpointId);
      if (generation !== undefined) this.#erase(generation);
      generations.delete(endpointId);
    }
  }

  entries(endpointId: number): PolicyEntry[] {
    return splitEntries(this.#current.get(endpointId)?.image ?? new Uint8Array()).flatMap(([key, value]) =>
      isDerived(key) ? [] : [decodeEntry(key, value)],
    );
  }

  /** Of the endpoint's policy and the one before it. */
  ruleIds(endpointId: number): Set<number> {
    const generations = [this.#current.get(endpointId), this.#retired.get(endpointId)];
    return new Set(generations.flatMap((generation) => (generation === undefined ? [] : ruleIdsOf(generation.image))));
  }

  /** Entries in the map. */
  get size(): number {
    const generations = [...this.#current.values(), ...this.#retired.values()];
    return generations.reduce((sum, { image }) => sum + image.length / entrySize, 0);
  }

  #erase(generation: Generation): void {
    this.#map.deleteBatch(splitEntries(generation.image).map(([key]) => key));
  }
}

function encodePolicy(policyId: number, entries: readonly PolicyEntry[]): Uint8Array {
  const anyPort = derivedEntries(entries);
  const image = new Uint8Array((entries.length + anyPort.length) * entrySize);
  const view = new DataView(image.buffer);
  for (const [i, entry] of entries.entries()) writeEntry(view, i * entrySize, policyId, entry, 0);
  for (const [i, entry] of anyPort.entries()) {
    writeEntry(view, (entries.length + i) * entrySize, policyId, entry, POLICY_ANY_PORT);
  }
  return concatSorted(splitImage(image, entrySize));
}

/** One for each direction, identity and protocol: some port of it is open, so fragments may wait for their first. */
function derivedEntries(entries: readonly PolicyEntry[]): PolicyEntry[] {
  const seen = new Set<number>();
  const derived: PolicyEntry[] = [];
  for (const entry of entries) {
    const key = (entry.identity * 2 + directions.indexOf(entry.direction)) * 256 + entry.protocol;
    if (seen.has(key)) continue;
    seen.add(key);
    derived.push({ ...entry, port: 0, portPrefixLen: 0, ruleId: reservedRule.none });
  }
  return derived;
}

function isDerived(key: Uint8Array): boolean {
  return (key[policyKey.fields.direction[2]] ?? 0) >= POLICY_ANY_PORT;
}

function identityOf(entry: Uint8Array): number {
  const at = policyKey.fields.identity[2];
  return new DataView(entry.buffer, entry.byteOffset, entry.byteLength).getUint32(at, true);
}

function ruleIdsOf(image: Uint8Array): number[] {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const at = policyKey.size + policyValue.fields.ruleId[2];
  return Array.from({ length: image.length / entrySize }, (_, i) => view.getUint32(i * entrySize + at, true));
}

/** Of entries with the same key the first in order stays. */
function concatSorted(encoded: Uint8Array[]): Uint8Array {
  const sorted = encoded.map((entry) => Buffer.from(entry.buffer, entry.byteOffset, entrySize));
  sorted.sort((a, b) => a.compare(b));
  const keyOf = (entry: Buffer): Buffer => entry.subarray(0, policyKey.size);
  return Buffer.concat(
    sorted.filter((entry, i) => {
      const before = sorted[i - 1];
      return before === undefined || keyOf(before).compare(keyOf(entry)) !== 0;
    }),
  );
}

function splitImage(image: Uint8Array, size: number): Uint8Array[] {
  return Array.from({ length: image.length / size }, (_, i) => image.subarray(i * size, (i + 1) * size));
}

function splitEntries(image: Uint8Array): [key: Uint8Array, value: Uint8Array][] {
  return splitImage(image, entrySize).map((entry) => [
    entry.subarray(0, policyKey.size),
    entry.subarray(policyKey.size),
  ]);
}

function prefixLenOf(entry: PolicyEntry): number {
  return POLICY_EXACT_BITS + (entry.protocol === 0 ? 0 : 8 + entry.portPrefixLen);
}

/** policyKey and policyValue, written field by field: a policy may have many thousand entries. */
function writeEntry(view: DataView, at: number, policyId: number, entry: PolicyEntry, space: number): void {
  if (entry.portPrefixLen < 0 || entry.portPrefixLen > 16 || (entry.protocol === 0 && entry.portPrefixLen !== 0)) {
    throw new SluiceError({
      code: 'invalid_argument',
      operation: 'encode policy entry',
      object: `protocol ${entry.protocol} port ${entry.port}/${entry.portPrefixLen}`,
      what: 'a port needs a protocol, and its prefix has 0 to 16 bits',
    });
  }
  const prefixLen = prefixLenOf(entry);
  const key = policyKey.fields;
  view.setUint32(at + key.prefixLen[2], prefixLen, true);
  view.setUint32(at + key.policyId[2], policyId, true);
  view.setUint32(at + key.identity[2], entry.identity, true);
  view.setUint8(at + key.direction[2], directions.indexOf(entry.direction) + space);
  view.setUint8(at + key.protocol[2], entry.protocol);
  view.setUint16(at + key.port[2], entry.port & (0xffff << (16 - entry.portPrefixLen)) & 0xffff);
  const value = policyValue.fields;
  view.setUint32(at + policyKey.size + value.ruleId[2], entry.ruleId, true);
  view.setUint8(at + policyKey.size + value.action[2], ACTION_ALLOW);
  view.setUint8(at + policyKey.size + value.prefixLen[2], prefixLen);
}

function decodeEntry(keyBytes: Uint8Array, valueBytes: Uint8Array): PolicyEntry {
  const key = policyKey.decode(keyBytes);
  const direction = directions[key.direction];
  if (direction === undefined) throw new RangeError(`policy entry with direction ${key.direction}`);
  return {
    direction,
    identity: key.identity,
    protocol: key.protocol,
    port: key.port,
    portPrefixLen: Math.max(key.prefixLen - POLICY_EXACT_BITS - 8, 0),
    ruleId: policyValue.decode(valueBytes).ruleId,
    action: 'allow',
  };
}
