import type { KubeObject } from '../api/kubernetes.ts';
import type { GroupVersionResource } from '../api/resources.ts';
import { hasErrorCode } from '../core/error.ts';
import type { KubeClient, ObjectRef } from './client.ts';

/**
 * Deletes an object that only its finalizers would keep. Succeeds when it is gone, and leaves another object of that name
 * alone. Deleted first: whoever comes between the two finds a terminating object and finishes it.
 */
export async function removeFinalized(
  client: KubeClient,
  gvr: GroupVersionResource,
  ref: ObjectRef,
  uid: string | undefined,
): Promise<void> {
  const body = { metadata: { ...(uid === undefined ? {} : { uid }), finalizers: null } };
  try {
    await client.delete(gvr, ref, uid === undefined ? {} : { preconditions: { uid } });
    await client.patch<KubeObject>(gvr, ref, { type: 'merge', body });
  } catch (error) {
    if (!hasErrorCode(error, 'kube_not_found') && !hasErrorCode(error, 'kube_conflict')) throw error;
  }
}
