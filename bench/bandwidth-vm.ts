/** The bandwidth suite's cases in the small VM: the same code, bundled, since reading hundreds of sources takes minutes there. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { packageRoot } from '../src/kernel/package-root.ts';
import { vmCacheDir } from '../src/lab/vm/cache-dir.ts';
import { runInVm } from '../src/lab/vm/run.ts';
import type { Case } from './bandwidth-case.ts';
import type { Run } from './bandwidth-run.ts';

export interface VmCaseOptions {
  readonly log: (line: string) => void;
  readonly kernel: string | undefined;
}

/** Emulated, what is not traffic takes several times as long. */
const timeoutOf = (cases: readonly Case[]): number =>
  300_000 + cases.reduce((sum, { seconds }) => sum + 2 * (seconds + 20) * 1000, 0);

export async function runCasesInVm(cases: readonly Case[], { log, kernel }: VmCaseOptions): Promise<Run> {
  // Below the checkout, where packageRoot() and the native dependency are found.
  const cache = join(packageRoot(), '.cache');
  mkdirSync(cache, { recursive: true });
  const dir = mkdtempSync(join(cache, 'vm-bench-'));
  try {
    const guest = join(dir, 'guest.mjs');
    await bundle(guest);
    const [casesFile, resultsFile] = [join(dir, 'cases.json'), join(dir, 'results.json')];
    writeFileSync(casesFile, JSON.stringify(cases));
    const status = await runInVm({
      ...{ command: [process.execPath, guest, casesFile, resultsFile], cwd: packageRoot(), sharedDir: dir },
      ...{ visibleDirs: [packageRoot()], cacheDir: vmCacheDir(process.env), kernel, timeoutMs: timeoutOf(cases) },
      onStdout: (chunk) => log(chunk.toString().trimEnd()),
      onStderr: (chunk) => log(chunk.toString().trimEnd()),
    });
    if (status !== 0) throw new Error(`the cases in the VM ended with status ${status}`);
    return JSON.parse(readFileSync(resultsFile, 'utf8')) as Run;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function bundle(outfile: string): Promise<void> {
  await build({
    ...{ absWorkingDir: packageRoot(), entryPoints: ['bench/bandwidth-guest.ts'], outfile },
    ...{ bundle: true, format: 'esm', platform: 'node', target: 'node20.19', external: ['koffi'] },
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  });
}
