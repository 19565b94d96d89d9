/** Local copies of everything the controllers look at, and what they asked for that the copies do not show yet. */

import type {
  DaemonSet,
  Deployment,
  EndpointSlice,
  Job,
  KubeObject,
  Node,
  Pod,
  ReplicaSet,
  Service,
  StatefulSet,
} from '../../api/kubernetes.ts';
import {
  daemonSets,
  deployments,
  endpointSlices,
  jobs,
  nodes,
  pods,
  replicaSets,
  resourceName,
  services,
  statefulSets,
  type GroupVersionResource,
} from '../../api/resources.ts';
import type { Clock } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { KubeClient } from '../../kube/client.ts';
import { Informer } from '../../kube/informer.ts';

export interface ClusterViewOptions {
  readonly client: KubeClient;
  readonly log: Logger;
  readonly clock: Clock;
}

export class ClusterView {
  readonly deployments: Informer<Deployment>;
  readonly replicaSets: Informer<ReplicaSet>;
  readonly statefulSets: Informer<StatefulSet>;
  readonly daemonSets: Informer<DaemonSet>;
  readonly jobs: Informer<Job>;
  readonly pods: Informer<Pod>;
  readonly nodes: Informer<Node>;
  readonly services: Informer<Service>;
  readonly endpointSlices: Informer<EndpointSlice>;
  readonly #byResource = new Map<string, Informer<KubeObject>>();
  /** uid → when it was asked to go. */
  readonly #expectedDeletions = new Map<string, string>();

  constructor(options: ClusterViewOptions) {
    const informer = <T extends KubeObject>(gvr: GroupVersionResource): Informer<T> => {
      const made = new Informer<T>({ ...options, gvr });
      this.#byResource.set(resourceName(gvr), made as unknown as Informer<KubeObject>);
      made.on('delete', ({ metadata }) => this.#expectedDeletions.delete(metadata?.uid ?? ''));
      return made;
    };
    this.deployments = informer(deployments);
    this.replicaSets = informer(replicaSets);
    this.statefulSets = informer(statefulSets);
    this.daemonSets = informer(daemonSets);
    this.jobs = informer(jobs);
    this.pods = informer(pods);
    this.nodes = informer(nodes);
    this.services = informer(services);
    this.endpointSlices = informer(endpointSlices);
  }

  onChange(listener: () => void): void {
    for (const informer of this.#byResource.values()) {
      informer.on('add', listener).on('update', listener).on('delete', listener);
    }
  }

  /** Resolves when all copies are filled; they are followed until the signal is aborted. */
  async start(signal: AbortSignal): Promise<{ readonly stopped: Promise<unknown> }> {
    const stopped = Promise.all([...this.#byResource.values()].map((informer) => informer.start(signal)));
    await Promise.all([...this.#byResource.values()].map((informer) => informer.synced));
    return { stopped };
  }

  observe(gvr: GroupVersionResource, object: KubeObject): void {
    this.#byResource.get(resourceName(gvr))?.observe(object);
  }

  expectDeleted({ metadata }: KubeObject): void {
    if (metadata?.uid !== undefined) this.#expectedDeletions.set(metadata.uid, new Date().toISOString());
  }

  /** Pods of a namespace, or all; those asked to go show as terminating although their watch event is still under way. */
  podsIn(namespace?: string): Pod[] {
    return this.pods.list(namespace).map((pod) => {
      const deletionTimestamp = pod.metadata?.deletionTimestamp ?? this.#expectedDeletions.get(pod.metadata?.uid ?? '');
      return deletionTimestamp === undefined ? pod : { ...pod, metadata: { ...pod.metadata, deletionTimestamp } };
    });
  }
}
