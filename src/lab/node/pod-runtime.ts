/** A pod's sandbox and containers on this node, kept in its record: the verbs that {@link PodWorker} decides on. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { multusAnnotations } from '../../api/spider.ts';
import type { Logger } from '../../core/log.ts';
import type { Cgroup } from '../../kernel/cgroup.ts';
import { podNetnsPath } from '../layout.ts';
import { isAlive, signalProcess } from '../process.ts';
import { killCgroup } from '../teardown.ts';
import type { CniRunner } from './cni-runner.ts';
import {
  enterSandbox,
  explainMissingCommand,
  mainProcess,
  makeContainerFiles,
  readExit,
  startContainer,
  type ContainerFiles,
} from './container.ts';
import { LogWriter } from './container-log.ts';
import { commandLine, containerEnvironment, hostsFile, podHostname, type EnvSources } from './container-spec.ts';
import type { Container, KubeletApi, Pod } from './pod-api.ts';
import { applyDefaultRoutes } from './default-route.ts';
import { networkStatusText } from './network-status.ts';
import { attachmentRequest, detachAll, newContainerId, planNetworks, podIpsOf } from './pod-network.ts';
import type { ContainerRecord, NetworkRecord, PodRecord, PodRecords, SandboxRecord } from './pod-record.ts';
import { PortServer } from './port-server.ts';
import { createSandboxNetns, removeSandbox, sandboxAlive, startPause } from './sandbox.ts';
import { prepareMounts } from './volumes.ts';

export interface NodeContext {
  readonly labId: string;
  readonly nodeName: string;
  readonly nodeNetns: string;
  readonly hostIps: readonly string[];
  /** Of this node; pods are its children. */
  readonly cgroup: Cgroup;
  /** FIFOs. */
  readonly runDir: string;
  readonly records: PodRecords;
  readonly runner: CniRunner;
  readonly api: KubeletApi;
  readonly log: Logger;
}

/** Runs a command line that is nothing but alive. */
const idleCommand = ['sleep', 'infinity'];
/** kubelet's CrashLoopBackOff: 10 s, doubled up to 5 minutes, forgotten after 10 minutes of running. */
const firstBackoffMs = 10_000;
const maxBackoffMs = 300_000;
const forgetBackoffMs = 600_000;

export class PodRuntime {
  readonly #context: NodeContext;
  readonly cgroup: Cgroup;
  record: PodRecord;
  readonly #logs = new Map<string, LogWriter>();
  readonly #servers = new Map<string, PortServer>();
  readonly #watchers = new Map<string, NodeJS.Timeout>();
  readonly #onChange: () => void;

  constructor(context: NodeContext, record: PodRecord, onChange: () => void) {
    this.#context = context;
    this.record = record;
    this.#onChange = onChange;
    this.cgroup = context.cgroup.child(`pod${record.uid}`);
  }

  update(change: Partial<PodRecord>): void {
    this.record = { ...this.record, ...change };
    this.#context.records.save(this.record);
  }

  get sandboxReady(): boolean {
    const { sandbox, attached } = this.record;
    return sandbox !== undefined && sandboxAlive(sandbox) && (sandbox.hostNetwork || attached === true);
  }

  /** Creates netns, attachments and pause process, each only if it is not there yet. Failed ADDs are undone by DEL. */
  async ensureSandbox(pod: Pod): Promise<void> {
    if (this.sandboxReady) return;
    const { context } = this;
    if (this.record.sandbox === undefined) {
      const hostNetwork = pod.spec.hostNetwork === true;
      const netns = hostNetwork ? context.nodeNetns : podNetnsPath(context.labId, pod.metadata.uid);
      const sandbox = { id: newContainerId(), netns, hostNetwork, hostPid: pod.spec.hostPID === true };
      this.update({ sandbox });
    }
    try {
      await this.#attach(pod);
      await this.#startPause(pod);
    } catch (error) {
      await this.stopSandbox().catch((undoError: unknown) =>
        context.log.warn({ pod: pod.metadata.name, err: String(undoError) }, 'undoing a failed sandbox failed'),
      );
      // Released, and another pod's soon.
      this.update({ podIps: [] });
      throw error;
    }
  }

  private get context(): NodeContext {
    return this.#context;
  }

  async #attach(pod: Pod): Promise<void> {
    const { sandbox } = this.record;
    if (sandbox === undefined || this.record.attached === true) return;
    if (sandbox.hostNetwork) {
      this.update({ podIps: this.context.hostIps });
      return;
    }
    // What an earlier kubelet had begun when it was killed.
    await this.#detach(sandbox);
    const plan = await planNetworks(pod, sandbox.id, this.context.api);
    createSandboxNetns(sandbox);
    // Before CNI, as the kubelet does: the agent looks for it.
    this.cgroup.create();
    const made = applyDefaultRoutes(sandbox.netns, await this.#addAll(sandbox, plan));
    await this.context.api.annotatePod(pod, { [multusAnnotations.networkStatus]: networkStatusText(made) });
    this.update({ networks: made, attached: true, podIps: podIpsOf(made[0]?.result) });
  }

  /** Each is on record before its ADD: a DEL follows whatever happens. */
  async #addAll(sandbox: SandboxRecord, plan: readonly NetworkRecord[]): Promise<NetworkRecord[]> {
    const made: NetworkRecord[] = [];
    for (const network of plan) {
      this.update({ networks: [...made, network] });
      const result = await this.context.runner.add(network.list, attachmentRequest(sandbox, network));
      made.push({ ...network, result });
      this.update({ networks: made });
    }
    return made;
  }

  async #detach(sandbox: SandboxRecord): Promise<void> {
    const { networks = [] } = this.record;
    await detachAll(this.context.runner, sandbox, networks, (left) => this.update({ networks: left }));
  }

  async #startPause(pod: Pod): Promise<void> {
    const { sandbox } = this.record;
    if (sandbox === undefined || sandboxAlive(sandbox)) return;
    const file = join(this.podDir, 'hosts');
    writeFileSync(file, hostsFile(pod, this.record.podIps), { mode: 0o644 });
    const spec = { record: sandbox, hostname: podHostname(pod), hostsFile: file, cgroup: this.cgroup };
    this.update({ sandbox: { ...sandbox, pause: await startPause(spec) } });
  }

  /** Kills what runs, then DEL, then the netns. The record of the containers stays. Repeat until it succeeds. */
  async stopSandbox(): Promise<void> {
    const { sandbox } = this.record;
    this.#closeServers();
    await killCgroup(this.cgroup);
    if (sandbox === undefined) return;
    this.update({ attached: undefined });
    await this.#detach(sandbox);
    await removeSandbox(sandbox, this.cgroup);
    this.update({ sandbox: undefined, networks: undefined });
  }

  get podDir(): string {
    return this.context.records.podDir(this.record.uid);
  }

  logPath(container: string, attempt: number): string {
    return join(this.podDir, 'logs', container, `${attempt}.log`);
  }

  #files(container: string, attempt: number): ContainerFiles {
    const fifo = join(this.context.runDir, 'pods', this.record.uid, `${container}.${attempt}`);
    return {
      stdout: `${fifo}.out`,
      stderr: `${fifo}.err`,
      exitFile: join(this.podDir, 'exits', `${container}.${attempt}`),
    };
  }

  /** Starts the first or next run. Throws when it cannot be created; a command that does not exist is an ended run. */
  async startContainer(pod: Pod, spec: Container, sources: EnvSources): Promise<void> {
    const { sandbox } = this.record;
    if (sandbox === undefined) return;
    const before = this.record.containers[spec.name];
    const env = containerEnvironment(pod, spec, sources);
    const command = commandLine(spec, env);
    const mounts = await prepareMounts(pod, spec, join(this.podDir, 'volumes'), this.context.api);
    const attempt = before === undefined ? 0 : before.attempt + 1;
    const started: ContainerRecord = {
      name: spec.name,
      attempt,
      id: newContainerId(),
      command: command ?? idleCommand,
      env,
      workingDir: spec.workingDir,
      startedAtMs: Date.now(),
      backoffMs: nextBackoff(before),
      last: before === undefined ? undefined : withoutLast(before),
    };
    const missing = command === undefined ? undefined : explainMissingCommand(command, env);
    if (missing !== undefined) {
      this.#setContainer({
        ...started,
        finishedAtMs: Date.now(),
        exitCode: 128,
        reason: 'StartError',
        message: missing,
      });
      return;
    }
    if (command === undefined) this.#serve(spec);
    const files = this.#files(spec.name, attempt);
    await makeContainerFiles(files);
    this.#logs.set(spec.name, new LogWriter(this.logPath(spec.name, attempt), files));
    const cgroup = this.containerCgroup(spec.name);
    const waiter = startContainer(
      { sandbox, cgroup, files, command: started.command, env, workingDir: spec.workingDir, mounts },
      this.#onChange,
    );
    this.#setContainer({ ...started, waiter });
  }

  containerCgroup(name: string): Cgroup {
    return this.cgroup.child(name);
  }

  #serve(spec: Container): void {
    const { sandbox } = this.record;
    if (sandbox === undefined || this.#servers.has(spec.name) || (spec.ports ?? []).length === 0) return;
    const options = { netns: sandbox.netns, podName: this.record.name, ports: spec.ports ?? [], log: this.context.log };
    this.#servers.set(spec.name, new PortServer(options));
  }

  /** After a restart of the kubelet: read the FIFOs on, serve the ports again, watch for the end of what is not our child. */
  adopt(pod: Pod | undefined): void {
    for (const record of Object.values(this.record.containers)) {
      if (record.finishedAtMs !== undefined) continue;
      this.#logs.set(
        record.name,
        new LogWriter(this.logPath(record.name, record.attempt), this.#files(record.name, record.attempt)),
      );
      const waiter = record.waiter;
      const timer = setInterval(() => {
        if (waiter !== undefined && isAlive(waiter)) return;
        clearInterval(timer);
        this.#onChange();
      }, 500);
      this.#watchers.set(record.name, timer);
      const spec = pod?.spec.containers.find((each) => each.name === record.name);
      if (spec !== undefined && commandLine(spec, {}) === undefined) this.#serve(spec);
    }
  }

  /** Reads the exit codes of containers that have ended; returns those containers. */
  async collectExits(): Promise<ContainerRecord[]> {
    const ended: ContainerRecord[] = [];
    for (const record of Object.values(this.record.containers)) {
      if (record.finishedAtMs !== undefined) continue;
      if (record.waiter !== undefined && isAlive(record.waiter)) continue;
      // The waiter itself was killed: nobody knows the exit code; kubelet says 137 and ContainerStatusUnknown.
      const exit = readExit(this.#files(record.name, record.attempt).exitFile);
      const unknown = { exitCode: 137, finishedAtMs: Date.now(), reason: 'ContainerStatusUnknown' };
      const over = { ...record, ...(exit ?? unknown) };
      await killCgroup(this.containerCgroup(record.name));
      this.#servers.get(record.name)?.close();
      this.#servers.delete(record.name);
      clearInterval(this.#watchers.get(record.name));
      await this.#logs.get(record.name)?.done;
      this.#setContainer(over);
      ended.push(over);
    }
    return ended;
  }

  /** Signals the command itself. False when it does not run. */
  signal(name: string, signal: NodeJS.Signals): boolean {
    const main = mainProcess(this.containerCgroup(name), this.record.sandbox?.hostPid === true);
    return main !== undefined && signalProcess(main, signal);
  }

  /** nsenter's arguments to get where the container is. */
  enter(name: string): string[] {
    const { sandbox } = this.record;
    if (sandbox === undefined) return [];
    return enterSandbox(sandbox, mainProcess(this.containerCgroup(name), sandbox.hostPid)?.pid);
  }

  isLogComplete(name: string): boolean {
    return this.record.containers[name]?.finishedAtMs !== undefined || this.record.containers[name] === undefined;
  }

  /** Stops reading and serving, kills nothing: the kubelet ends, the pod goes on. */
  release(): void {
    for (const log of this.#logs.values()) log.stop();
    for (const timer of this.#watchers.values()) clearInterval(timer);
    this.#closeServers();
  }

  #closeServers(): void {
    for (const server of this.#servers.values()) server.close();
    this.#servers.clear();
  }

  #setContainer(record: ContainerRecord): void {
    this.update({ containers: { ...this.record.containers, [record.name]: record } });
  }
}

/** The first restart is immediate; each further one waits twice as long. */
function nextBackoff(before: ContainerRecord | undefined): number {
  if (before === undefined) return 0;
  const ranMs = (before.finishedAtMs ?? 0) - before.startedAtMs;
  if (ranMs > forgetBackoffMs) return 0;
  return before.backoffMs === 0 ? firstBackoffMs : Math.min(before.backoffMs * 2, maxBackoffMs);
}

function withoutLast(record: ContainerRecord): Omit<ContainerRecord, 'last'> {
  const { last: _, ...rest } = record;
  return rest;
}
