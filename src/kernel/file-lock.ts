/** Whole-file locks (flock(2)): the kernel gives them back when the last descriptor of the open file is closed. */
import { check, Errno } from './errno.ts';
import { flock } from './ffi.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** False when another open file holds it. `path` is for messages. */
export function tryLockFile(fd: number, path: string): boolean {
  const rc = flock(fd, LOCK_EX | LOCK_NB);
  if (rc === -Errno.EAGAIN) return false;
  check(rc, 'lock', path);
  return true;
}
