/** What the kubelet asks of the API server, and pods as it has them: read from there, so with name, namespace, uid and spec. */
import type { ObjectMeta, Pod as ApiPod, PodSpec, PodStatus } from '../../api/kubernetes.ts';

export type {
  Condition,
  Container,
  ContainerPort,
  ContainerState,
  ContainerStateTerminated,
  ContainerStatus,
  EnvVar,
  KeyRef,
  PodStatus,
  Probe,
  Volume,
} from '../../api/kubernetes.ts';

export interface Pod extends ApiPod {
  readonly metadata: ObjectMeta & { readonly name: string; readonly namespace: string; readonly uid: string };
  readonly spec: PodSpec;
}

export interface NetworkAttachmentDefinition {
  readonly metadata: { readonly namespace: string; readonly name: string };
  readonly spec?: { readonly config?: string };
}

export type EventType = 'Normal' | 'Warning';

/** Everything the kubelet asks of the API server; kube-port.ts implements it. */
export interface KubeletApi {
  patchPodStatus(pod: Pod, status: PodStatus): Promise<void>;
  /** Adds annotations to exactly this uid. Succeeds when the pod is gone. */
  annotatePod(pod: Pod, annotations: Readonly<Record<string, string>>): Promise<void>;
  /** The final delete, grace period 0, of exactly this uid. Succeeds when the pod is gone. */
  finishDelete(pod: Pod): Promise<void>;
  getAttachment(namespace: string, name: string): Promise<NetworkAttachmentDefinition | undefined>;
  listAttachments(): Promise<readonly NetworkAttachmentDefinition[]>;
  /** Decoded data; undefined when the object does not exist. */
  getConfigMap(namespace: string, name: string): Promise<Readonly<Record<string, Buffer>> | undefined>;
  getSecret(namespace: string, name: string): Promise<Readonly<Record<string, Buffer>> | undefined>;
  event(pod: Pod, type: EventType, reason: string, message: string, container?: string): void;
}
