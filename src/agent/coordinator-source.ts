/** What the cluster says about a pod's connection to its node: the SpiderCoordinator, and the pod's annotations. */
import { additionalNetworks, defaultInterface } from '../api/network-selection.ts';
import type { KubeObject, Pod } from '../api/kubernetes.ts';
import { pods, spiderCoordinators } from '../api/resources.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import { clusterCoordinatorConfig } from '../cni/coordinator-cluster.ts';
import type { PodCoordination, PodReference } from '../cni/coordinator.ts';
import type { Clock } from '../core/clock.ts';
import { hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';

export interface CoordinatorSourceOptions {
  readonly client: KubeClient;
  readonly pods: Pick<Informer<Pod>, 'get'>;
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
    const config = clusterCoordinatorConfig(theOne(await this.#list(signal)), annotations);
    const further = additionalNetworks({ ...reference, annotations });
    return { config, interfaces: [defaultInterface, ...further.map((each) => each.interface)] };
  }

  async #annotations({ namespace, name }: PodReference, signal?: AbortSignal): Promise<Record<string, string>> {
    const { pods: copies, client } = this.#options;
    const pod =
      copies.get(namespace, name) ?? (await orUndefined(client.get<Pod>(pods, { namespace, name }, { signal })));
    return { ...pod?.metadata?.annotations };
  }

  async #list(signal?: AbortSignal): Promise<readonly SpiderCoordinator[]> {
    if (this.#coordinators.hasSynced) return this.#coordinators.list() as SpiderCoordinator[];
    const list = await orUndefined(this.#options.client.listAll(spiderCoordinators, {}, { signal }));
    return (list?.items ?? []) as SpiderCoordinator[];
  }
}

/** There should be one, "default"; else the first by name, so that every agent takes the same. */
function theOne(coordinators: readonly SpiderCoordinator[]): SpiderCoordinator | undefined {
  const name = ({ metadata }: SpiderCoordinator): string => metadata?.name ?? '';
  const sorted = [...coordinators].sort((a, b) => (name(a) < name(b) ? -1 : 1));
  return sorted.find((each) => name(each) === 'default') ?? sorted[0];
}

/** No such object, or no such resource: the definition is not installed. */
async function orUndefined<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (hasErrorCode(error, 'kube_not_found')) return undefined;
    throw error;
  }
}
