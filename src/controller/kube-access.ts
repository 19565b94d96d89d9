import type { KubeObject } from '../api/kubernetes.ts';
import type { GroupVersionResource } from '../api/resources.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import { referenceTo, type EventRecorder } from '../kube/event-recorder.ts';
import type { Informer } from '../kube/informer.ts';
import type { EventWriter, ObjectAccess } from './ports.ts';

/**
 * The reconcilers' ports, on the API client. Objects are taken as they come: what admission let in has the shape of
 * its type, and the reconcilers name what has not.
 */
export function kubeAccess<T extends object>(
  client: KubeClient,
  gvr: GroupVersionResource,
  informer?: Pick<Informer<KubeObject>, 'list'>,
): ObjectAccess<T> {
  const asKube = (object: T): KubeObject => object;
  const asOwn = (object: KubeObject): T => object as unknown as T;
  return {
    cached: () => (informer?.list() ?? []).map(asOwn),
    read: async (namespace, name) => {
      const ref = { namespace: gvr.namespaced ? namespace : undefined, name };
      const object = await unlessNotFound(client.get<KubeObject>(gvr, ref));
      return object && asOwn(object);
    },
    list: async () => (await client.listAll(gvr)).items.map(asOwn),
    create: async (object) => asOwn(await client.create(gvr, asKube(object))),
    replace: async (object) => asOwn(await client.replace(gvr, asKube(object))),
    replaceStatus: async (object) => asOwn(await client.replaceStatus(gvr, asKube(object))),
  };
}

export function eventWriter(
  recorder: EventRecorder,
  gvr: Pick<GroupVersionResource, 'group' | 'version' | 'kind'>,
): EventWriter {
  return (object, type, reason, message) => {
    recorder.record({ about: referenceTo(gvr, object), type, reason, message });
  };
}
