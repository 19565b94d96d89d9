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

const bundle = {
  absWorkingDir: root,
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
  // Less text to read; names stay, for messages and stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
  // CommonJS dependencies call require() for Node's own modules.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
};

/** The generated Kubernetes API is 3 MB of code. Bundled with the rest, every command that reads a kubeconfig would load it. */
const onlyForDemo = {
  name: 'api-cluster-apart',
  setup({ onResolve }) {
    onResolve({ filter: /\/api-cluster\.ts$/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: './api-cluster.mjs', external: true } : undefined,
    );
  },
};

/** Of zod's translations only English: the others are half a megabyte. */
const onlyEnglish = {
  name: 'zod-in-english',
  setup({ onLoad }) {
    onLoad({ filter: /zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js';",
    }));
  },
};

rmSync(`${root}/dist`, { recursive: true, force: true });
await build({ ...bundle, entryPoints: { sluice: 'src/cli/main.ts' }, plugins: [onlyForDemo, onlyEnglish] });
await build({ ...bundle, entryPoints: { 'api-cluster': 'src/lab/walkthrough/api-cluster.ts' }, splitting: false });
make('shim');
if (process.argv.includes('--bpf')) make('bpf');
