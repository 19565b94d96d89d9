/** The values of an array map as shared memory (BPF_F_MMAPABLE, kernel 5.5): reads and writes without system calls. */
import { SluiceError } from '../../core/error.ts';
import { SyscallError } from '../errno.ts';
import { type MappedMemory, mmap, munmap, pageSize, Protection } from '../ffi.ts';
import type { BpfMap } from './map.ts';

export class MappedMap implements Disposable {
  readonly #name: string;
  readonly #memory: MappedMemory;
  #closed = false;

  /** The map stays the caller's. */
  constructor(map: BpfMap) {
    const page = pageSize();
    // Elements are a multiple of 8 bytes apart (array_map_alloc in kernel/bpf/arraymap.c).
    const length = map.spec.maxEntries * ((map.spec.valueSize + 7) & ~7);
    const pages = Math.ceil(length / page) * page;
    const memory = mmap(map.fd, pages, Protection.read | Protection.write, 0);
    if (typeof memory === 'number') {
      throw new SyscallError({ operation: 'map memory of', object: map.spec.name, errno: -memory });
    }
    this.#name = map.spec.name;
    this.#memory = memory;
  }

  get bytes(): ArrayBuffer {
    if (this.#closed) throw this.error();
    return this.#memory.bytes;
  }

  /** Views of `bytes` must not be touched when this is true: the memory is no longer there. */
  get closed(): boolean {
    return this.#closed;
  }

  error(): SluiceError {
    return new SluiceError({ code: 'closed', operation: 'use map', object: this.#name, what: 'it was closed before' });
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    munmap(this.#memory);
  }
}
