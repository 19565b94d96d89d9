// Builds everything a user runs: the bundled CLI (dist/), the CNI shim (shim/build/). The eBPF objects are committed;
// `npm run build -- --bpf` rebuilds them with clang.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

function make(dir) {
  execFileSync('make', ['--no-print-directory', '-s', '-C', dir], { cwd: root, stdio: 'inherit' });
}

rmSync(`${root}/dist`, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: { sluice: 'src/cli/main.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  splitting: true, // each command loads only what it needs: start-up time matters in the small VM
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  external: ['koffi'], // a native addon, loaded from node_modules
  legalComments: 'none',
  sourcemap: 'linked',
  sourcesContent: false,
  // CommonJS dependencies call require() for Node's own modules.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
make('shim');
if (process.argv.includes('--bpf')) make('bpf');
