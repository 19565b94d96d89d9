/** Who controls an object: metav1.OwnerReference with controller: true. */

import type { KubeObject, OwnerReference } from '../../api/kubernetes.ts';
import { apiVersionOf, type GroupVersionResource } from '../../api/resources.ts';
import { matchesSelector, type LabelSelector } from '../../core/labels.ts';
import type { Action } from './action.ts';

export function controllerOf(object: KubeObject): OwnerReference | undefined {
  return object.metadata?.ownerReferences?.find(({ controller }) => controller === true);
}

export function isControlledBy(object: KubeObject, owner: KubeObject): boolean {
  const uid = controllerOf(object)?.uid;
  return uid !== undefined && uid === owner.metadata?.uid;
}

export function ownerReference(gvr: GroupVersionResource, owner: KubeObject): OwnerReference {
  const { name = '', uid = '' } = owner.metadata ?? {};
  return { apiVersion: apiVersionOf(gvr), kind: gvr.kind, name, uid, controller: true, blockOwnerDeletion: true };
}

export interface Claim<T> {
  /** Controlled by the owner and matching its selector. */
  readonly owned: readonly T[];
  /** Orphans to adopt, and owned objects that no longer match to release. */
  readonly actions: readonly Action[];
}

/** Adopts matching orphans and releases what stopped matching, as Kubernetes' ControllerRefManager does. */
export function claim<T extends KubeObject>(
  gvr: { readonly owner: GroupVersionResource; readonly object: GroupVersionResource },
  owner: KubeObject,
  selector: LabelSelector,
  candidates: readonly T[],
): Claim<T> {
  const owned: T[] = [];
  const actions: Action[] = [];
  for (const object of candidates) {
    const matches = matchesSelector(selector, object.metadata?.labels);
    const deleting = object.metadata?.deletionTimestamp !== undefined;
    if (isControlledBy(object, owner)) {
      if (matches) owned.push(object);
      else if (!deleting) actions.push(changeOwners(gvr.object, object, without(object, owner)));
    } else if (matches && !deleting && controllerOf(object) === undefined) {
      const references = [...(object.metadata?.ownerReferences ?? []), ownerReference(gvr.owner, owner)];
      actions.push(changeOwners(gvr.object, object, references));
    }
  }
  return { owned, actions };
}

function without(object: KubeObject, owner: KubeObject): OwnerReference[] {
  return (object.metadata?.ownerReferences ?? []).filter(({ uid }) => uid !== owner.metadata?.uid);
}

/** The uid and version in the patch make the server refuse it if the object is another by now. */
function changeOwners(
  gvr: GroupVersionResource,
  object: KubeObject,
  ownerReferences: readonly OwnerReference[],
): Action {
  const { uid, resourceVersion } = object.metadata ?? {};
  return { verb: 'patch', gvr, object, body: { metadata: { uid, resourceVersion, ownerReferences } } };
}
