/** The agent as it is shipped (bundled, started by bin/sluice), built from the sources of now into a directory of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { build } from 'esbuild';
import { encodeWireRequest, type WireRequest } from '../src/cni/wire.ts';
import { packageRoot } from '../src/kernel/package-root.ts';

export interface AgentPaths {
  readonly kubeConfigPath: string;
  readonly bpffsDir: string;
  readonly stateDir: string;
  readonly cniSocketPath: string;
}

/** A copy of the program below node_modules, where its one native dependency is found. */
export class AgentBuild implements Disposable {
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  static async make(): Promise<AgentBuild> {
    const root = packageRoot();
    const cache = join(root, 'node_modules', '.cache');
    mkdirSync(cache, { recursive: true });
    const dir = mkdtempSync(join(cache, 'sluice-bench-'));
    await build({
      absWorkingDir: root,
      entryPoints: { sluice: 'src/cli/main.ts' },
      outdir: join(dir, 'dist'),
      outExtension: { '.js': '.mjs' },
      bundle: true,
      splitting: true,
      format: 'esm',
      platform: 'node',
      target: 'node20.19',
      external: ['koffi'],
      banner: {
        js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
      },
      logLevel: 'warning',
    });
    cpSync(join(root, 'bin'), join(dir, 'bin'), { recursive: true });
    return new AgentBuild(dir);
  }

  start(paths: AgentPaths, nodeName: string): BenchAgent {
    const args = [
      'agent',
      ...['--kubeconfig', paths.kubeConfigPath, '--node-name', nodeName, '--bpffs', paths.bpffsDir],
      ...['--state-dir', paths.stateDir, '--cni-socket', paths.cniSocketPath, '--health-address', '127.0.0.1:0'],
      ...['--log-level', process.env['SLUICE_BENCH_LOG'] ?? 'warn'],
    ];
    // For a profile: SLUICE_BENCH_NODE_FLAGS="--cpu-prof --cpu-prof-dir=DIR".
    const flags = process.env['SLUICE_BENCH_NODE_FLAGS']?.split(' ');
    const program = join(this.#dir, 'bin', 'sluice');
    const [command, before] =
      flags === undefined ? [program, []] : [process.execPath, [...flags, join(this.#dir, 'dist', 'sluice.mjs')]];
    return new BenchAgent(spawn(command, [...before, ...args], { stdio: ['ignore', 2, 2] }), paths);
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

export class BenchAgent {
  readonly #child: ChildProcess;
  readonly #paths: AgentPaths;

  constructor(child: ChildProcess, paths: AgentPaths) {
    this.#child = child;
    this.#paths = paths;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** MiB: resident now, and the most it ever was. */
  memory(): { readonly rss: number; readonly peak: number } {
    const text = readFileSync(`/proc/${this.pid}/status`, 'utf8');
    const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1024;
    return { rss: field('VmRSS'), peak: field('VmHWM') };
  }

  /** Seconds of CPU time used so far. */
  cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  /** One CNI call through the agent's socket, as the shim makes it; throws when it fails. */
  call(request: WireRequest): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(this.#paths.cniSocketPath);
      const chunks: Buffer[] = [];
      socket.on('error', reject).on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('end', () => {
        const answer = Buffer.concat(chunks).toString().trimStart();
        if (answer.startsWith('0 ')) resolve(answer);
        else reject(new Error(`the agent answered: ${answer}`));
      });
      socket.end(encodeWireRequest(request));
    });
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGTERM');
    await ended;
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }
}
