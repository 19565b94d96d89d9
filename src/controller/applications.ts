import type { DaemonSet, Deployment, KubeObject, ReplicaSet, StatefulSet } from '../api/kubernetes.ts';
import { apiVersionOf, daemonSets, deployments, replicaSets, statefulSets } from '../api/resources.ts';
import { spiderLabels } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { groupVersionLabel } from '../ipam/application.ts';
import type { KubeClient } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import { applicationKey, type ApplicationState } from './auto-pool-reconciler.ts';

/** The workloads that pools can be made for, by `applicationKey`. */

type Workload = Deployment | StatefulSet | DaemonSet | ReplicaSet;

export const applicationKinds = [deployments, statefulSets, daemonSets, replicaSets] as const;

export class Applications {
  readonly #informers: readonly Informer<KubeObject>[];
  readonly #known = new Map<string, ApplicationState>();

  constructor(options: { readonly client: KubeClient; readonly clock: Clock; readonly log: Logger }) {
    this.#informers = applicationKinds.map((gvr) => new Informer<KubeObject>({ ...options, gvr }));
  }

  /** `changed` is given the key of every application that came, changed or went. */
  start(signal: AbortSignal, changed: (key: string) => void): Promise<void>[] {
    return this.#informers.map((informer, index) => {
      const gvr = applicationKinds[index] ?? deployments;
      const put = (object: KubeObject): void => {
        const state = stateOf(object, gvr);
        if (state === undefined) return;
        this.#known.set(applicationKey(state), state);
        changed(applicationKey(state));
      };
      informer.on('add', put).on('update', put);
      informer.on('delete', (object) => {
        const state = stateOf(object, gvr);
        if (state === undefined) return;
        this.#known.delete(applicationKey(state));
        changed(applicationKey(state));
      });
      return informer.start(signal);
    });
  }

  /** Before that, an application that is not known may still exist. */
  async synced(): Promise<void> {
    await Promise.all(this.#informers.map((informer) => informer.synced));
  }

  find(key: string): ApplicationState | undefined {
    return this.#known.get(key);
  }

  /** Pools of other kinds, Jobs for example, are not ours to judge: they may be Spiderpool's. */
  knowsKindOf(pool: SpiderIPPool): boolean {
    const { [spiderLabels.ownerGroupVersion]: version, [spiderLabels.ownerKind]: kind } = pool.metadata.labels ?? {};
    return applicationKinds.some((gvr) => gvr.kind === kind && groupVersionLabel(apiVersionOf(gvr)) === version);
  }

  keys(): string[] {
    return [...this.#known.keys()];
  }
}

/** Undefined for what another workload controls: its pods belong to that. */
function stateOf(object: KubeObject, gvr: (typeof applicationKinds)[number]): ApplicationState | undefined {
  const { metadata } = object;
  if (metadata?.ownerReferences?.some((owner) => owner.controller === true)) return undefined;
  return {
    apiVersion: apiVersionOf(gvr),
    kind: gvr.kind,
    namespace: metadata?.namespace ?? '',
    name: metadata?.name ?? '',
    uid: metadata?.uid ?? '',
    annotations: (object as Workload).spec?.template?.metadata?.annotations ?? {},
    podCount: podCountOf(object),
    object: { apiVersion: apiVersionOf(gvr), kind: gvr.kind, metadata },
  };
}

function podCountOf({ spec, status }: Workload): number {
  if (status !== undefined && 'desiredNumberScheduled' in status) return status.desiredNumberScheduled;
  return spec !== undefined && 'replicas' in spec ? (spec.replicas ?? 1) : 0;
}
