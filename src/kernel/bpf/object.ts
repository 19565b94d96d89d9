/** What maps, programs and links have in common: a descriptor that is owned, and a name on bpffs. */
import { mkdirSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { check, Errno, isErrno } from '../errno.ts';
import { ownFd, type OwnedFd } from '../fd.ts';
import { BpfAttr, BpfCommand } from './sys.ts';

export abstract class BpfObject implements Disposable {
  readonly #fd: OwnedFd;

  protected constructor(fd: OwnedFd) {
    this.#fd = fd;
  }

  get fd(): number {
    return this.#fd.value;
  }

  /** Gives the object a name on a bpffs: it then lives on without any process. Throws EEXIST when the name is taken. */
  pin(path: string): void {
    mkdirSync(dirname(path), { recursive: true });
    check(
      new BpfAttr().path(0, path).u32(8, this.fd).call(BpfCommand.objPin),
      'pin',
      path,
      'the path must be on a mounted bpffs',
    );
  }

  /** Harmless when called twice; the object lives on while it is pinned or used. */
  close(): void {
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The object pinned at `path`; undefined when there is none. */
export function openPinnedFd(path: string): OwnedFd | undefined {
  const fd = new BpfAttr().path(0, path).call(BpfCommand.objGet);
  if (fd === -Errno.ENOENT) return undefined;
  return ownFd(check(fd, 'open pinned', path), path);
}

/** False when the name did not exist. */
export function unpin(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch (error) {
    if (isErrno(error, Errno.ENOENT)) return false;
    throw error;
  }
}
