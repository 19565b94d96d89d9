/** An owned file descriptor: closed once, unusable afterwards. */
import { closeSync } from 'node:fs';
import { SluiceError } from '../core/error.ts';
import { fcntl } from './ffi.ts';
import { check } from './errno.ts';

const F_DUPFD_CLOEXEC = 1030;

export class OwnedFd implements Disposable {
  readonly #what: string;
  #fd: number;

  /** Takes ownership of `fd`. `what` names the resource in errors. */
  constructor(fd: number, what: string) {
    this.#fd = fd;
    this.#what = what;
  }

  /** The number, for passing to a call. Throws after close: the number may belong to somebody else by then. */
  get value(): number {
    if (this.#fd < 0) {
      throw new SluiceError({ code: 'closed', operation: 'use', object: this.#what, what: 'it was closed before' });
    }
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** A second descriptor for the same open object, owned by the caller. */
  duplicate(): OwnedFd {
    return new OwnedFd(check(fcntl(this.value, F_DUPFD_CLOEXEC, 3), 'duplicate descriptor of', this.#what), this.#what);
  }

  /** Gives the descriptor away; this object no longer closes it. */
  release(): number {
    const fd = this.value;
    this.#fd = -1;
    return fd;
  }

  /** Harmless when called twice. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeSync(fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Owns `fd`, moved away from 0: bpf(2) attributes read descriptor 0 as "none". */
export function ownFd(fd: number, what: string): OwnedFd {
  const owned = new OwnedFd(fd, what);
  if (fd !== 0) return owned;
  using zero = owned;
  return zero.duplicate();
}
