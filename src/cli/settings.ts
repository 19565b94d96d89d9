/** Settings of agent and controller, from the file and the environment of this process. */
import { existsSync, readFileSync } from 'node:fs';
import { SluiceError } from '../core/error.ts';
import { readSettings, type ReadSettings } from '../ipam/settings.ts';
import { defaultConfigPath } from './config-path.ts';

/** Without a path, the default one, which need not exist. */
export function loadSettings(path: string | undefined): ReadSettings {
  return readSettings(readConf(path), process.env);
}

function readConf(path: string | undefined): string | undefined {
  if (path === undefined && !existsSync(defaultConfigPath)) return undefined;
  try {
    return readFileSync(path ?? defaultConfigPath, 'utf8');
  } catch (cause) {
    throw new SluiceError({
      code: 'invalid_config',
      operation: 'read',
      object: path ?? defaultConfigPath,
      what: 'it cannot be read',
      remedy: 'give --config a file that exists, or leave it out for the defaults',
      cause,
    });
  }
}
