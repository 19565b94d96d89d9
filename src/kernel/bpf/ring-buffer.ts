/**
 * Reads a BPF ring buffer (kernel 5.8): pages shared with the kernel, so that looking costs no system call. Layout
 * (kernel/bpf/ringbuf.c): a page with the consumer's position, a page with the producer's, then the data, mapped twice in
 * a row so that no record is ever cut in two. One reader at a time, over all processes.
 */
import { SyscallError } from '../errno.ts';
import { type MappedMemory, mmap, munmap, pageSize, Protection } from '../ffi.ts';
import type { BpfMap } from './map.ts';

/** The header of a record: its length, of which the highest two bits say that it is being written, or thrown away. */
const headerLength = 8;
const busyBit = 0x8000_0000;
const discardBit = 0x4000_0000;

export class RingBufferReader implements Disposable {
  readonly #consumer: MappedMemory;
  readonly #producer: MappedMemory;
  readonly #consumed: BigUint64Array<ArrayBuffer>;
  readonly #produced: BigUint64Array<ArrayBuffer>;
  readonly #data: Uint8Array;
  readonly #headers: Uint32Array<ArrayBuffer>;
  readonly #mask: number;
  #closed = false;

  /** The map stays the caller's. */
  constructor(map: BpfMap) {
    const size = map.spec.maxEntries;
    const page = pageSize();
    this.#mask = size - 1;
    this.#consumer = mapped(map, page, Protection.read | Protection.write, 0);
    try {
      this.#producer = mapped(map, page + 2 * size, Protection.read, page);
    } catch (error) {
      munmap(this.#consumer);
      throw error;
    }
    this.#consumed = new BigUint64Array(this.#consumer.bytes, 0, 1);
    this.#produced = new BigUint64Array(this.#producer.bytes, 0, 1);
    this.#data = new Uint8Array(this.#producer.bytes, page);
    this.#headers = new Uint32Array(this.#producer.bytes, page);
  }

  /** The oldest records, copied out and removed, at most `max`. A record that is being written ends the list. */
  read(max: number): Uint8Array[] {
    const records: Uint8Array[] = [];
    if (this.#closed) return records;
    let position = Atomics.load(this.#consumed, 0);
    const end = Atomics.load(this.#produced, 0);
    while (position < end && records.length < max) {
      const at = Number(position & BigInt(this.#mask));
      const header = Atomics.load(this.#headers, at / 4);
      if ((header & busyBit) !== 0) break;
      const length = header & ~(busyBit | discardBit);
      if ((header & discardBit) === 0) records.push(this.#data.slice(at + headerLength, at + headerLength + length));
      position += BigInt((headerLength + length + 7) & ~7);
    }
    Atomics.store(this.#consumed, 0, position);
    return records;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    munmap(this.#consumer);
    munmap(this.#producer);
  }
}

function mapped(map: BpfMap, length: number, protection: number, offset: number): MappedMemory {
  const memory = mmap(map.fd, length, protection, offset);
  if (typeof memory !== 'number') return memory;
  throw new SyscallError({ operation: 'map memory of', object: map.spec.name, errno: -memory });
}
