/** The probes of a pod's running containers. A container without a probe counts as started and ready. */
import { execFile } from 'node:child_process';
import type { Container, Pod, Probe } from './pod-api.ts';
import type { NodeContext, PodRuntime } from './pod-runtime.ts';
import { ProbeLoop, runProbe } from './probe.ts';

type Kind = 'startup' | 'readiness' | 'liveness';

interface ContainerProbes {
  readonly specs: Readonly<Partial<Record<Kind, Probe>>>;
  readonly loops: Map<Kind, ProbeLoop>;
}

export class PodProbes {
  readonly #runtime: PodRuntime;
  readonly #context: NodeContext;
  readonly #onChange: () => void;
  readonly #onUnhealthy: (container: string) => void;
  readonly #containers = new Map<string, ContainerProbes>();

  constructor(
    runtime: PodRuntime,
    onChange: () => void,
    onUnhealthy: (container: string) => void,
    context: NodeContext,
  ) {
    this.#runtime = runtime;
    this.#onChange = onChange;
    this.#onUnhealthy = onUnhealthy;
    this.#context = context;
  }

  /** Starts the probes of a container that runs, once. Readiness and liveness wait for startup. */
  ensure(pod: Pod, spec: Container): void {
    if (this.#containers.has(spec.name)) return;
    const specs = { startup: spec.startupProbe, readiness: spec.readinessProbe, liveness: spec.livenessProbe };
    this.#containers.set(spec.name, { specs, loops: new Map() });
    if (specs.startup !== undefined) this.#loop(pod, spec, 'startup');
    else this.#afterStartup(pod, spec);
  }

  isStarted(name: string): boolean {
    const probes = this.#containers.get(name);
    return probes?.specs.startup === undefined || probes.loops.get('startup')?.verdict === true;
  }

  isReady(name: string): boolean {
    const probes = this.#containers.get(name);
    return probes?.specs.readiness === undefined || probes.loops.get('readiness')?.verdict === true;
  }

  forget(name: string): void {
    for (const loop of this.#containers.get(name)?.loops.values() ?? []) loop.stop();
    this.#containers.delete(name);
  }

  stop(): void {
    for (const name of [...this.#containers.keys()]) this.forget(name);
  }

  #afterStartup(pod: Pod, spec: Container): void {
    if (spec.readinessProbe !== undefined) this.#loop(pod, spec, 'readiness');
    if (spec.livenessProbe !== undefined) this.#loop(pod, spec, 'liveness');
  }

  #loop(pod: Pod, spec: Container, kind: Kind): void {
    const probes = this.#containers.get(spec.name);
    const probe = probes?.specs[kind];
    if (probes === undefined || probe === undefined) return;
    const onChange = (ok: boolean, failure: string): void => this.#judge(pod, spec, kind, ok, failure);
    probes.loops.set(kind, new ProbeLoop(probe, () => this.#run(spec, probe), onChange));
  }

  #judge(pod: Pod, spec: Container, kind: Kind, ok: boolean, failure: string): void {
    if (!ok) {
      const title = `${kind.charAt(0).toUpperCase()}${kind.slice(1)}`;
      this.#context.api.event(pod, 'Warning', 'Unhealthy', `${title} probe failed: ${failure}`, spec.name);
    }
    if (kind === 'startup' && ok) {
      this.#containers.get(spec.name)?.loops.get('startup')?.stop();
      this.#afterStartup(pod, spec);
    }
    if (kind !== 'readiness' && !ok) this.#onUnhealthy(spec.name);
    this.#onChange();
  }

  #run(spec: Container, probe: Probe): Promise<string | undefined> {
    return runProbe(probe, {
      exec: (command, timeoutMs) => this.#exec(spec.name, command, timeoutMs),
      podIp: this.#runtime.record.podIps[0] ?? '127.0.0.1',
      resolvePort: (port) => resolvePort(spec, port),
    });
  }

  #exec(container: string, command: readonly string[], timeoutMs: number): Promise<number> {
    const [file = 'nsenter', ...args] = [...this.#runtime.enter(container), '--', ...command];
    const env = this.#runtime.record.containers[container]?.env ?? {};
    return new Promise((resolve) => {
      execFile(file, args, { env, timeout: timeoutMs, killSignal: 'SIGKILL' }, (error) =>
        resolve(error === null ? 0 : typeof error.code === 'number' ? error.code : 1),
      );
    });
  }
}

function resolvePort(spec: Container, port: number | string): number {
  if (typeof port === 'number') return port;
  return spec.ports?.find((each) => each.name === port)?.containerPort ?? Number(port);
}
