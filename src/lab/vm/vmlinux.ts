/**
 * The uncompressed kernel inside a bzImage. QEMU boots it through its PVH note, which saves the decompression:
 * about a second under emulation.
 */

import { spawnSync } from 'node:child_process';
import type { VmPrograms } from './requirements.ts';

const elfMagic = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);
const maxVmlinuxBytes = 512 * 1024 * 1024;

/** Undefined when the image is compressed in another way (or not at all): boot the bzImage itself then. */
export function extractVmlinux(bzImage: Buffer, programs: VmPrograms): Buffer | undefined {
  const compressions = [
    { magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), command: programs.zstd, args: ['-qdc'] },
    { magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a]), command: programs.xz, args: ['-dc', '--single-stream'] },
  ];
  for (const { magic, command, args } of compressions) {
    // The magic may occur by chance in the decompressor's own code; what follows it says.
    for (let at = bzImage.indexOf(magic); at >= 0; at = bzImage.indexOf(magic, at + 1)) {
      const { stdout } = spawnSync(command, args, { input: bzImage.subarray(at), maxBuffer: maxVmlinuxBytes });
      if (stdout.subarray(0, 4).equals(elfMagic)) return stdout;
    }
  }
  return undefined;
}
