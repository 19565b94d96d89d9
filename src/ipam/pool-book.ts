import type { PoolStatus, SpiderIPPool } from '../api/spiderippool.ts';
import { SluiceError } from '../core/error.ts';
import { rangeContains, type IpRange } from '../core/ip-range.ts';
import { formatIp, parseIp, type IpAddress, type IpPrefix } from '../core/ip.ts';
import { decodeAllocatedIps, encodeAllocatedIps, storedBytes, type AllocationRecord } from './allocated-ips.ts';
import { poolAddresses, totalAddressCount } from './pool-addresses.ts';

/** Records in one pool, unless SPIDERPOOL_IPPOOL_MAX_ALLOCATED_IPS says otherwise: Spiderpool's own default. */
export const maxRecordsPerPool = 5000;

/**
 * Bytes of status.allocatedIPs as etcd stores it, whatever the number of records: etcd takes 1.5 MiB a request, and
 * spec, managedFields and the request itself need room. Names of pods have up to 316 characters.
 */
export const maxDocumentBytes = 1_200_000;

/** Each is stored with a backslash. */
const quotesPerRecord = 14;

/** One address per key: two interfaces of a pod may draw from one pool and get an address each. */
export interface AllocationKey {
  readonly podUid: string;
  /** namespace/name */
  readonly pod: string;
  readonly interface: string;
}

export interface Allocation {
  readonly address: IpAddress;
  /** False when the key held the address already: giving it back is then not ours to do. */
  readonly isNew: boolean;
}

export type Exhaustion = { readonly exhausted: 'addresses' | 'records' | 'bytes' };

/**
 * A pool's records, open for changes: read once, change any number of times, written back as one status.
 * Holds no reference to the object it was opened from.
 */
export class PoolBook {
  readonly poolName: string;
  readonly subnet: IpPrefix;
  readonly #ranges: readonly IpRange[];
  readonly #total: number;
  readonly #records: Map<string, AllocationRecord>;
  readonly #maxRecords: number;
  #bytes = 0;
  readonly #byKey = new Map<string, string>();
  readonly #used = new Set<bigint>();
  #cursor: { range: number; value: bigint } | undefined;
  #changed = false;

  constructor(pool: SpiderIPPool, maxRecords = maxRecordsPerPool) {
    this.#maxRecords = maxRecords;
    this.poolName = pool.metadata.name ?? '';
    const addresses = poolAddresses(pool.spec);
    if (addresses === undefined) throw malformedSubnet(this.poolName, pool.spec.subnet);
    this.subnet = addresses.subnet;
    this.#ranges = addresses.ranges;
    this.#total = totalAddressCount(pool.spec);
    const document = pool.status?.allocatedIPs ?? '';
    this.#records = decodeAllocatedIps(document, this.poolName);
    for (const [text, record] of this.#records) this.#index(text, record);
    this.#bytes = document.length + quotesPerRecord * this.#records.size;
  }

  get changed(): boolean {
    return this.#changed;
  }

  /** The API server has what the book says now: it may be kept open for as long as the object stays the same. */
  committed(): void {
    this.#changed = false;
  }

  get records(): ReadonlyMap<string, AllocationRecord> {
    return this.#records;
  }

  find(key: AllocationKey): IpAddress | undefined {
    const text = this.#byKey.get(keyText(key));
    return text === undefined ? undefined : parseIp(text);
  }

  holder(address: IpAddress): AllocationRecord | undefined {
    return this.#records.get(formatIp(address));
  }

  /**
   * The key's address: the one it has, else the first free one in the order of `spec.ips`, else the one that an
   * earlier pod of the same name left behind (names are unique, so that pod is gone).
   * `reserved` is never handed out: reserved addresses, and those that an older, overlapping pool owns.
   */
  allocate(key: AllocationKey, reserved: readonly IpRange[] = []): Allocation | Exhaustion {
    const held = this.find(key);
    if (held !== undefined) return { address: held, isNew: false };
    const full = this.#full(key);
    const address = (full === undefined ? this.#firstFree(reserved) : undefined) ?? this.#leftBehind(key, reserved);
    if (address === undefined) return { exhausted: full ?? 'addresses' };
    this.#set(address, key);
    return { address, isNew: true };
  }

  /**
   * This very address for the key, which has it on record elsewhere: undefined when somebody else has it by now. What
   * an earlier pod of the same name holds goes over to the key; that is how a StatefulSet's pod keeps its address.
   */
  claim(key: AllocationKey, address: IpAddress): Allocation | undefined {
    const text = formatIp(address);
    const holder = this.#records.get(text);
    if (holder === undefined) {
      if (!this.#ranges.some((range) => rangeContains(range, address)) || this.#full(key) !== undefined)
        return undefined;
    } else {
      if (holder.pod !== key.pod || holder.interface !== key.interface) return undefined;
      if (holder.podUid === key.podUid) return { address, isNew: false };
    }
    this.#set(address, key);
    return { address, isNew: true };
  }

  /** Removes the records the predicate names; answers their addresses. */
  release(isReleased: (record: AllocationRecord, address: string) => boolean): string[] {
    const released = [...this.#records].filter(([text, record]) => isReleased(record, text)).map(([text]) => text);
    for (const text of released) this.#remove(text);
    if (released.length > 0) {
      this.#changed = true;
      this.#cursor = undefined;
    }
    return released;
  }

  status(): PoolStatus {
    const allocatedIPs = encodeAllocatedIps(this.#records);
    const counts = { allocatedIPCount: this.#records.size, totalIPCount: this.#total };
    return allocatedIPs === undefined ? counts : { allocatedIPs, ...counts };
  }

  #set(address: IpAddress, { pod, podUid, interface: name }: AllocationKey): void {
    const text = formatIp(address);
    const record = { pod, podUid, interface: name };
    this.#remove(text);
    this.#records.set(text, record);
    this.#index(text, record);
    this.#bytes += storedBytes(text, record);
    this.#changed = true;
  }

  #full(key: AllocationKey): 'records' | 'bytes' | undefined {
    if (this.#records.size >= this.#maxRecords) return 'records';
    // An IPv6 address has up to 39 characters.
    return this.#bytes + storedBytes(''.padEnd(39), key) > maxDocumentBytes ? 'bytes' : undefined;
  }

  #index(text: string, record: AllocationRecord): void {
    this.#byKey.set(keyText(record), text);
    const value = parseIp(text)?.value;
    if (value !== undefined) this.#used.add(value);
  }

  #remove(text: string): void {
    const record = this.#records.get(text);
    if (record === undefined) return;
    this.#records.delete(text);
    this.#bytes -= storedBytes(text, record);
    if (this.#byKey.get(keyText(record)) === text) this.#byKey.delete(keyText(record));
    const value = parseIp(text)?.value;
    if (value !== undefined) this.#used.delete(value);
  }

  /** Steps over used and reserved addresses only; the cursor makes many allocations in a row linear, not quadratic. */
  #firstFree(reserved: readonly IpRange[]): IpAddress | undefined {
    for (let index = this.#cursor?.range ?? 0; index < this.#ranges.length; index++) {
      const range = this.#ranges[index];
      if (range === undefined) continue;
      const { family } = range.first;
      let value = this.#cursor?.range === index ? this.#cursor.value : range.first.value;
      while (value <= range.last.value) {
        const owner = reserved.find((other) => rangeContains(other, { family, value }));
        if (owner !== undefined) value = owner.last.value + 1n;
        else if (this.#used.has(value)) value++;
        else {
          this.#cursor = { range: index, value };
          return { family, value };
        }
      }
    }
    return undefined;
  }

  #leftBehind(key: AllocationKey, reserved: readonly IpRange[]): IpAddress | undefined {
    for (const [text, record] of this.#records) {
      const sameName = record.pod === key.pod && record.interface === key.interface;
      const address = sameName && record.podUid !== key.podUid ? parseIp(text) : undefined;
      if (address === undefined || reserved.some((range) => rangeContains(range, address))) continue;
      if (this.#ranges.some((range) => rangeContains(range, address))) return address;
    }
    return undefined;
  }
}

export function isExhausted(result: Allocation | Exhaustion): result is Exhaustion {
  return 'exhausted' in result;
}

function keyText(key: Pick<AllocationKey, 'podUid' | 'interface'>): string {
  return `${key.podUid}/${key.interface}`;
}

function malformedSubnet(poolName: string, subnet: string): SluiceError {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'read spec.subnet of',
    object: `SpiderIPPool ${poolName}`,
    what: `"${subnet}" is not a CIDR`,
    remedy: 'spec.subnet cannot be changed: create the pool anew with a subnet such as 10.6.0.0/16',
  });
}
