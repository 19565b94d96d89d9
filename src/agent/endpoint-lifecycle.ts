/**
 * Endpoints from ADD, or adoption, to DEL. What happens to them in between: endpoint-inspection.ts.
 *
 * ADD, in order: record on disk → hooks attached, dropping everything → limits → policy programmed → result. A crash
 * between two steps leaves a pod without network (the runtime deletes and retries it), never one without policy.
 *
 * Adoption of a pod that runs already: record → policy → hooks, so that what its policy allows is not interrupted.
 */
import type { CniAttachment } from '../api/cni.ts';
import { cniErrorCodes } from '../api/cni.ts';
import { CniError } from '../cni/error.ts';
import type { EndpointLifecycle, EndpointSpec } from '../cni/sluice.ts';
import type { Clock } from '../core/clock.ts';
import { podVethName } from '../cni/coordinator-role.ts';
import { formatErrorChain, hasErrorCode, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { netnsInode } from '../kernel/netns.ts';
import type { BandwidthReconciler } from './bandwidth-reconciler.ts';
import type { ClusterView, PodRef } from './cluster-view.ts';
import type { EndpointDatapath } from './endpoint-datapath.ts';
import { fieldsOf } from './endpoint-inspection.ts';
import type { EndpointRecord, EndpointStore } from './endpoint-store.ts';
import { agentLimits } from './limits.ts';
import { ownLimits, runtimeBandwidth, type BandwidthLimits, type BandwidthRates } from './bandwidth-sources.ts';
import type { PodInterface } from './pod-netns.ts';
import type { PodGuard } from './pod-guard.ts';
import type { PolicyReconciler } from './policy-reconciler.ts';

export interface EndpointTableDeps {
  readonly store: EndpointStore;
  readonly datapath: EndpointDatapath;
  readonly cluster: ClusterView;
  readonly policy: PolicyReconciler;
  readonly bandwidth: BandwidthReconciler;
  readonly guard: PodGuard;
  readonly clock: Clock;
  readonly log: Logger;
}

export class EndpointTable implements EndpointLifecycle {
  readonly #deps: EndpointTableDeps;

  constructor(deps: EndpointTableDeps) {
    this.#deps = deps;
  }

  async create(spec: EndpointSpec, signal: AbortSignal): Promise<void> {
    await this.#deps.cluster.waitSynced(signal);
    const known = await this.#reusable(spec);
    const pod = await this.#deps.cluster.refreshPod(spec.pod, signal);
    const runtime = runtimeBandwidth(spec.bandwidth, ownLimits(pod, spec.ifName));
    const limits = this.#deps.bandwidth.desired(pod, { ...known, ifName: spec.ifName, runtimeBandwidth: runtime });
    const record = this.#recordOf(spec, { podUid: pod.uid, runtime, limits }, known);
    this.#deps.store.put(record);
    try {
      this.#deps.guard.ensure(record, { isNew: true });
      this.#deps.datapath.attach(record, record.ifName);
      // In one go with the record: an inspection in between would take the limits for removed ones.
      this.#deps.bandwidth.apply(record, known);
      await this.#deps.policy.program(record.endpointId, signal);
      signal.throwIfAborted();
    } catch (error) {
      // A repeated ADD that fails must not take the network from a pod that runs.
      if (known === undefined) this.#undo(record);
      throw error;
    }
    for (const other of this.#inNetns(record.netnsInode)) {
      // On the same devices, so its limits are this one's now.
      if (other.adopted === true && other.ifName === record.ifName) this.#discard({ ...other, limits: undefined });
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
  addInterface(containerId: string, ifName: string, interfaceName: string): void {
    const record = this.#deps.store.get(containerId, ifName);
    if (record === undefined) return;
    this.#deps.datapath.attach(record, interfaceName);
    if (record.interfaces.includes(interfaceName)) return;
    this.#deps.store.put({ ...record, interfaces: [...record.interfaces, interfaceName] });
  }

  /** Rejects when the pod cannot be enforced; everything is then as before. Does nothing when ADD came first. */
  async adopt(pod: PodRef, ips: readonly string[], found: PodInterface, signal: AbortSignal): Promise<void> {
    const { store, datapath, policy } = this.#deps;
    if (store.list().length >= agentLimits.endpoints) throw limitReached(pod);
    await this.#deps.cluster.refreshPod(pod, signal);
    if (this.#inNetns(found.netnsInode).length > 0) return;
    const record = this.#adoptedRecord(pod, ips, found);
    const replaced = this.#orphansOn(record);
    store.put(record);
    try {
      this.#deps.guard.ensure(record);
      datapath.register(record);
      await policy.program(record.endpointId, signal);
      if (this.#inNetns(found.netnsInode).length > 1) return this.#discard(record);
      for (const interfaceName of record.interfaces) datapath.attach(record, interfaceName);
    } catch (error) {
      this.#undo(record);
      throw error;
    }
    for (const endpointId of replaced) datapath.removeOrphan(endpointId);
    this.#deps.bandwidth.run();
    this.#deps.log.info({ ...fieldsOf(record), netns: record.netns }, 'endpoint adopted: the pod ran before');
  }

  /** Takes off hooks and everything else of an endpoint whose pod is gone. */
  discard(record: EndpointRecord): void {
    this.#discard(record);
  }

  /** Endpoints of lost records whose programs are on the interface. Throws when another agent's are. */
  #orphansOn(record: EndpointRecord): number[] {
    const place = { netns: record.netns, interfaceName: record.ifName };
    const links = this.#deps.datapath.sluiceLinksOn(place).filter((linkId) => linkId !== 0);
    const orphans = this.#deps.datapath.orphans(this.#deps.store.list());
    const known = new Set(orphans.flatMap((orphan) => orphan.liveLinks));
    if (links.some((linkId) => !known.has(linkId))) throw enforcedByAnother(record);
    return orphans
      .filter((orphan) => orphan.liveLinks.some((linkId) => links.includes(linkId)))
      .map((orphan) => orphan.endpointId);
  }

  #nextId(): number {
    return this.#deps.datapath.nextId(this.#deps.store.list());
  }

  #inNetns(inode: string): EndpointRecord[] {
    return this.#deps.store.list().filter((record) => record.netnsInode === inode);
  }

  #adoptedRecord(pod: PodRef, ips: readonly string[], found: PodInterface): EndpointRecord {
    const vethOfCoordinator = found.allInterfaces.filter(({ name, kind }) => name === podVethName && kind === 'veth');
    const others = vethOfCoordinator.map(({ name }) => name).filter((name) => name !== found.interfaceName);
    return {
      formatVersion: 1,
      endpointId: this.#nextId(),
      containerId: `adopted-${pod.uid}`,
      ifName: found.interfaceName,
      networkName: '',
      netns: found.netns,
      netnsInode: found.netnsInode,
      pod: { namespace: pod.namespace, name: pod.name, uid: pod.uid },
      ips: [...ips],
      interfaces: [found.interfaceName, ...others],
      runtimeBandwidth: {},
      adopted: true,
      createdAt: new Date(this.#deps.clock.nowMs()).toISOString(),
    };
  }

  /** The record of the same pod interface from an earlier ADD; one of an earlier sandbox is removed. */
  async #reusable(spec: EndpointSpec): Promise<EndpointRecord | undefined> {
    const record = this.#deps.store.get(spec.containerId, spec.ifName);
    if (record === undefined) {
      if (this.#deps.store.list().length < agentLimits.endpoints) return undefined;
      throw limitReached(spec.pod);
    }
    if (record.netnsInode === String(netnsInode(spec.netns))) return record;
    await this.remove(spec.containerId, spec.ifName);
    return undefined;
  }

  #recordOf(
    spec: EndpointSpec,
    found: { readonly podUid: string; readonly runtime: BandwidthRates; readonly limits: BandwidthLimits },
    known: EndpointRecord | undefined,
  ): EndpointRecord {
    const { podUid, runtime, limits } = found;
    return {
      formatVersion: 1,
      endpointId: known?.endpointId ?? this.#nextId(),
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
      limits,
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

  /** The device that is limited is mostly about to go: nothing to fail for. */
  #removeLimits(record: EndpointRecord): void {
    try {
      this.#deps.bandwidth.forget(record);
      if (String(netnsInode(record.netns)) === record.netnsInode) this.#deps.bandwidth.remove(record);
    } catch (error) {
      if (hasErrorCode(error, 'not_found')) return;
      this.#deps.log.warn({ ...fieldsOf(record), error: formatErrorChain(error) }, 'bandwidth limits were not removed');
    }
  }

  #discard(record: EndpointRecord): void {
    this.#removeLimits(record);
    this.#deps.datapath.detach(record);
    this.#deps.guard.forget(record.pod.uid);
    this.#deps.store.remove(record);
    this.#deps.policy.markDirty();
  }
}

function enforcedByAnother({ pod, ifName, netns }: EndpointRecord): SluiceError {
  return new SluiceError({
    code: 'already_exists',
    operation: 'adopt',
    object: `pod ${pod.namespace}/${pod.name}`,
    what: `programs of another agent are on ${ifName} in ${netns}`,
    remedy: 'run one agent on a node; to replace one, give the new one the same --bpffs and --state-dir',
  });
}

function limitReached({ namespace, name }: PodRef): CniError {
  const cause = new SluiceError({
    code: 'limit_exceeded',
    operation: 'create endpoint of',
    object: `pod ${namespace}/${name}`,
    what: `the node has ${agentLimits.endpoints} endpoints`,
  });
  return new CniError(cniErrorCodes.notAvailable, cause.message, 'schedule the pod elsewhere', { cause });
}
