/**
 * The life of one pod on this node, level-based: each pass compares what the pod should be with what its record says runs,
 * takes the next step, and reports the status. Passes never overlap; everything that happens asks for another pass.
 */
import { formatErrorChain } from '../../core/error.ts';
import { BoundedRunner } from '../../core/runner.ts';
import { systemClock } from '../../core/clock.ts';
import type { EnvSources } from './container-spec.ts';
import type { Container, Pod, PodStatus } from './pod-api.ts';
import { PodProbes } from './pod-probes.ts';
import type { ContainerRecord, PodRecord } from './pod-record.ts';
import { PodRuntime, type NodeContext } from './pod-runtime.ts';
import { backoffMessage, isRunning, podStatus, restartAtMs, shouldRestart } from './pod-status.ts';

const firstSandboxRetryMs = 1_000;
const maxSandboxRetryMs = 10_000;
const maxIntervalMs = 60_000;
const defaultGraceSeconds = 30;

export class PodWorker {
  readonly runtime: PodRuntime;
  readonly #context: NodeContext;
  readonly #runner: BoundedRunner;
  readonly #probes: PodProbes;
  readonly #stop = new AbortController();
  readonly #onGone: () => void;
  /** The newest object; undefined once the API has forgotten the pod. */
  #pod: Pod | undefined;
  #lastPod: Pod | undefined;
  #lastStatus = '';
  #sandboxFailures = 0;
  #sandboxRetryAtMs = 0;
  #creationFailures = new Map<string, { reason: string; message: string }>();
  #killing: { readonly deadlineMs: number } | undefined;
  #wake: NodeJS.Timeout | undefined;

  constructor(context: NodeContext, record: PodRecord, pod: Pod | undefined, onGone: () => void) {
    this.#context = context;
    this.#pod = pod;
    this.#lastPod = pod;
    this.#onGone = onGone;
    this.runtime = new PodRuntime(context, record, () => this.#runner.markDirty());
    this.#probes = new PodProbes(
      this.runtime,
      () => this.#runner.markDirty(),
      (name) => this.#unhealthy(name),
      context,
    );
    this.#runner = new BoundedRunner({
      name: `pod ${record.namespace}/${record.name}`,
      run: () => this.#sync(),
      clock: systemClock,
      log: context.log,
      minIntervalMs: 0,
      maxIntervalMs,
      initialBackoffMs: 200,
      maxBackoffMs: 5_000,
    });
  }

  start(adopted: boolean): void {
    if (adopted) this.runtime.adopt(this.#pod);
    void this.#runner.start(this.#stop.signal);
    this.#runner.markDirty();
  }

  /** The pod as the API has it now; undefined when it was deleted there. */
  update(pod: Pod | undefined): void {
    this.#pod = pod;
    this.#lastPod = pod ?? this.#lastPod;
    this.#runner.markDirty();
  }

  get pod(): Pod | undefined {
    return this.#lastPod;
  }

  /** Ends the kubelet's interest; the pod's processes go on. */
  release(): void {
    this.#stop.abort();
    clearTimeout(this.#wake);
    this.#probes.stop();
    this.runtime.release();
  }

  async #sync(): Promise<void> {
    const pod = this.#pod;
    for (const ended of await this.runtime.collectExits()) this.#probes.forget(ended.name);
    if (pod === undefined) return this.#terminate(this.#lastPod, 0);
    if (pod.metadata.deletionTimestamp !== undefined) {
      return this.#terminate(pod, pod.metadata.deletionGracePeriodSeconds ?? defaultGraceSeconds);
    }
    if (isOver(pod.status) || isOver(this.#status(pod))) return this.#finish(pod);
    if (this.#sandboxDied()) await this.runtime.stopSandbox();
    if (await this.#ensureSandbox(pod)) await this.#syncContainers(pod);
    await this.#report(pod);
  }

  #sandboxDied(): boolean {
    const { sandbox } = this.runtime.record;
    return sandbox?.pause !== undefined && !this.runtime.sandboxReady;
  }

  async #ensureSandbox(pod: Pod): Promise<boolean> {
    if (this.runtime.sandboxReady) return true;
    const waitMs = this.#sandboxRetryAtMs - Date.now();
    if (waitMs > 0) {
      this.#wakeIn(waitMs);
      return false;
    }
    try {
      await this.runtime.ensureSandbox(pod);
      this.#sandboxFailures = 0;
      return true;
    } catch (error) {
      const retryMs = Math.min(firstSandboxRetryMs * 2 ** this.#sandboxFailures++, maxSandboxRetryMs);
      this.#sandboxRetryAtMs = Date.now() + retryMs;
      this.#wakeIn(retryMs);
      const message = `Failed to create pod sandbox: ${formatErrorChain(error)}`;
      this.#context.log.warn({ pod: pod.metadata.name, namespace: pod.metadata.namespace, retryMs }, message);
      this.#context.api.event(pod, 'Warning', 'FailedCreatePodSandBox', message);
      return false;
    }
  }

  async #syncContainers(pod: Pod): Promise<void> {
    const { containers } = this.runtime.record;
    const pending = (pod.spec.initContainers ?? []).find((spec) => !hasSucceeded(containers[spec.name]));
    if (pending !== undefined) return this.#syncContainer(pod, pending, true);
    for (const spec of pod.spec.containers) await this.#syncContainer(pod, spec, false);
  }

  async #syncContainer(pod: Pod, spec: Container, isInit: boolean): Promise<void> {
    const record = this.runtime.record.containers[spec.name];
    if (record !== undefined && isRunning(record)) {
      if (!isInit) this.#probes.ensure(pod, spec);
      return;
    }
    if (record !== undefined) {
      if (!shouldRestart(pod, record, isInit)) return;
      const waitMs = restartAtMs(record) - Date.now();
      if (record.backoffMs > 0 && waitMs > 0) {
        this.#wakeIn(waitMs);
        this.#context.api.event(
          pod,
          'Warning',
          'BackOff',
          `Back-off restarting failed container ${spec.name} in pod ${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid})`,
          spec.name,
        );
        this.#context.log.info({ pod: pod.metadata.name }, backoffMessage(pod, record));
        return;
      }
    }
    await this.#startContainer(pod, spec, isInit);
  }

  async #startContainer(pod: Pod, spec: Container, isInit: boolean): Promise<void> {
    const { api } = this.#context;
    try {
      await this.runtime.startContainer(pod, spec, await this.#sources(pod, spec));
      this.#creationFailures.delete(spec.name);
    } catch (error) {
      const message = formatErrorChain(error);
      this.#creationFailures.set(spec.name, { reason: 'CreateContainerConfigError', message });
      api.event(pod, 'Warning', 'Failed', `Error: ${message}`, spec.name);
      this.#wakeIn(maxSandboxRetryMs);
      return;
    }
    api.event(pod, 'Normal', 'Pulled', `Container image "${spec.image}" already present on machine`, spec.name);
    api.event(pod, 'Normal', 'Created', `Created container: ${spec.name}`, spec.name);
    const record = this.runtime.record.containers[spec.name];
    if (record?.finishedAtMs !== undefined) {
      api.event(pod, 'Warning', 'Failed', `Error: ${record.message ?? 'the container did not start'}`, spec.name);
      this.#runner.markDirty();
      return;
    }
    api.event(pod, 'Normal', 'Started', `Started container ${spec.name}`, spec.name);
    if (!isInit) this.#probes.ensure(pod, spec);
  }

  /** Reads the config maps and secrets the container's environment names. */
  async #sources(pod: Pod, spec: Container): Promise<EnvSources> {
    const { api, hostIps } = this.#context;
    const { namespace } = pod.metadata;
    const maps = new Map<string, Record<string, string> | undefined>();
    const secrets = new Map<string, Record<string, string> | undefined>();
    const from = [
      ...(spec.env ?? []).map((each) => each.valueFrom),
      ...(spec.envFrom ?? []).map((each) => ({ configMapKeyRef: each.configMapRef, secretKeyRef: each.secretRef })),
    ];
    for (const source of from) {
      const map = source?.configMapKeyRef?.name;
      const secret = source?.secretKeyRef?.name;
      if (map !== undefined) maps.set(map, asText(await api.getConfigMap(namespace, map)));
      if (secret !== undefined) secrets.set(secret, asText(await api.getSecret(namespace, secret)));
    }
    return {
      podIps: this.runtime.record.podIps,
      hostIps,
      configMap: (name) => maps.get(name),
      secret: (name) => secrets.get(name),
    };
  }

  #unhealthy(name: string): void {
    const pod = this.#pod;
    if (pod === undefined) return;
    this.#context.api.event(
      pod,
      'Normal',
      'Killing',
      `Container ${name} failed liveness probe, will be restarted`,
      name,
    );
    this.runtime.signal(name, 'SIGTERM');
    const graceMs = (pod.spec.terminationGracePeriodSeconds ?? defaultGraceSeconds) * 1000;
    setTimeout(() => this.runtime.signal(name, 'SIGKILL'), graceMs).unref();
  }

  /** SIGTERM, wait at most the grace period, SIGKILL and DEL, then the API may forget the pod. */
  async #terminate(pod: Pod | undefined, graceSeconds: number): Promise<void> {
    this.#probes.stop();
    const running = Object.values(this.runtime.record.containers).filter(isRunning);
    if (running.length > 0) {
      const deadlineMs = Date.now() + graceSeconds * 1000;
      if (this.#killing === undefined) {
        this.#killing = { deadlineMs };
        for (const container of running) this.#terminateContainer(pod, container);
      }
      if (deadlineMs < this.#killing.deadlineMs) this.#killing = { deadlineMs };
      const leftMs = this.#killing.deadlineMs - Date.now();
      if (leftMs > 0) return this.#wakeIn(leftMs);
    }
    await this.#stopAll(pod);
    if (pod !== undefined && this.#pod !== undefined) {
      await this.#report(pod);
      await this.#context.api.finishDelete(pod);
    }
    this.release();
    this.#context.records.remove(this.runtime.record.uid);
    this.#onGone();
  }

  #terminateContainer(pod: Pod | undefined, container: ContainerRecord): void {
    if (pod !== undefined)
      this.#context.api.event(pod, 'Normal', 'Killing', `Stopping container ${container.name}`, container.name);
    this.runtime.signal(container.name, 'SIGTERM');
  }

  async #stopAll(pod: Pod | undefined): Promise<void> {
    try {
      await this.runtime.stopSandbox();
    } catch (error) {
      if (pod !== undefined)
        this.#context.api.event(pod, 'Warning', 'FailedKillPod', `error killing pod: ${formatErrorChain(error)}`);
      throw error;
    }
    await this.runtime.collectExits();
  }

  /** All containers ended for good: the sandbox goes (and the address with it), the logs stay until the pod is deleted. */
  async #finish(pod: Pod): Promise<void> {
    this.#probes.stop();
    await this.#report(pod);
    if (this.runtime.record.sandbox !== undefined) await this.#stopAll(pod);
  }

  #status(pod: Pod): PodStatus {
    return podStatus({
      pod,
      record: this.runtime.record,
      nowMs: Date.now(),
      hostIps: this.#context.hostIps,
      ready: (name) => this.#probes.isReady(name),
      started: (name) => this.#probes.isStarted(name),
      creationFailure: (name) => this.#creationFailures.get(name),
      sandboxReady: this.runtime.sandboxReady,
    });
  }

  async #report(pod: Pod): Promise<void> {
    const status = this.#status(pod);
    const text = JSON.stringify(status);
    if (text === this.#lastStatus) return;
    await this.#context.api.patchPodStatus(pod, status);
    this.#lastStatus = text;
  }

  #wakeIn(ms: number): void {
    clearTimeout(this.#wake);
    this.#wake = setTimeout(() => this.#runner.markDirty(), ms + 5);
  }
}

function isOver(status: PodStatus | undefined): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed';
}

function hasSucceeded(record: ContainerRecord | undefined): boolean {
  return record?.finishedAtMs !== undefined && record.exitCode === 0;
}

function asText(data: Readonly<Record<string, Buffer>> | undefined): Record<string, string> | undefined {
  if (data === undefined) return undefined;
  return Object.fromEntries(Object.entries(data).map(([key, bytes]) => [key, bytes.toString('utf8')]));
}
