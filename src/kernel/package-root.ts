/** Where this package is installed: its committed objects (`bpf/`, `deploy/`, `shim/`) are found from here. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SluiceError } from '../core/error.ts';

/** The directory of the package.json named "sluice" above this file; the same from the sources and from the bundle in dist/. */
export function packageRoot(): string {
  const start = dirname(fileURLToPath(import.meta.url));
  for (let dir = start; ; dir = dirname(dir)) {
    if (isPackageRoot(dir)) return dir;
    if (dirname(dir) === dir) break;
  }
  throw new SluiceError({
    code: 'not_found',
    operation: 'find package root above',
    object: start,
    what: 'no package.json named "sluice"',
    remedy: 'keep dist/ inside the installed package',
  });
}

function isPackageRoot(dir: string): boolean {
  const file = join(dir, 'package.json');
  if (!existsSync(file)) return false;
  const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'));
  return (parsed as { name?: unknown }).name === 'sluice';
}
