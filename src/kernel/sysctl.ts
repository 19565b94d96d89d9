/** Network sysctls of a namespace: /proc/sys/net shows those of the thread that opens the file. */
import { readFileSync, writeFileSync } from 'node:fs';
import { SluiceError } from '../core/error.ts';
import { Errno, isErrno } from './errno.ts';
import { type NetnsRef, withNetns } from './netns.ts';

/** `net.ipv4.conf.all.rp_filter` → its value as text; undefined when this kernel has no such key. */
export function readSysctl(netns: NetnsRef, key: string): string | undefined {
  return withNetns(netns, () => {
    try {
      return readFileSync(sysctlPath(key), 'utf8').trim();
    } catch (error) {
      if (isErrno(error, Errno.ENOENT)) return undefined;
      throw error;
    }
  });
}

/** False when this kernel has no such key (IPv6 switched off, say). */
export function writeSysctl(netns: NetnsRef, key: string, value: string): boolean {
  return withNetns(netns, () => {
    try {
      writeFileSync(sysctlPath(key), value);
      return true;
    } catch (cause) {
      if (isErrno(cause, Errno.ENOENT)) return false;
      throw new SluiceError({
        code: 'syscall_failed',
        operation: 'set sysctl',
        object: `${key}=${value}`,
        what: 'the kernel refused it',
        cause,
      });
    }
  });
}

/** Interface names may contain dots: those of the key's fixed parts become slashes, `/` in the key stays as it is. */
function sysctlPath(key: string): string {
  return `/proc/sys/${key.includes('/') ? key : key.replaceAll('.', '/')}`;
}
