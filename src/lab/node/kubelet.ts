/** The lab's kubelet: one process per node, running inside the node's network namespace. */
import { hostname } from 'node:os';
import { mkdirSync } from 'node:fs';
import { pods } from '../../api/resources.ts';
import { systemClock } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import { Cgroup } from '../../kernel/cgroup.ts';
import { createKubeClient } from '../../kube/client.ts';
import type { KubeConfig } from '../../kube/config.ts';
import { EventRecorder } from '../../kube/event-recorder.ts';
import { Informer } from '../../kube/informer.ts';
import { join } from 'node:path';
import { CniRunner } from './cni-runner.ts';
import { createKubeletApi } from './kube-port.ts';
import { registerNode } from './node-object.ts';
import type { Pod } from './pod-api.ts';
import { PodRecords, type PodRecord } from './pod-record.ts';
import type { NodeContext } from './pod-runtime.ts';
import { PodWorker } from './pod-worker.ts';
import { StreamServer } from './stream-server.ts';

export interface KubeletOptions {
  readonly labId: string;
  readonly nodeName: string;
  /** Path; this process must be in it. */
  readonly nodeNetns: string;
  readonly addresses: readonly string[];
  readonly kubeConfig: KubeConfig;
  /** Survives restarts. */
  readonly stateDir: string;
  /** Sockets and FIFOs. */
  readonly runDir: string;
  readonly socketPath: string;
  readonly cniSocket: string;
  readonly cniBinDirs: readonly string[];
  /** The node's cgroup, by name in the unified hierarchy. */
  readonly cgroup: string;
  /** PATH of the plugins. */
  readonly path: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A plugin that allocates an address waits for the API; on an emulated CPU that takes seconds. */
const cniTimeoutMs = 120_000;

/** Resolves after an orderly stop; pods keep running. */
export async function runKubelet(options: KubeletOptions): Promise<void> {
  const { log, signal } = options;
  const client = createKubeClient(options.kubeConfig, { userAgent: 'sluice-kubelet' });
  const recorder = new EventRecorder({ client, component: 'kubelet', host: options.nodeName, clock: systemClock, log });
  mkdirSync(options.runDir, { recursive: true });
  const context: NodeContext = {
    labId: options.labId,
    nodeName: options.nodeName,
    nodeNetns: options.nodeNetns,
    hostIps: options.addresses,
    cgroup: Cgroup.named(options.cgroup).child('pods'),
    runDir: options.runDir,
    records: new PodRecords(join(options.stateDir, 'pods')),
    runner: new CniRunner({
      binDirs: options.cniBinDirs,
      env: { PATH: options.path, SLUICE_CNI_SOCKET: options.cniSocket, HOSTNAME: hostname() },
      timeoutMs: cniTimeoutMs,
    }),
    api: createKubeletApi(client, recorder),
    log,
  };
  const workers = new PodWorkers(context);
  const server = new StreamServer({
    socketPath: options.socketPath,
    findPod: (namespace, name) => workers.find(namespace, name),
    log,
  });
  await server.listen();
  await registerNode({ name: options.nodeName, addresses: options.addresses, client, log }, signal);
  const informer = new Informer({ client, gvr: pods, fieldSelector: `spec.nodeName=${options.nodeName}`, log });
  informer.on('add', (pod) => workers.update(pod as unknown as Pod));
  informer.on('update', (pod) => workers.update(pod as unknown as Pod));
  informer.on('delete', (pod) => workers.forget(pod as unknown as Pod));
  const following = informer.start(signal);
  await informer.synced;
  workers.adoptRest();
  log.info({ node: options.nodeName, pods: workers.size }, 'kubelet ready');
  await following;
  server.close();
  workers.release();
  await recorder.flush();
  client.close();
}

class PodWorkers {
  readonly #context: NodeContext;
  readonly #byUid = new Map<string, PodWorker>();
  /** Records of an earlier kubelet whose pod has not been seen yet. */
  readonly #orphans: Map<string, PodRecord>;

  constructor(context: NodeContext) {
    this.#context = context;
    this.#orphans = new Map(context.records.load().map((record) => [record.uid, record]));
  }

  get size(): number {
    return this.#byUid.size;
  }

  find(namespace: string, name: string): PodWorker | undefined {
    return [...this.#byUid.values()].find(
      ({ pod }) => pod?.metadata.namespace === namespace && pod.metadata.name === name,
    );
  }

  update(pod: Pod): void {
    const { uid } = pod.metadata;
    const worker = this.#byUid.get(uid);
    if (worker !== undefined) {
      worker.update(pod);
      return;
    }
    const old = this.#orphans.get(uid);
    this.#orphans.delete(uid);
    this.#start(old ?? newRecord(pod), pod, old !== undefined);
  }

  forget(pod: Pod): void {
    this.#byUid.get(pod.metadata.uid)?.update(undefined);
  }

  /** After the first list: what the API does not know any more is taken down. */
  adoptRest(): void {
    for (const record of this.#orphans.values()) this.#start(record, undefined, true);
    this.#orphans.clear();
  }

  release(): void {
    for (const worker of this.#byUid.values()) worker.release();
  }

  #start(record: PodRecord, pod: Pod | undefined, adopted: boolean): void {
    const worker = new PodWorker(this.#context, record, pod, () => this.#byUid.delete(record.uid));
    this.#byUid.set(record.uid, worker);
    worker.start(adopted);
  }
}

function newRecord(pod: Pod): PodRecord {
  const { uid, namespace, name } = pod.metadata;
  return { uid, namespace, name, startTimeMs: Date.now(), podIps: [], containers: {} };
}
