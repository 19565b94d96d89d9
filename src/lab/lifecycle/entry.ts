/** How the lab's processes start themselves again: the bundle when running from it, else the sources through tsx. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../kernel/package-root.ts';

/** The command line of the CLI, to which a subcommand is appended. */
export function cliCommand(options: { readonly preferBundle?: boolean } = {}): string[] {
  const root = packageRoot();
  const bundle = join(root, 'dist', 'sluice.mjs');
  const fromSources = fileURLToPath(import.meta.url).endsWith('.ts');
  if (!fromSources || (options.preferBundle === true && existsSync(bundle))) {
    return [process.execPath, '--enable-source-maps', bundle];
  }
  const tsx = createRequire(join(root, 'package.json')).resolve('tsx');
  return [process.execPath, '--import', tsx, join(root, 'src', 'cli', 'main.ts')];
}
