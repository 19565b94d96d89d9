/** The `ipcache` map: prefix → identity. */
import { formatPrefix, type IpFamily, type IpPrefix } from '../core/ip.ts';
import { SluiceError } from '../core/error.ts';
import type { BpfMap } from '../kernel/index.ts';
import { decodeAddress, encodeAddress, IPCACHE_EXACT_BITS, ipcacheKey, ipcacheValue } from './abi.ts';
import { mapRemedies } from './map-usage.ts';

export interface IpcacheChange {
  readonly upsert: readonly (readonly [prefix: IpPrefix, identity: number])[];
  readonly remove: readonly IpPrefix[];
}

export class IpcacheMap {
  readonly #map: BpfMap;
  /** The keys in the map, as text; read from it when they are first needed. */
  #known: Set<string> | undefined;

  constructor(map: BpfMap) {
    this.#map = map;
  }

  /** One place stays free: kernels before 6.13 take no update of a present key in a full trie. */
  get capacity(): number {
    return this.#map.spec.maxEntries - 1;
  }

  get size(): number {
    return this.#keys().size;
  }

  /** First the new, then the removals. Changes nothing when the new ones do not fit. */
  update(change: IpcacheChange): void {
    const known = this.#keys();
    const added = new Set(change.upsert.map(([prefix]) => formatPrefix(prefix)).filter((key) => !known.has(key)));
    if (known.size + added.size > this.capacity) throw this.#full(known.size + added.size);
    this.#map.updateBatch(
      change.upsert.map(([prefix, identity]) => [encodePrefix(prefix), ipcacheValue.encode({ identity })]),
    );
    for (const key of added) known.add(key);
    this.#map.deleteBatch(change.remove.map(encodePrefix));
    for (const prefix of change.remove) known.delete(formatPrefix(prefix));
  }

  entries(): [prefix: IpPrefix, identity: number][] {
    const entries = [...this.#map.entries()].map(([key, value]): [IpPrefix, number] => [
      decodePrefix(key),
      ipcacheValue.decode(value).identity,
    ]);
    this.#known = new Set(entries.map(([prefix]) => formatPrefix(prefix)));
    return entries;
  }

  #keys(): Set<string> {
    return (this.#known ??= new Set([...this.#map.keys()].map((key) => formatPrefix(decodePrefix(key)))));
  }

  #full(wanted: number): SluiceError {
    return new SluiceError({
      code: 'limit_exceeded',
      operation: 'update ipcache',
      object: `to ${wanted} prefixes`,
      what: `the node may know ${this.capacity} prefixes`,
      remedy: mapRemedies.ipcache,
    });
  }
}

function encodePrefix(prefix: IpPrefix): Uint8Array {
  return ipcacheKey.encode({
    prefixLen: IPCACHE_EXACT_BITS + prefix.prefixLen,
    family: prefix.address.family,
    address: encodeAddress(prefix.address),
  });
}

function decodePrefix(bytes: Uint8Array): IpPrefix {
  const key = ipcacheKey.decode(bytes);
  return {
    address: decodeAddress(key.address, key.family as IpFamily),
    prefixLen: key.prefixLen - IPCACHE_EXACT_BITS,
  };
}
