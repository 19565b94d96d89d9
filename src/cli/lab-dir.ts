import { homedir } from 'node:os';
import { join } from 'node:path';

/** XDG base directory specification. */
export function defaultLabDir(env: NodeJS.ProcessEnv): string {
  return join(env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state'), 'sluice', 'lab');
}
