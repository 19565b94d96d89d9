/** The programs of the host that the virtual machine is made with, and the Debian packages that bring them. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../core/error.ts';

const requirements = [
  { program: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86' },
  { program: 'busybox', debianPackage: 'busybox-static' },
  { program: 'depmod', debianPackage: 'kmod' },
  { program: 'dpkg', debianPackage: 'dpkg' },
  { program: 'apt-get', debianPackage: 'apt' },
  { program: 'apt-cache', debianPackage: 'apt' },
  { program: 'xz', debianPackage: 'xz-utils' },
  { program: 'zstd', debianPackage: 'zstd' },
] as const;

export type VmProgram = (typeof requirements)[number]['program'];

/** Where each program lies. */
export type VmPrograms = Readonly<Record<VmProgram, string>>;

/** Administrators' programs (depmod) are not on every user's PATH. */
const systemDirectories = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** Throws `vm_failed` that names the Debian packages to install when something is missing. */
export function findVmPrograms(directories: readonly string[] = systemDirectories): VmPrograms {
  const found = new Map<string, string>();
  const missing = new Set<string>();
  for (const { program, debianPackage } of requirements) {
    const directory = directories.find((candidate) => existsSync(join(candidate, program)));
    if (directory === undefined) missing.add(debianPackage);
    else found.set(program, join(directory, program));
  }
  if (missing.size > 0) throw missingPackages([...missing]);
  return Object.fromEntries(found) as VmPrograms;
}

function missingPackages(packages: readonly string[]): SluiceError {
  return new SluiceError({
    code: 'vm_failed',
    operation: 'prepare',
    object: 'the virtual machine',
    what: `not installed here: ${packages.join(', ')}`,
    remedy: `apt-get install ${packages.join(' ')}`,
  });
}
