import type { CniRequest } from '../api/cni.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { hasErrorCode } from '../core/error.ts';
import type { AllocationRecord } from '../ipam/allocated-ips.ts';
import { isPodAlive } from '../ipam/pod.ts';
import { isRecordOf, podReference, type IpamState, type PodReference } from './ipam-state.ts';

/**
 * DEL: the addresses of the pod's interface go back to their pools. It succeeds when there is nothing to return,
 * and fails when a pool cannot be written, so that the runtime calls again.
 */
export async function releaseAddresses(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<void> {
  const named = podReference(request);
  if (named === undefined) return;
  const pod = await withUid(state, named, signal);
  if (!(await mayRelease(state, request, pod, signal))) return;
  await releaseRecords(state, (record) => isRecordOf(record, pod, request.ifName), recordHint(pod));
  if (pod.uid !== undefined) state.forget(pod.uid, request.ifName, request.containerId);
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

async function withUid(state: IpamState, pod: PodReference, signal: AbortSignal): Promise<PodReference> {
  if (pod.uid !== undefined) return pod;
  const read = await state.deps.pods.read(pod.namespace, pod.name, signal);
  return { ...pod, uid: read?.metadata?.uid };
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
    const released = await state.writer.run(poolName, (book) => book.release(isReleased));
    if (released.length > 0) state.deps.log.info({ pool: poolName, addresses: released }, 'addresses released');
    return released;
  } catch (error) {
    if (hasErrorCode(error, 'kube_not_found') || hasErrorCode(error, 'ipam_no_pool')) return [];
    throw error;
  }
}
