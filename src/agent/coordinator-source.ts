/** What the cluster says about a pod's connection to its node: the SpiderCoordinator, and the pod's annotations. */
import { additionalNetworks, defaultInterface } from '../api/network-selection.ts';
import type { KubeObject, Pod } from '../api/kubernetes.ts';
import { pods, spiderCoordinators } from '../api/resources.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import { clusterCoordinatorConfig } from '../cni/coordinator-cluster.ts';
import type { PodCoordination, PodReference } from '../cni/coordinator.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import { Informer } from '../kube/informer.ts';

export interface CoordinatorSourceOptions {
  readonly client: KubeClient;
  readonly pods: Pick<Informer<Pod>, 'get'>;
  /** The one that counts, if it is there. */
  readonly coordinatorName: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class CoordinatorSource {
  readonly #options: CoordinatorSourceOptions;
  readonly #coordinators: Informer<KubeObject>;

  constructor(options: CoordinatorSourceOptions) {
    const { client, clock, log } = options;
    this.#options = options;
    this.#coordinators = new Informer<KubeObject>({ client, clock, log, gvr: spiderCoordinators });
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#coordinators.start(signal);
  }

  /** Rejects with CniError 11 while the SpiderCoordinator is not ready. A cluster without any has the defaults. */
  async of(reference: PodReference, signal?: AbortSignal): Promise<PodCoordination> {
    const annotations = await this.#annotations(reference, signal);
    const config = clusterCoordinatorConfig(
      theOne(await this.#list(signal), this.#options.coordinatorName),
      annotations,
    );
    const further = additionalNetworks({ ...reference, annotations });
    return { config, interfaces: [defaultInterface, ...further.map((each) => each.interface)] };
  }

  async #annotations({ namespace, name }: PodReference, signal?: AbortSignal): Promise<Record<string, string>> {
    const { pods: copies, client } = this.#options;
    const pod =
      copies.get(namespace, name) ?? (await unlessNotFound(client.get<Pod>(pods, { namespace, name }, { signal })));
    return { ...pod?.metadata?.annotations };
  }

  async #list(signal?: AbortSignal): Promise<readonly SpiderCoordinator[]> {
    if (this.#coordinators.hasSynced) return this.#coordinators.list() as SpiderCoordinator[];
    const list = await unlessNotFound(this.#options.client.listAll(spiderCoordinators, {}, { signal }));
    return (list?.items ?? []) as SpiderCoordinator[];
  }
}

/** Else the first by name, so that every agent takes the same. */
function theOne(coordinators: readonly SpiderCoordinator[], wanted: string): SpiderCoordinator | undefined {
  const name = ({ metadata }: SpiderCoordinator): string => metadata?.name ?? '';
  const sorted = [...coordinators].sort((a, b) => (name(a) < name(b) ? -1 : 1));
  return sorted.find((each) => name(each) === wanted) ?? sorted[0];
}
