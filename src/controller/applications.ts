import type {
  CronJob,
  DaemonSet,
  Deployment,
  Job,
  JobSpec,
  KubeObject,
  OwnerReference,
  Pod,
  ReplicaSet,
  StatefulSet,
} from '../api/kubernetes.ts';
import {
  apiVersionOf,
  cronJobs,
  daemonSets,
  deployments,
  jobs,
  replicaSets,
  statefulSets,
  type GroupVersionResource,
} from '../api/resources.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { controllerOf } from '../ipam/pod-owner.ts';
import type { KubeClient } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import { applicationKey, type ApplicationState } from './auto-pool-reconciler.ts';
import { isMadeByOthers, PodApplications } from './pod-applications.ts';

/** What pools can be made for, by `applicationKey`: workloads, and what is known by its pods. */

const watchedKinds = [deployments, statefulSets, daemonSets, replicaSets, jobs, cronJobs] as const;

export class Applications {
  readonly #informers: readonly Informer<KubeObject>[];
  readonly #pods: Informer<Pod>;
  readonly #known = new Map<string, ApplicationState>();
  /** By UID of a ReplicaSet or Job. */
  readonly #unwatchedOwners = new Map<string, OwnerReference>();
  readonly #ofPods = new PodApplications({ isWatched, above: (uid) => this.#unwatchedOwners.get(uid) });

  /** `pods`: copies made by `podCopy`, with `byControllerIndex`. */
  constructor(options: {
    readonly client: KubeClient;
    readonly clock: Clock;
    readonly log: Logger;
    readonly pods: Informer<Pod>;
  }) {
    this.#informers = watchedKinds.map((gvr) => new Informer<KubeObject>({ ...options, gvr }));
    this.#pods = options.pods;
  }

  /** `changed` is given the key of every application that came, changed or went. Call it before the pods' informer starts. */
  start(signal: AbortSignal, changed: (key: string) => void): Promise<void>[] {
    this.#ofPods.start(this.#pods, changed);
    return this.#informers.map((informer, index) => {
      const gvr = watchedKinds[index] ?? deployments;
      const put = (object: KubeObject): void => this.#put(object, gvr, changed);
      informer.on('add', put).on('update', put);
      informer.on('delete', (object) => {
        this.#unwatchedOwners.delete(object.metadata?.uid ?? '');
        this.#drop(stateOf(object, gvr), changed);
      });
      return informer.start(signal);
    });
  }

  /** Before that, an application that is not known may still exist. */
  async synced(): Promise<void> {
    await Promise.all([this.#pods.synced, ...this.#informers.map((informer) => informer.settled)]);
  }

  find(key: string): ApplicationState | undefined {
    return this.#known.get(key) ?? this.#ofPods.find(key);
  }

  keys(): string[] {
    return [...this.#known.keys(), ...this.#ofPods.keys()];
  }

  #put(object: KubeObject, gvr: WatchedKind, changed: (key: string) => void): void {
    const owner = controllerOf(object.metadata);
    if (owner !== undefined && isMadeByOthers({ ...gvr, apiVersion: apiVersionOf(gvr) })) {
      if (!isWatched(owner)) this.#unwatchedOwners.set(object.metadata?.uid ?? '', owner);
      this.#ofPods.ownerSeen(object.metadata?.uid ?? '');
      return;
    }
    const state = stateOf(object, gvr);
    if (gvr === jobs && hasFinished(object)) return this.#drop(state, changed);
    this.#known.set(applicationKey(state), state);
    changed(applicationKey(state));
  }

  #drop(state: ApplicationState, changed: (key: string) => void): void {
    if (this.#known.delete(applicationKey(state))) changed(applicationKey(state));
  }
}

type WatchedKind = (typeof watchedKinds)[number];

/** Of a kind whose objects are all known, so that one that is not known is gone. */
export function isWatched({ apiVersion, kind }: Pick<OwnerReference, 'apiVersion' | 'kind'>): boolean {
  return watchedKinds.some((gvr: GroupVersionResource) => gvr.kind === kind && apiVersionOf(gvr) === apiVersion);
}

function stateOf(object: KubeObject, gvr: WatchedKind): ApplicationState {
  const { metadata } = object;
  const apiVersion = apiVersionOf(gvr);
  return {
    ...{ apiVersion, kind: gvr.kind, namespace: metadata?.namespace ?? '', name: metadata?.name ?? '' },
    uid: metadata?.uid ?? '',
    ...(gvr === cronJobs ? ofCronJob(object) : gvr === jobs ? ofJob(object) : ofWorkload(object)),
    object: { apiVersion, kind: gvr.kind, metadata },
  };
}

type Wanted = Pick<ApplicationState, 'annotations' | 'podCount'>;

function ofWorkload(object: Deployment | StatefulSet | DaemonSet | ReplicaSet): Wanted {
  const { spec, status } = object;
  const annotations = spec?.template?.metadata?.annotations ?? {};
  if (status !== undefined && 'desiredNumberScheduled' in status)
    return { annotations, podCount: status.desiredNumberScheduled };
  return { annotations, podCount: spec !== undefined && 'replicas' in spec ? (spec.replicas ?? 1) : 0 };
}

function ofJob({ spec }: Job): Wanted {
  return { annotations: spec?.template.metadata?.annotations ?? {}, podCount: podsAtOnce(spec) };
}

/** While several of its Jobs run (concurrencyPolicy Allow), addresses for each of them. */
function ofCronJob({ spec, status }: CronJob): Wanted {
  const job = spec?.jobTemplate.spec;
  const running = Math.max(1, status?.active?.length ?? 0);
  return { annotations: job?.template.metadata?.annotations ?? {}, podCount: podsAtOnce(job) * running };
}

/**
 * Spiderpool takes the larger of both, which gives a Job of 10,000 completions as many addresses; a pod that has ended
 * has returned its own.
 */
function podsAtOnce(spec: JobSpec | undefined): number {
  const parallelism = spec?.parallelism ?? 1;
  return Math.min(parallelism, spec?.completions ?? parallelism);
}

/** For good: no pod of it runs or will run. */
function hasFinished({ status }: Job): boolean {
  const ends = ['Complete', 'Failed'];
  return status?.conditions?.some(({ type, status: is }) => ends.includes(type) && is === 'True') === true;
}
