/** What the machine must offer, checked before anything is made. */
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../core/error.ts';
import { findCgroup2Mount } from '../../kernel/cgroup.ts';
import type { LinkKind } from './state.ts';

export const mainPluginDir = '/usr/lib/cni';

/** Command → Debian package. */
const programs: Readonly<Record<string, string>> = {
  nsenter: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  hostname: 'hostname',
  mkfifo: 'coreutils',
  env: 'coreutils',
};

/** Throws with one remedy that covers everything missing. `path` is the PATH to search. */
export function checkMachine(link: LinkKind, path: string, uid: number | undefined): void {
  requireRoot(uid);
  const missing = new Map<string, string>();
  const dirs = path.split(':');
  for (const [name, debianPackage] of Object.entries(programs)) {
    if (!dirs.some((dir) => isExecutable(join(dir, name)))) missing.set(name, debianPackage);
  }
  const plugin = join(mainPluginDir, link);
  if (!isExecutable(plugin)) missing.set(plugin, 'containernetworking-plugins');
  if (missing.size > 0) {
    throw new SluiceError({
      code: 'lab_failed',
      operation: 'start',
      object: 'lab',
      what: `not installed: ${[...missing.keys()].join(', ')}`,
      remedy: `apt-get install ${[...new Set(missing.values())].join(' ')}`,
    });
  }
  findCgroup2Mount();
}

export function requireRoot(uid: number | undefined): void {
  if (uid === 0) return;
  throw new SluiceError({
    code: 'permission_denied',
    operation: 'run',
    object: 'sluice lab',
    what: 'it makes network namespaces and loads eBPF programs, which needs root',
    remedy: 'run it with sudo',
  });
}

function isExecutable(file: string): boolean {
  if (!existsSync(file)) return false;
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
