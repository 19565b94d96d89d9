/**
 * Network namespaces: open, create under a name, enter.
 *
 * `setns(2)` changes one thread, and Node resumes after an `await` whenever it likes, so {@link withNetns} is
 * synchronous by construction. Prefer to enter, open a socket and leave: a socket keeps its namespace.
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, statSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { check, Errno, isErrno } from './errno.ts';
import { OwnedFd } from './fd.ts';
import { setns, unshare } from './ffi.ts';
import { bindMount, unmount } from './mount.ts';

const CLONE_NEWNET = 0x4000_0000;
/** The calling thread's own, not the process's: they differ inside {@link withNetns}. */
const THREAD_NETNS = '/proc/thread-self/ns/net';

export class Netns implements Disposable {
  readonly #fd: OwnedFd;
  /** Where it was opened from; for messages. */
  readonly path: string;
  /** Identifies the namespace: two handles are the same namespace when their inodes are equal. */
  readonly inode: bigint;

  private constructor(fd: OwnedFd, path: string) {
    this.#fd = fd;
    this.path = path;
    this.inode = fstatSync(fd.value, { bigint: true }).ino;
  }

  /** Opens `/run/netns/x`, `/proc/PID/ns/net` or any other file that is a network namespace. Throws Node's fs error if absent. */
  static openPath(path: string): Netns {
    return new Netns(new OwnedFd(openSync(path, constants.O_RDONLY), `netns ${path}`), path);
  }

  /** The namespace of the calling thread. */
  static current(): Netns {
    return Netns.openPath(THREAD_NETNS);
  }

  get fd(): number {
    return this.#fd.value;
  }

  equals(other: Netns): boolean {
    return this.inode === other.inode;
  }

  close(): void {
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A namespace given as an open handle or as the path to one. */
export type NetnsRef = Netns | string;

/** Inode of the namespace at `path`, or undefined when there is none. */
export function netnsInode(path: string): bigint | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

/** Type that rejects functions returning promises where the compiler can see it; the others are caught when run. */
type Synchronous<T> = T extends PromiseLike<unknown> ? never : T;

/**
 * Runs `fn` with the calling thread inside `netns` and returns its result; the thread is always put back, also
 * when `fn` throws. `fn` must be synchronous: a returned promise is an error. Do not start asynchronous I/O in it
 * either: a thread pool that starts inside would stay in the namespace.
 */
export function withNetns<T>(netns: NetnsRef, fn: () => Synchronous<T>): T {
  if (typeof netns === 'string') {
    using opened = Netns.openPath(netns);
    return withNetns(opened, fn);
  }
  using home = Netns.current();
  if (home.equals(netns)) return refusePromise(fn(), netns);
  check(setns(netns.fd, CLONE_NEWNET), 'enter netns', netns.path);
  try {
    return refusePromise(fn(), netns);
  } finally {
    returnTo(home);
  }
}

/** Creates a namespace that lives as long as the bind mount at `path` (made if absent); loopback is down in it. */
export function createNamedNetns(path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  closeSync(openSync(path, constants.O_RDONLY | constants.O_CREAT | constants.O_EXCL, 0o444));
  try {
    using home = Netns.current();
    check(unshare(CLONE_NEWNET), 'create netns', path);
    try {
      bindMount(THREAD_NETNS, path);
    } finally {
      returnTo(home);
    }
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
}

/** {@link withNetns} in a new namespace, which ends with the call; loopback is down in it. */
export function withNewNetns<T>(fn: () => Synchronous<T>): T {
  using home = Netns.current();
  check(unshare(CLONE_NEWNET), 'create netns', 'of one call');
  try {
    using fresh = Netns.current();
    return refusePromise(fn(), fresh);
  } finally {
    returnTo(home);
  }
}

/** Undoes {@link createNamedNetns}; succeeds when it is already gone. The namespace itself ends with its last user. */
export function removeNamedNetns(path: string): void {
  for (;;) {
    try {
      unmount(path, { lazy: true });
    } catch (error) {
      // EINVAL: not a mount point (any more), which is how the loop ends after stacked mounts.
      if (!isErrno(error, Errno.EINVAL, Errno.ENOENT)) throw error;
      break;
    }
  }
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isErrno(error, Errno.ENOENT)) throw error;
  }
}

/** A thread that cannot go home would run everything else in a pod's namespace: nothing sensible can follow. */
function returnTo(home: Netns): void {
  const rc = setns(home.fd, CLONE_NEWNET);
  if (rc < 0) {
    process.stderr.write(`cannot return from a network namespace (errno ${-rc}); aborting\n`);
    process.abort();
  }
}

function refusePromise<T>(result: T, netns: Netns): T {
  if (result instanceof Promise || typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
    throw new Error(`enter netns ${netns.path}: the function returned a promise, but setns must not span an await`);
  }
  return result;
}
