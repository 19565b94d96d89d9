import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { Labels } from '../core/labels.ts';
import type { IpamPod } from '../ipam/pod.ts';

/** What the address plugin needs of its surroundings. src/cni/ipam-kube.ts fills it from informers and the API client. */

/** Pools: a cache that may lag, and the API server itself. */
export interface PoolSource {
  cached(): readonly SpiderIPPool[];
  /** Undefined when there is no such pool. */
  read(name: string, signal?: AbortSignal): Promise<SpiderIPPool | undefined>;
  readAll(signal?: AbortSignal): Promise<readonly SpiderIPPool[]>;
  /** Rejects with code kube_conflict when metadata.resourceVersion is not the newest. */
  writeStatus(pool: SpiderIPPool): Promise<SpiderIPPool>;
}

export interface PodSource {
  cached(namespace: string, name: string): IpamPod | undefined;
  read(namespace: string, name: string, signal?: AbortSignal): Promise<IpamPod | undefined>;
  /** Cached pods of this node. */
  ofThisNode(): readonly IpamPod[];
}

/** Labels and annotations are all that counts of namespaces and nodes. */
export interface LabelledObject {
  readonly labels: Labels;
  readonly annotations: Labels;
}

/** An interface that the agent knows to exist, whichever network it is on. */
export interface KnownAttachment {
  readonly containerId: string;
  readonly interface: string;
  readonly podUid: string;
  /** CNI network name. */
  readonly network: string;
}

export interface IpamDeps {
  readonly pools: PoolSource;
  readonly pods: PodSource;
  readonly readNamespace: (name: string, signal?: AbortSignal) => Promise<LabelledObject | undefined>;
  readonly readNode: (name: string, signal?: AbortSignal) => Promise<LabelledObject | undefined>;
  readonly nodeName: string;
  /** Of attachments named without a namespace; kube-system by default. */
  readonly attachmentNamespace: string;
  /** The attachment of pods that name none, "namespace/name". */
  readonly clusterNetwork?: string | undefined;
  /** What the agent's endpoint registry holds; it survives a restart, this plugin's own memory does not. */
  readonly attachments?: () => Iterable<KnownAttachment>;
  /** Why ADD cannot be served now; undefined when it can. */
  readonly notReady: () => string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** 0 ≤ x < 1, for the jitter. */
  readonly random: () => number;
}
