/** What the agent knows of the cluster: informers, and fresh reads where a lagging copy will not do. */
import type { KubeObject, Namespace, NetworkPolicy, Node, Pod } from '../api/kubernetes.ts';
import {
  namespaces,
  networkPolicies,
  nodes,
  pods,
  resourceName,
  spiderIPPools,
  spiderReservedIPs,
} from '../api/resources.ts';
import { cniErrorCodes } from '../api/cni.ts';
import { CniError } from '../cni/error.ts';
import type { Clock } from '../core/clock.ts';
import { hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import { IpcacheTable } from '../policy/ipcache-table.ts';
import { PolicyIndex } from '../policy/policy-index.ts';
import type { PodFacts } from './bandwidth-reconciler.ts';
import { agentLimits } from './limits.ts';

export interface ClusterViewOptions {
  readonly client: KubeClient;
  /** The node we run on. */
  readonly nodeName: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface PodRef {
  readonly namespace: string;
  readonly name: string;
  /** Empty when the runtime does not tell. */
  readonly uid: string;
}

/** What has changed: policies, or what limits and adoption depend on too. */
export type ClusterPart = 'policies' | 'objects';

export class ClusterView {
  readonly pods: Informer<Pod>;
  readonly namespaces: Informer<Namespace>;
  readonly nodes: Informer<Node>;
  readonly policies: Informer<NetworkPolicy>;
  readonly pools: Informer<KubeObject>;
  /** Not a condition of anything: who reads it asks the API server until it is filled. */
  readonly reservedIps: Informer<KubeObject>;
  /** The policies, parsed once each. */
  readonly policyIndex = new PolicyIndex();
  /** What addresses mean to policy. */
  readonly addresses: IpcacheTable;
  readonly #client: KubeClient;
  readonly #listeners: ((what: ClusterPart) => void)[] = [];

  constructor({ client, nodeName, clock, log }: ClusterViewOptions) {
    const common = { client, clock, log };
    this.#client = client;
    this.addresses = new IpcacheTable(nodeName);
    const shared = new SharedValues();
    const slimmer = new PodSlimmer(nodeName, shared);
    this.pods = new Informer<Pod>({ ...common, gvr: pods, transform: (pod) => slimmer.slim(pod) });
    this.namespaces = new Informer<Namespace>({ ...common, gvr: namespaces });
    this.nodes = new Informer<Node>({ ...common, gvr: nodes, transform: slimNode });
    this.policies = new Informer<NetworkPolicy>({
      ...common,
      gvr: networkPolicies,
      transform: (policy) => slimPolicy(policy, shared),
    });
    this.pools = new Informer<KubeObject>({ ...common, gvr: spiderIPPools });
    this.reservedIps = new Informer<KubeObject>({ ...common, gvr: spiderReservedIPs });
    this.#connect();
  }

  /** Called after any change, and when the first lists have arrived; must be cheap. */
  onChange(listener: (what: ClusterPart) => void): void {
    this.#listeners.push(listener);
  }

  /** Follows the API until the signal is aborted. */
  async start(signal: AbortSignal): Promise<void> {
    const informers = [...Object.values(this.#informers()), this.reservedIps];
    await Promise.all(informers.map((informer) => informer.start(signal)));
  }

  /** Whether policies can be computed: every list they depend on has arrived once. */
  get synced(): boolean {
    return [this.pods, this.namespaces, this.nodes, this.policies].every((informer) => informer.hasSynced);
  }

  informerSynced(): Record<string, boolean> {
    const entries = Object.entries(this.#informers()).map(([name, informer]) => [name, informer.hasSynced] as const);
    return Object.fromEntries(entries);
  }

  /** Sentences; empty when policy can be enforced for a new pod. */
  unavailable(): string[] {
    return this.#reasons(({ name }) => name !== resourceName(spiderIPPools));
  }

  /** Sentences; empty when addresses can be allocated. */
  addressesUnavailable(): string[] {
    return this.#reasons(({ name }) => name === resourceName(spiderIPPools));
  }

  /** Waits for the first lists; CniError 11 with what is missing when they do not come. */
  async waitSynced(signal: AbortSignal): Promise<void> {
    if (this.synced) return;
    const needed = [this.pods, this.namespaces, this.nodes, this.policies].map((informer) => informer.synced);
    await Promise.race([
      Promise.allSettled(needed),
      within(AbortSignal.any([signal, AbortSignal.timeout(agentLimits.informerSyncMs)])),
    ]);
    signal.throwIfAborted();
    if (this.synced) return;
    const reasons = this.unavailable();
    throw new CniError(
      cniErrorCodes.tryAgainLater,
      `the agent is not ready: ${reasons[0] ?? 'starting'}`,
      `${reasons.join('; ')}; check that the API server can be reached from this node and what the agent's account may list`,
    );
  }

  /**
   * The pod and everything that decides about it, read from the API server itself: a policy that existed before the pod
   * must be in force when ADD returns, and the copies may lag behind.
   */
  async refreshPod(ref: PodRef, signal: AbortSignal): Promise<PodFacts> {
    const [pod, policies, namespace] = await Promise.all([
      this.#getPod(ref, signal),
      this.#client.listAll<NetworkPolicy>(networkPolicies, { namespace: ref.namespace }, { signal }),
      this.namespaces.get(undefined, ref.namespace) ??
        this.#client.get<Namespace>(namespaces, { name: ref.namespace }, { signal }),
    ]);
    const uid = pod.metadata?.uid ?? '';
    if (ref.uid !== '' && uid !== ref.uid) {
      throw podGone(ref, `it was deleted and made again (uid ${uid}, the runtime asks for ${ref.uid})`);
    }
    this.pods.observe(pod);
    this.namespaces.observe(namespace);
    for (const policy of policies.items) this.policies.observe(policy);
    return { ...ref, uid, annotations: pod.metadata?.annotations ?? {} };
  }

  podOf(ref: PodRef): Pod | undefined {
    const pod = this.pods.get(ref.namespace, ref.name);
    return pod?.metadata?.uid === ref.uid ? pod : undefined;
  }

  #reasons(concerned: (resource: { readonly name: string }) => boolean): string[] {
    const informers = Object.entries(this.#informers()).filter(([name]) => concerned({ name }));
    return informers.flatMap(([name, informer]) => {
      if (!informer.hasSynced) return [`the list of ${name} has not arrived from the API server yet`];
      return informer.connected ? [] : [`the API server cannot be reached for ${name}`];
    });
  }

  async #getPod(ref: PodRef, signal: AbortSignal): Promise<Pod> {
    try {
      return await this.#client.get<Pod>(pods, { namespace: ref.namespace, name: ref.name }, { signal });
    } catch (error) {
      if (!hasErrorCode(error, 'kube_not_found')) throw error;
      throw podGone(ref, 'the API server does not know it', error);
    }
  }

  #connect(): void {
    const changed = (what: ClusterPart): void => this.#listeners.forEach((listener) => listener(what));
    /** A handler that keeps something up to date and tells that it did. */
    const then =
      <T>(update: (object: T) => void, what: ClusterPart = 'objects') =>
      (object: T): void => {
        update(object);
        changed(what);
      };
    const { addresses } = this;
    const setPod = then((pod: Pod) => addresses.setPod(pod));
    this.pods.on('add', setPod).on('update', setPod);
    this.pods.on(
      'delete',
      then(({ metadata }) => addresses.deletePod(metadata?.namespace ?? '', metadata?.name ?? '')),
    );
    const setNamespace = then((namespace: Namespace) => addresses.setNamespace(namespace));
    this.namespaces.on('add', setNamespace).on('update', setNamespace);
    this.namespaces.on(
      'delete',
      then(({ metadata }) => addresses.deleteNamespace(metadata?.name ?? '')),
    );
    const setNode = then((node: Node) => addresses.setNode(node));
    this.nodes.on('add', setNode).on('update', setNode);
    this.nodes.on(
      'delete',
      then(({ metadata }) => addresses.deleteNode(metadata?.name ?? '')),
    );
    const setPolicy = then((policy: NetworkPolicy) => this.policyIndex.set(policy), 'policies');
    this.policies.on('add', setPolicy).on('update', setPolicy);
    this.policies.on(
      'delete',
      then(({ metadata }) => this.policyIndex.delete(metadata?.namespace ?? '', metadata?.name ?? ''), 'policies'),
    );
    for (const informer of [this.pods, this.namespaces, this.nodes, this.policies]) {
      informer.synced.then(
        () => changed('objects'),
        () => undefined,
      );
    }
  }

  #informers(): Record<string, Informer<Pod> | Informer<KubeObject>> {
    const list = { pods: this.pods, namespaces: this.namespaces, nodes: this.nodes };
    return {
      ...list,
      [resourceName(networkPolicies)]: this.policies,
      [resourceName(spiderIPPools)]: this.pools,
    };
  }
}

/**
 * A node knows every pod of the cluster, so only what policy, limits and address allocation read is kept, and what pods have
 * in common is kept once. The annotations of pods on other nodes are not: nobody asks for them.
 */
class PodSlimmer {
  readonly #nodeName: string;
  readonly #shared: SharedValues;

  constructor(nodeName: string, shared: SharedValues) {
    this.#nodeName = nodeName;
    this.#shared = shared;
  }

  slim(pod: Pod): Pod {
    const { metadata = {}, spec, status } = pod;
    const { namespace = '', name, uid, resourceVersion, creationTimestamp, deletionTimestamp, labels } = metadata;
    const containers = (spec?.containers ?? []).map((container) => ({ name: container.name, ports: container.ports }));
    const isLocal = spec?.nodeName === undefined || spec.nodeName === this.#nodeName;
    return {
      metadata: {
        namespace: this.#shared.text(namespace),
        ...{ name, uid, resourceVersion, creationTimestamp, deletionTimestamp },
        labels: labels && this.#shared.value(labels),
        ...(isLocal && {
          annotations: withoutKubectl(metadata.annotations),
          ownerReferences: metadata.ownerReferences,
        }),
      },
      spec: {
        nodeName: spec?.nodeName && this.#shared.text(spec.nodeName),
        hostNetwork: spec?.hostNetwork,
        restartPolicy: spec?.restartPolicy,
        containers: this.#shared.value(containers),
      },
      status: {
        phase: status?.phase,
        reason: status?.reason,
        podIP: status?.podIP,
        podIPs: status?.podIPs,
      },
    };
  }
}

/** Equal values as one object. Forgets everything when it holds too many: what is in use stays in use, and is only shared less. */
class SharedValues {
  readonly #values = new Map<string, unknown>();

  text(text: string): string {
    return this.#keep(text, text);
  }

  value<T extends object>(value: T): T {
    return this.#keep(JSON.stringify(value), value);
  }

  #keep<T>(key: string, value: T): T {
    const known = this.#values.get(key);
    if (known !== undefined) return known as T;
    if (this.#values.size >= agentLimits.sharedValues) this.#values.clear();
    this.#values.set(key, value);
    return value;
  }
}

function withoutKubectl(annotations: Readonly<Record<string, string>> | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(annotations ?? {}).filter(([key]) => !key.startsWith('kubectl.kubernetes.io/')),
  );
}

/** Annotations may hold the whole policy once more (kubectl apply); namespaces mostly have the same few policies. */
function slimPolicy({ metadata = {}, spec }: NetworkPolicy, shared: SharedValues): NetworkPolicy {
  const { namespace, name, uid, resourceVersion, generation, creationTimestamp } = metadata;
  return {
    metadata: { namespace, name, uid, resourceVersion, generation, creationTimestamp },
    spec: spec && shared.value(spec),
  };
}

/** Without the image list and the heartbeats. */
function slimNode(node: Node): Node {
  const { name, uid, resourceVersion, labels, annotations } = node.metadata ?? {};
  return {
    metadata: { name, uid, resourceVersion, labels, annotations },
    status: { addresses: node.status?.addresses },
  };
}

function within(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function podGone(ref: PodRef, what: string, cause?: unknown): CniError {
  const message = `pod ${ref.namespace}/${ref.name}: ${what}`;
  return new CniError(cniErrorCodes.unknownContainer, message, 'the runtime removes the sandbox', { cause });
}
