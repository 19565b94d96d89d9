/**
 * A writer for the "newc" cpio format, the one the kernel unpacks as an initramfs
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Archives may simply be concatenated.
 */

export interface CpioEntry {
  /** Without a leading slash; parents come first. */
  readonly path: string;
  /** Type and permission bits as in stat(2), for example 0o100755. */
  readonly mode: number;
  readonly content?: Uint8Array;
}

export const directoryMode = 0o040755;
export const executableMode = 0o100755;
export const fileMode = 0o100644;

/** One archive, closed by its trailer and padded to 512 bytes. All times are zero and all owners root, so equal input gives equal bytes. */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  entries.forEach((entry, index) => parts.push(...encodeEntry(entry, index + 1)));
  parts.push(...encodeEntry({ path: 'TRAILER!!!', mode: 0 }, 0));
  const archive = Buffer.concat(parts);
  return Buffer.concat([archive, padding(archive.length, 512)]);
}

function encodeEntry(entry: CpioEntry, inode: number): Uint8Array[] {
  const name = Buffer.from(`${entry.path}\0`);
  const content = entry.content ?? new Uint8Array(0);
  const links = (entry.mode & 0o170000) === 0o040000 ? 2 : 1;
  // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, dev and rdev (major, minor), c_namesize, c_check
  const fields = [inode, entry.mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${fields.map(hex8).join('')}`);
  return [header, name, padding(header.length + name.length, 4), content, padding(content.length, 4)];
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0');
}

function padding(length: number, alignment: number): Uint8Array {
  return new Uint8Array((alignment - (length % alignment)) % alignment);
}
