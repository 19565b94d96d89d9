import {
  allStaticKinds,
  coversOrdinal,
  recordName,
  setNameOf,
  staticKindOf,
  topOwner,
  type PodOwner,
  type StaticKind,
  type StaticKinds,
} from '../ipam/pod-owner.ts';
import type { IpamPod } from '../ipam/pod.ts';
import type { IpamDeps } from './ipam-deps.ts';

/** Whose a pod is, and whether its addresses stay when it goes. */
export interface Ownership {
  readonly owner: PodOwner;
  readonly staticKind: StaticKind | undefined;
  readonly staticKinds: StaticKinds;
  /** Of the pod's SpiderEndpoint, and in its records. */
  readonly recordName: string;
}

/** Which Deployment a ReplicaSet is of never changes; so many are remembered. */
const maxKnownOwners = 1024;

export class OwnerResolver {
  readonly #deps: Pick<IpamDeps, 'readOwner' | 'staticKinds'>;
  /** By UID of the pod's own controller. */
  readonly #known = new Map<string, PodOwner>();

  constructor(deps: Pick<IpamDeps, 'readOwner' | 'staticKinds'>) {
    this.#deps = deps;
  }

  async of(pod: IpamPod, signal?: AbortSignal): Promise<Ownership> {
    const direct = pod.metadata?.ownerReferences?.find(({ controller }) => controller === true)?.uid;
    const owner = this.#known.get(direct ?? '') ?? (await topOwner(pod, (up) => this.#deps.readOwner(up, signal)));
    if (direct !== undefined) this.#remember(direct, owner);
    const staticKinds = this.#deps.staticKinds ?? allStaticKinds;
    return {
      owner,
      staticKind: staticKindOf(owner, staticKinds),
      staticKinds,
      recordName: recordName(pod.metadata?.name ?? '', owner, staticKinds),
    };
  }

  /** By the kind that a SpiderEndpoint names as owner. */
  staticKindNamed(kind: string | undefined): StaticKind | undefined {
    const { statefulSets, virtualMachines } = this.#deps.staticKinds ?? allStaticKinds;
    if (kind === 'StatefulSet' && statefulSets) return kind;
    return kind === 'VirtualMachineInstance' && virtualMachines ? kind : undefined;
  }

  /** Whether the workload still wants this pod; asks the API server. */
  async isWanted(kind: StaticKind, pod: { namespace: string; name: string }, ownerName: string): Promise<boolean> {
    const { namespace, name } = pod;
    if (kind === 'StatefulSet') {
      const set = { apiVersion: 'apps/v1', kind, namespace, name: ownerName || setNameOf(name) };
      return coversOrdinal(await this.#deps.readOwner(set), name);
    }
    for (const up of [kind, 'VirtualMachine']) {
      const machine = await this.#deps.readOwner({
        apiVersion: 'kubevirt.io/v1',
        kind: up,
        namespace,
        name: ownerName,
      });
      if (machine !== undefined && !machine.metadata?.deletionTimestamp) return true;
    }
    return false;
  }

  #remember(uid: string, owner: PodOwner): void {
    if (this.#known.size >= maxKnownOwners) this.#known.clear();
    this.#known.set(uid, owner);
  }
}
