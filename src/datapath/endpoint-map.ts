/** The `endpoints` array, written through shared memory: one store changes policy, isolation and revision together. */
import { SluiceError } from '../core/error.ts';
import { type BpfMap, MappedMap } from '../kernel/index.ts';
import { endpointFlag } from './abi.ts';
import { mapRemedies } from './map-usage.ts';

/** struct endpoint. */
export interface EndpointValue {
  readonly policyId: number;
  /** endpointFlag. */
  readonly flags: number;
}

const unused = 0n;
/** So that 0 never names an endpoint. */
const firstId = 1;

export class EndpointMap implements Disposable {
  readonly #memory: MappedMap;
  /** Of all CPUs and programs, element by element: policy_id in the low half, flags in the high one. */
  readonly #elements: BigUint64Array;
  #lastTaken = firstId - 1;

  /** The map stays the caller's. */
  constructor(map: BpfMap) {
    this.#memory = new MappedMap(map);
    this.#elements = new BigUint64Array(this.#memory.bytes, 0, map.spec.maxEntries);
  }

  get(endpointId: number): EndpointValue | undefined {
    if (!this.#isId(endpointId)) return undefined;
    const element = Atomics.load(this.#elements, endpointId);
    if (element === unused) return undefined;
    return { policyId: Number(element & 0xffff_ffffn), flags: Number(element >> 32n) };
  }

  /** Throws limit_exceeded for an id that the array does not have. */
  set(endpointId: number, { policyId, flags }: EndpointValue): void {
    if (!this.#isId(endpointId)) throw this.#outOfRange(endpointId);
    const element = (BigInt((flags | endpointFlag.present) >>> 0) << 32n) | BigInt(policyId);
    Atomics.store(this.#elements, endpointId, element);
  }

  delete(endpointId: number): void {
    if (this.#isId(endpointId)) Atomics.store(this.#elements, endpointId, unused);
  }

  entries(): [endpointId: number, value: EndpointValue][] {
    const found: [number, EndpointValue][] = [];
    for (let id = firstId; id < this.#elements.length; id++) {
      const value = this.get(id);
      if (value !== undefined) found.push([id, value]);
    }
    return found;
  }

  /** How many endpoints there can be. */
  get capacity(): number {
    return this.#elements.length - firstId;
  }

  /** The next id for which `isFree`, round and round, so that ids are used again late; undefined when there is none. */
  nextId(isFree: (endpointId: number) => boolean): number | undefined {
    for (let i = 1; i <= this.capacity; i++) {
      const id = firstId + ((this.#lastTaken - firstId + i) % this.capacity);
      if (!isFree(id)) continue;
      this.#lastTaken = id;
      return id;
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }

  #isId(endpointId: number): boolean {
    if (this.#memory.closed) throw this.#memory.error();
    return endpointId >= firstId && endpointId < this.#elements.length;
  }

  #outOfRange(endpointId: number): SluiceError {
    return new SluiceError({
      code: 'limit_exceeded',
      operation: 'create endpoint',
      object: String(endpointId),
      what: `ids are ${firstId} to ${this.#elements.length - 1}`,
      remedy: mapRemedies.endpoints,
    });
  }
}
