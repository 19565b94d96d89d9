import type { KubeObject } from '../api/kubernetes.ts';
import type { GroupVersionResource } from '../api/resources.ts';
import { hasErrorCode } from '../core/error.ts';
import type { KubeClient, ObjectRef } from './client.ts';

/** Deletes the object of this UID. Succeeds when it is gone, and leaves another object of that name alone. */
export function removeObject(
  client: KubeClient,
  gvr: GroupVersionResource,
  ref: ObjectRef,
  uid: string | undefined,
): Promise<void> {
  return unlessGone(() => deleteOf(client, gvr, ref, uid));
}

/**
 * The same of an object that only its finalizers would keep. Deleted first: whoever comes between the two finds a
 * terminating object and finishes it.
 */
export function removeFinalized(
  client: KubeClient,
  gvr: GroupVersionResource,
  ref: ObjectRef,
  uid: string | undefined,
): Promise<void> {
  const body = { metadata: { ...(uid === undefined ? {} : { uid }), finalizers: null } };
  return unlessGone(async () => {
    await deleteOf(client, gvr, ref, uid);
    await client.patch<KubeObject>(gvr, ref, { type: 'merge', body });
  });
}

async function deleteOf(
  client: KubeClient,
  gvr: GroupVersionResource,
  ref: ObjectRef,
  uid: string | undefined,
): Promise<void> {
  await client.delete(gvr, ref, uid === undefined ? {} : { preconditions: { uid } });
}

async function unlessGone(remove: () => Promise<void>): Promise<void> {
  try {
    await remove();
  } catch (error) {
    if (!hasErrorCode(error, 'kube_not_found') && !hasErrorCode(error, 'kube_conflict')) throw error;
  }
}
