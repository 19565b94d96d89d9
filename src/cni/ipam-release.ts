import type { CniRequest } from '../api/cni.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { hasErrorCode } from '../core/error.ts';
import { decodeAllocatedIps, type AllocationRecord } from '../ipam/allocated-ips.ts';
import { isPodAlive, type IpamPod } from '../ipam/pod.ts';
import { isRecordOf, podReference, type IpamState, type PodReference } from './ipam-state.ts';

/**
 * DEL: the addresses of the pod's interface go back to their pools, and the interface out of the pod's SpiderEndpoint. It
 * succeeds when there is nothing to return, and fails when something cannot be written, so that the runtime calls again.
 */
export async function releaseAddresses(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<void> {
  const named = podReference(request);
  if (named === undefined) return;
  const pod = await withUid(state, named, signal);
  if (!(await mayRelease(state, request, pod, signal))) return;
  const { endpointName, isKept } = await heldBy(state, pod, signal);
  if (!isKept) {
    // The endpoint first: a record without one is found by garbage collection, an endpoint without a record is not.
    if (pod.uid !== undefined) await state.endpoints.forget(pod.namespace, endpointName, pod.uid, request.ifName);
    await releaseRecords(state, (record) => isRecordOf(record, pod, request.ifName), recordHint(pod));
  }
  if (pod.uid !== undefined) state.forget(pod.uid, request.ifName, request.containerId);
}

interface Holder {
  readonly endpointName: string;
  /** The addresses wait for the next pod of the name: a StatefulSet or a virtual machine still wants it. */
  readonly isKept: boolean;
}

/** Whose the addresses are; the pod itself may be gone from the API by now. */
async function heldBy(state: IpamState, pod: PodReference, signal: AbortSignal): Promise<Holder> {
  const { namespace, name, uid } = pod;
  const cached = state.deps.pods.cached(namespace, name);
  const object = cached?.metadata?.uid === uid ? cached : await readSame(state, pod, signal);
  if (object !== undefined) {
    const { staticKind, owner, recordName } = await state.owners.of(object, signal);
    const isKept =
      staticKind !== undefined && (await state.owners.isWanted(staticKind, { namespace, name }, owner.name));
    return { endpointName: recordName, isKept };
  }
  const endpointName = nameOnRecord(state, pod) ?? name;
  const written = uid === undefined ? undefined : state.endpoints.written(uid);
  const { status } = written ?? (await state.endpoints.read(namespace, endpointName, signal)) ?? {};
  const staticKind = state.owners.staticKindNamed(status?.ownerControllerType);
  const ownerName = status?.ownerControllerName ?? '';
  const isKept = staticKind !== undefined && (await state.owners.isWanted(staticKind, { namespace, name }, ownerName));
  return { endpointName, isKept };
}

/** A virtual machine's pods are on record by the machine's name. */
function nameOnRecord(state: IpamState, { namespace, uid }: PodReference): string | undefined {
  if (uid === undefined) return undefined;
  for (const pool of state.writer.known().filter((each) => contains(each, JSON.stringify(uid)))) {
    const records = decodeAllocatedIps(pool.status?.allocatedIPs, pool.metadata.name ?? '').values();
    const own = [...records].find((record) => record.podUid === uid);
    if (own?.pod.startsWith(`${namespace}/`) === true) return own.pod.slice(namespace.length + 1);
  }
  return undefined;
}

async function readSame(state: IpamState, pod: PodReference, signal: AbortSignal): Promise<IpamPod | undefined> {
  const read = await state.deps.pods.read(pod.namespace, pod.name, signal);
  return read?.metadata?.uid === pod.uid ? read : undefined;
}

/**
 * A pod may have several sandboxes one after another, all with its UID, and the DEL of an old one may come when a
 * newer one has the address. Whose it is, is known from the ADD; if that was before this process started, a living
 * pod keeps it: its last sandbox is deleted after it died.
 */
async function mayRelease(
  state: IpamState,
  request: CniRequest,
  pod: PodReference,
  signal: AbortSignal,
): Promise<boolean> {
  const current = pod.uid === undefined ? undefined : state.attachment(pod.uid, request.ifName);
  if (current !== undefined) return current.containerId === request.containerId;
  const cached = state.deps.pods.cached(pod.namespace, pod.name);
  if (cached === undefined || cached.metadata?.uid !== pod.uid || !isPodAlive(cached)) return true;
  const read = await state.deps.pods.read(pod.namespace, pod.name, signal);
  return read === undefined || read.metadata?.uid !== pod.uid || !isPodAlive(read);
}

/** Where the runtime does not say it: of the pod that has the name, or had it last. */
async function withUid(state: IpamState, pod: PodReference, signal: AbortSignal): Promise<PodReference> {
  if (pod.uid !== undefined) return pod;
  const read = await state.deps.pods.read(pod.namespace, pod.name, signal);
  if (read !== undefined) return { ...pod, uid: read.metadata?.uid };
  const endpoint = await state.endpoints.read(pod.namespace, pod.name, signal);
  return { ...pod, uid: endpoint?.status?.current.uid };
}

/** Text that a pool's status must contain to have a record of the pod: spares parsing all the others. */
function recordHint(pod: PodReference): string {
  return JSON.stringify(pod.uid ?? `${pod.namespace}/${pod.name}`);
}

/** Releases the records the predicate names from every pool whose status contains the hint. Answers the addresses. */
export async function releaseRecords(
  state: IpamState,
  isReleased: (record: AllocationRecord, address: string) => boolean,
  hint?: string,
): Promise<string[]> {
  const pools = state.writer.known().filter((pool) => contains(pool, hint));
  const released = await Promise.all(pools.map((pool) => releaseFrom(state, pool.metadata.name ?? '', isReleased)));
  return released.flat();
}

function contains(pool: SpiderIPPool, hint: string | undefined): boolean {
  const text = pool.status?.allocatedIPs;
  return text !== undefined && (hint === undefined || text.includes(hint));
}

async function releaseFrom(
  state: IpamState,
  poolName: string,
  isReleased: (record: AllocationRecord, address: string) => boolean,
): Promise<string[]> {
  try {
    const released = await state.writer.run(poolName, 'release', (book) => book.release(isReleased));
    if (released.length > 0) state.deps.log.info({ pool: poolName, addresses: released }, 'addresses released');
    return released;
  } catch (error) {
    if (hasErrorCode(error, 'kube_not_found') || hasErrorCode(error, 'ipam_no_pool')) return [];
    throw error;
  }
}
