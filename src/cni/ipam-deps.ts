import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import type { Clock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import type { Labels } from '../core/labels.ts';
import type { IpFamily } from '../core/ip.ts';
import type { OwnerObject, PodOwner, StaticKinds } from '../ipam/pod-owner.ts';
import type { IpamPod } from '../ipam/pod.ts';
import type { PhysicalFunction } from '../ipam/pool-filter.ts';
import type { DetectionOptions } from './ipam-detect.ts';
import type { VirtualFunction } from './physical-function.ts';

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

/**
 * SpiderEndpoints, always from the API server: a copy of every pod's would be as large as the pods' own, and what is
 * read here decides about addresses.
 */
export interface EndpointSource {
  /** Undefined when there is none, or when the cluster has no SpiderEndpoints at all. */
  read(namespace: string, name: string, signal?: AbortSignal): Promise<SpiderEndpoint | undefined>;
  /** Rejects with kube_conflict when there is one already; undefined when the cluster has no SpiderEndpoints. */
  create(endpoint: SpiderEndpoint): Promise<SpiderEndpoint | undefined>;
  /** Rejects with kube_conflict when metadata.resourceVersion is not the newest, kube_not_found when it is gone. */
  replace(endpoint: SpiderEndpoint): Promise<SpiderEndpoint>;
  /** With its finalizer; the object of this UID only. Succeeds when it is gone. */
  remove(endpoint: SpiderEndpoint): Promise<void>;
}

/** What a pool is written for. */
export type PoolPurpose = 'allocation' | 'release';

/** Told of what happens; never throws. */
export interface IpamObserver {
  /** A write of a pool came too late and is done again; told of each request in it. */
  poolConflict(purpose: PoolPurpose): void;
  /** How long a request waited for its turn at the pool. */
  poolQueued(purpose: PoolPurpose, waitedMs: number): void;
  /** The pool made for the pod's application is not there yet, or is full, and the request waits for it. */
  autoPoolAwaited(): void;
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
  readonly endpoints: EndpointSource;
  readonly reservedIps: (signal?: AbortSignal) => Promise<readonly SpiderReservedIP[]>;
  /** A ReplicaSet, Job, StatefulSet or VirtualMachineInstance, from the API server; undefined when it is gone. */
  readonly readOwner: (owner: Omit<PodOwner, 'uid'>, signal?: AbortSignal) => Promise<OwnerObject | undefined>;
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
  /** Default: both. Pools of the other family count as not named. */
  readonly families?: readonly IpFamily[] | undefined;
  /** Whose addresses stay when a pod goes; default: all kinds. */
  readonly staticKinds?: StaticKinds | undefined;
  /** Records in one pool; default: maxRecordsPerPool. */
  readonly maxRecordsPerPool?: number | undefined;
  /** False: annotations that ask for a pool from a SpiderSubnet are refused. */
  readonly autoPools?: boolean | undefined;
  /** How long to wait for such a pool. */
  readonly autoPoolWaitMs?: number | undefined;
  /** Whether the link is asked about addresses before they are used; default: not. */
  readonly detection?: DetectionOptions | undefined;
  /** For matchMasterSubnet; throws when there is none. */
  readonly physicalFunctionOf: (vf: VirtualFunction) => PhysicalFunction;
  readonly observe?: IpamObserver | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** 0 ≤ x < 1, for the jitter. */
  readonly random: () => number;
}
