import type { ObjectMeta, OwnerReference } from '../api/kubernetes.ts';
import { apiVersionOf, statefulSets, virtualMachineInstances } from '../api/resources.ts';
import type { IpamPod } from './pod.ts';

/** The workload at the top of a pod's owners, and whether the pod's addresses outlive the pod. */

export interface PodOwner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** Both are on unless the cluster's configuration says otherwise (enableStatefulSet, enableKubevirtStaticIP). */
export interface StaticKinds {
  readonly statefulSets: boolean;
  readonly virtualMachines: boolean;
}

export const allStaticKinds: StaticKinds = { statefulSets: true, virtualMachines: true };

export type StaticKind = 'StatefulSet' | 'VirtualMachineInstance';

/** What an owner object must show of itself. */
export interface OwnerObject {
  readonly metadata?: Pick<ObjectMeta, 'ownerReferences' | 'deletionTimestamp' | 'uid'>;
  readonly spec?: {
    readonly replicas?: number | undefined;
    readonly ordinals?: { readonly start?: number | undefined } | undefined;
  };
}

/** The owner that manages the object, of those that its metadata name. */
export function controllerOf<Owner extends { readonly controller?: boolean | undefined }>(
  metadata: { readonly ownerReferences?: readonly Owner[] | undefined } | undefined,
): Owner | undefined {
  return metadata?.ownerReferences?.find((reference) => reference.controller === true);
}

/** Follows controllers upwards: Pod, ReplicaSet, Deployment. The pod itself when it has none. */
export async function topOwner(
  pod: IpamPod,
  readOwner: (owner: PodOwner) => Promise<OwnerObject | undefined>,
): Promise<PodOwner> {
  const namespace = pod.metadata?.namespace ?? 'default';
  const { name = '', uid = '' } = pod.metadata ?? {};
  const own = controllerOf(pod.metadata);
  if (own === undefined) return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
  const first = ownerOf(namespace, own);
  // Only these two are made by other controllers in the ordinary case; for others a read would be for nothing.
  if (first.kind !== 'ReplicaSet' && first.kind !== 'Job') return first;
  const above = controllerOf((await readOwner(first))?.metadata);
  return above === undefined ? first : ownerOf(namespace, above);
}

function ownerOf(namespace: string, { apiVersion, kind, name, uid }: OwnerReference): PodOwner {
  return { apiVersion, kind, namespace, name, uid };
}

/** Undefined: the pod's addresses go with it. */
export function staticKindOf(
  owner: Pick<PodOwner, 'apiVersion' | 'kind'>,
  enabled: StaticKinds,
): StaticKind | undefined {
  if (enabled.statefulSets && isKind(owner, statefulSets)) return 'StatefulSet';
  if (enabled.virtualMachines && isKind(owner, virtualMachineInstances)) return 'VirtualMachineInstance';
  return undefined;
}

function isKind(
  { apiVersion, kind }: Pick<PodOwner, 'apiVersion' | 'kind'>,
  gvr: typeof statefulSets | typeof virtualMachineInstances,
): boolean {
  return kind === gvr.kind && apiVersion === apiVersionOf(gvr);
}

/** The name of the pod's SpiderEndpoint and in its records: a virtual machine keeps its own through every pod of it. */
export function recordName(podName: string, owner: PodOwner, enabled: StaticKinds): string {
  return staticKindOf(owner, enabled) === 'VirtualMachineInstance' ? owner.name : podName;
}

/** Whether the StatefulSet still wants a pod of this name; an absent or going one wants none. */
export function coversOrdinal(set: OwnerObject | undefined, podName: string): boolean {
  if (set === undefined || set.metadata?.deletionTimestamp) return false;
  const ordinal = /-([0-9]+)$/.exec(podName)?.[1];
  if (ordinal === undefined) return false;
  const start = set.spec?.ordinals?.start ?? 0;
  return Number(ordinal) >= start && Number(ordinal) < start + (set.spec?.replicas ?? 1);
}

/** The StatefulSet that a pod of this name belongs to: Kubernetes calls its pods NAME-ORDINAL. */
export function setNameOf(podName: string): string {
  return podName.replace(/-[0-9]+$/, '');
}
