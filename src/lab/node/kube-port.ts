/** The kubelet's wishes on the real API. */
import type { KubeObject } from '../../api/kubernetes.ts';
import { configMaps, networkAttachmentDefinitions, pods } from '../../api/resources.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isNotFound } from '../../kube/error.ts';
import type { EventRecorder } from '../../kube/event-recorder.ts';
import type { KubeletApi, NetworkAttachmentDefinition, Pod } from './pod-api.ts';

const secrets = { group: '', version: 'v1', plural: 'secrets', kind: 'Secret', namespaced: true } as const;

export function createKubeletApi(client: KubeClient, recorder: EventRecorder): KubeletApi {
  return {
    async patchPodStatus(pod, status) {
      const ref = { namespace: pod.metadata.namespace, name: pod.metadata.name };
      // The uid in the patch makes it a conflict when the name belongs to another pod by now.
      const body = { metadata: { uid: pod.metadata.uid }, status };
      await ignoreGone(client.patch(pods, ref, { type: 'merge', body }, { subresource: 'status' }));
    },
    async annotatePod(pod, annotations) {
      const ref = { namespace: pod.metadata.namespace, name: pod.metadata.name };
      const body = { metadata: { uid: pod.metadata.uid, annotations } };
      await ignoreGone(client.patch(pods, ref, { type: 'merge', body }));
    },
    async finishDelete(pod) {
      const ref = { namespace: pod.metadata.namespace, name: pod.metadata.name };
      await ignoreGone(client.delete(pods, ref, { gracePeriodSeconds: 0, preconditions: { uid: pod.metadata.uid } }));
    },
    async getAttachment(namespace, name) {
      const found = await orUndefined(client.get(networkAttachmentDefinitions, { namespace, name }));
      return found as unknown as NetworkAttachmentDefinition | undefined;
    },
    async listAttachments() {
      return (await client.listAll(networkAttachmentDefinitions)).items as unknown as NetworkAttachmentDefinition[];
    },
    async getConfigMap(namespace, name) {
      const found = await orUndefined(client.get<DataObject>(configMaps, { namespace, name }));
      if (found === undefined) return undefined;
      return { ...decode(found.data, 'utf8'), ...decode(found.binaryData, 'base64') };
    },
    async getSecret(namespace, name) {
      const found = await orUndefined(client.get<DataObject>(secrets, { namespace, name }));
      return found === undefined ? undefined : decode(found.data, 'base64');
    },
    event(pod, type, reason, message, container) {
      const { name, namespace, uid } = pod.metadata;
      const fieldPath =
        container === undefined
          ? undefined
          : `spec.${isInit(pod, container) ? 'initContainers' : 'containers'}{${container}}`;
      recorder.record({
        about: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid, fieldPath },
        type,
        reason,
        message,
      });
    },
  };
}

interface DataObject extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
  readonly binaryData?: Readonly<Record<string, string>>;
}

function decode(data: Readonly<Record<string, string>> | undefined, encoding: BufferEncoding): Record<string, Buffer> {
  return Object.fromEntries(Object.entries(data ?? {}).map(([key, text]) => [key, Buffer.from(text, encoding)]));
}

function isInit(pod: Pod, container: string): boolean {
  return pod.spec.initContainers?.some((each) => each.name === container) === true;
}

async function orUndefined<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** The pod is gone, or its name belongs to another one: nothing is left to report on. */
async function ignoreGone(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}
