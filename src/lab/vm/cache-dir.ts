import { homedir } from 'node:os';
import { join } from 'node:path';

/** $XDG_CACHE_HOME/sluice/vm, or ~/.cache/sluice/vm (XDG base directory specification). */
export function vmCacheDir(env: Readonly<Record<string, string | undefined>>): string {
  return join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'sluice', 'vm');
}
