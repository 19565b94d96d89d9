/**
 * Endpoints from ADD to DEL and across restarts of the agent.
 *
 * ADD, in order: record on disk → hooks attached, dropping everything → policy programmed → limits → result. A crash
 * between two steps leaves a pod without network (the runtime deletes and retries it), never one without policy.
 */
import type { CniAttachment } from '../api/cni.ts';
import { cniErrorCodes } from '../api/cni.ts';
import { CniError } from '../cni/error.ts';
import type { EndpointLifecycle, EndpointSpec } from '../cni/sluice.ts';
import type { Clock } from '../core/clock.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { netnsInode } from '../kernel/netns.ts';
import type { BandwidthReconciler } from './bandwidth-reconciler.ts';
import type { ClusterView } from './cluster-view.ts';
import type { EndpointDatapath } from './endpoint-datapath.ts';
import type { EndpointRecord, EndpointStore } from './endpoint-store.ts';
import { agentLimits } from './limits.ts';
import { runtimeBandwidth } from './pod-bandwidth.ts';
import type { PolicyReconciler } from './policy-reconciler.ts';

export interface EndpointTableDeps {
  readonly store: EndpointStore;
  readonly datapath: EndpointDatapath;
  readonly cluster: ClusterView;
  readonly policy: PolicyReconciler;
  readonly bandwidth: BandwidthReconciler;
  /** Something had been removed or changed behind our back and was put back. */
  readonly onRepaired: (record: EndpointRecord, findings: readonly string[]) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

type Inspection = 'removed' | 'repaired' | 'sound' | 'failed';

export class EndpointTable implements EndpointLifecycle {
  readonly #deps: EndpointTableDeps;
  #nextId: number;

  constructor(deps: EndpointTableDeps) {
    this.#deps = deps;
    const known = [...deps.store.list().map((record) => record.endpointId), ...deps.datapath.endpointIds()];
    this.#nextId = Math.max(0, ...known) + 1;
  }

  async create(spec: EndpointSpec, signal: AbortSignal): Promise<void> {
    await this.#deps.cluster.waitSynced(signal);
    const known = await this.#reusable(spec);
    const pod = await this.#deps.cluster.refreshPod(spec.pod, signal);
    const rates = this.#deps.bandwidth.desired(pod, runtimeBandwidth(spec.bandwidth));
    const record = this.#recordOf(spec, pod.uid, known);
    this.#deps.store.put(record);
    try {
      this.#deps.datapath.attach(record, record.ifName);
      await this.#deps.policy.program(record.endpointId, signal);
      this.#deps.bandwidth.apply(record, rates);
      signal.throwIfAborted();
    } catch (error) {
      // A repeated ADD that fails must not take the network from a pod that runs.
      if (known === undefined) this.#undo(record);
      throw error;
    }
    this.#deps.log.info(fieldsOf(record), known === undefined ? 'endpoint created' : 'endpoint confirmed');
  }

  async remove(containerId: string, ifName: string): Promise<void> {
    const record = this.#deps.store.get(containerId, ifName);
    if (record === undefined) return;
    this.#discard(record);
    this.#deps.log.info(fieldsOf(record), 'endpoint removed');
  }

  async removeOthers(networkName: string, valid: readonly CniAttachment[]): Promise<void> {
    const keep = new Set(valid.map((attachment) => `${attachment.containerID}/${attachment.ifname}`));
    for (const record of this.#deps.store.list()) {
      if (record.networkName !== networkName || keep.has(`${record.containerId}/${record.ifName}`)) continue;
      this.#discard(record);
      this.#deps.log.info(fieldsOf(record), 'endpoint removed: the runtime no longer has the attachment');
    }
  }

  async check(containerId: string, ifName: string, netns: string): Promise<string[]> {
    const record = this.#deps.store.get(containerId, ifName);
    if (record === undefined) return [`the agent has no endpoint for ${ifName} of container ${containerId}`];
    if (String(netnsInode(netns)) !== record.netnsInode)
      return [`endpoint ${record.endpointId} is of another network namespace`];
    return [...this.#deps.datapath.check(record), ...this.#deps.bandwidth.check(record)];
  }

  unavailable(): string[] {
    return this.#deps.cluster.unavailable();
  }

  /** The coordinator made another interface in the pod; its hooks must be there before it is brought up. */
  addInterface(containerId: string, interfaceName: string): void {
    for (const record of this.#deps.store.ofContainer(containerId)) {
      this.#deps.datapath.attach(record, interfaceName);
      if (!record.interfaces.includes(interfaceName)) {
        this.#deps.store.put({ ...record, interfaces: [...record.interfaces, interfaceName] });
      }
      return;
    }
  }

  /**
   * Compares every record with the namespaces and the kernel: pods that ended without DEL are removed, missing hooks are
   * put back with the policy the kernel still holds. Called at start (adoption, before the API answers) and periodically.
   */
  inspect(): Readonly<Record<Inspection, number>> {
    const outcome = { removed: 0, repaired: 0, sound: 0, failed: 0 };
    for (const record of this.#deps.store.list()) outcome[this.#inspectSafely(record)]++;
    return outcome;
  }

  /** The same, letting other work run between two endpoints: each takes a few system calls. */
  async inspectInTurns(signal: AbortSignal): Promise<void> {
    for (const { containerId, ifName } of this.#deps.store.list()) {
      await new Promise((resolve) => setImmediate(resolve));
      if (signal.aborted) return;
      const record = this.#deps.store.get(containerId, ifName);
      if (record !== undefined) this.#inspectSafely(record);
    }
  }

  #inspectSafely(record: EndpointRecord): Inspection {
    try {
      return this.#inspectOne(record);
    } catch (error) {
      this.#deps.log.error({ ...fieldsOf(record), error: formatErrorChain(error) }, 'endpoint cannot be repaired');
      return 'failed';
    }
  }

  #inspectOne(record: EndpointRecord): 'removed' | 'repaired' | 'sound' {
    if (String(netnsInode(record.netns)) !== record.netnsInode) {
      this.#discard(record);
      this.#deps.log.info(fieldsOf(record), 'endpoint removed: its network namespace is gone');
      return 'removed';
    }
    const findings = [...this.#deps.datapath.repair(record), ...this.#deps.bandwidth.repair(record)];
    if (findings.length === 0) return 'sound';
    this.#deps.log.warn({ ...fieldsOf(record), findings }, 'endpoint repaired');
    this.#deps.onRepaired(record, findings);
    return 'repaired';
  }

  /** The record of the same pod interface from an earlier ADD; one of an earlier sandbox is removed. */
  async #reusable(spec: EndpointSpec): Promise<EndpointRecord | undefined> {
    const record = this.#deps.store.get(spec.containerId, spec.ifName);
    if (record === undefined) {
      if (this.#deps.store.list().length < agentLimits.endpoints) return undefined;
      throw limitReached(spec);
    }
    if (record.netnsInode === String(netnsInode(spec.netns))) return record;
    await this.remove(spec.containerId, spec.ifName);
    return undefined;
  }

  #recordOf(spec: EndpointSpec, podUid: string, known: EndpointRecord | undefined): EndpointRecord {
    const runtime = runtimeBandwidth(spec.bandwidth);
    return {
      formatVersion: 1,
      endpointId: known?.endpointId ?? this.#nextId++,
      containerId: spec.containerId,
      ifName: spec.ifName,
      networkName: spec.networkName,
      netns: spec.netns,
      netnsInode: String(netnsInode(spec.netns)),
      pod: { namespace: spec.pod.namespace, name: spec.pod.name, uid: podUid },
      ips: [...spec.ips],
      interfaces: known?.interfaces ?? [spec.ifName],
      runtimeBandwidth: {
        ...(runtime.ingressBps === undefined ? {} : { ingressBps: runtime.ingressBps }),
        ...(runtime.egressBps === undefined ? {} : { egressBps: runtime.egressBps }),
      },
      createdAt: known?.createdAt ?? new Date(this.#deps.clock.nowMs()).toISOString(),
    };
  }

  #undo(record: EndpointRecord): void {
    try {
      this.#discard(record);
    } catch (error) {
      // The record stays, so that the periodic inspection finishes what was not undone here.
      this.#deps.log.error({ ...fieldsOf(record), error: formatErrorChain(error) }, 'failed ADD could not be undone');
    }
  }

  #discard(record: EndpointRecord): void {
    this.#deps.bandwidth.forget(record);
    this.#deps.datapath.detach(record);
    this.#deps.store.remove(record);
    this.#deps.policy.markDirty();
  }
}

export function fieldsOf(record: EndpointRecord): object {
  const { namespace, name } = record.pod;
  return { endpoint: record.endpointId, pod: `${namespace}/${name}`, container: record.containerId, ips: record.ips };
}

function limitReached(spec: EndpointSpec): CniError {
  const { namespace, name } = spec.pod;
  const cause = new SluiceError({
    code: 'limit_exceeded',
    operation: 'create endpoint of',
    object: `pod ${namespace}/${name}`,
    what: `the node has ${agentLimits.endpoints} endpoints`,
  });
  return new CniError(cniErrorCodes.notAvailable, cause.message, 'schedule the pod elsewhere', { cause });
}
