import type { CniRequest } from '../api/cni.ts';
import { formatIp, type IpAddress, type IpFamily } from '../core/ip.ts';
import { SluiceError } from '../core/error.ts';
import type { AllocationRecord } from '../ipam/allocated-ips.ts';
import type { IpamPod } from '../ipam/pod.ts';
import { CniError } from './error.ts';
import type { IpamDeps, KnownAttachment } from './ipam-deps.ts';
import { EndpointBook } from './ipam-endpoint.ts';
import { OwnerResolver } from './ipam-owner.ts';
import { PoolWriter } from './ipam-writer.ts';

/** How long an address that somebody else has is not handed out by this node. */
const setAsideMs = 600_000;

/** What somebody else has, who has this link address: left alone for a while. */
export interface AsideAddress {
  readonly address: IpAddress;
  readonly owner: string;
}

/** The plugin's surroundings, its writers, and which container each attachment belongs to. */
export class IpamState {
  readonly deps: IpamDeps;
  readonly writer: PoolWriter;
  readonly endpoints: EndpointBook;
  readonly owners: OwnerResolver;
  readonly #attachments = new Map<string, KnownAttachment>();
  /** Addresses that somebody else was found at. */
  readonly #aside = new Map<string, AsideAddress & { readonly untilMs: number }>();
  /** Pod UID → ADDs under way. */
  readonly #adding = new Map<string, number>();

  setAside(found: AsideAddress): void {
    this.#aside.set(formatIp(found.address), { ...found, untilMs: this.deps.clock.nowMs() + setAsideMs });
  }

  aside(family: IpFamily): AsideAddress[] {
    const nowMs = this.deps.clock.nowMs();
    for (const [text, { untilMs }] of this.#aside) if (untilMs <= nowMs) this.#aside.delete(text);
    return [...this.#aside.values()].filter(({ address }) => address.family === family);
  }

  constructor(deps: IpamDeps) {
    this.deps = deps;
    this.writer = new PoolWriter(deps);
    this.endpoints = new EndpointBook(deps.endpoints);
    this.owners = new OwnerResolver(deps);
  }

  /** Marks an ADD of the pod as under way until it is disposed of. */
  adding(podUid: string): Disposable {
    this.#adding.set(podUid, (this.#adding.get(podUid) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = (this.#adding.get(podUid) ?? 1) - 1;
        if (left === 0) this.#adding.delete(podUid);
        else this.#adding.set(podUid, left);
      },
    };
  }

  isAdding(podUid: string): boolean {
    return this.#adding.has(podUid);
  }

  hasAttachment(podUid: string): boolean {
    return [...this.attachments().values()].some((attachment) => attachment.podUid === podUid);
  }

  remember(attachment: KnownAttachment): void {
    this.#attachments.set(attachmentKey(attachment.podUid, attachment.interface), attachment);
  }

  /** Only if it is still this container's: a later sandbox of the pod may have taken over. */
  forget(podUid: string, interfaceName: string, containerId: string): void {
    const key = attachmentKey(podUid, interfaceName);
    if (this.#attachments.get(key)?.containerId === containerId) this.#attachments.delete(key);
  }

  attachment(podUid: string, interfaceName: string): KnownAttachment | undefined {
    return this.attachments().get(attachmentKey(podUid, interfaceName));
  }

  /** By pod UID and interface; what this process did itself is newer than what the registry says. */
  attachments(): Map<string, KnownAttachment> {
    const all = new Map<string, KnownAttachment>();
    for (const known of this.deps.attachments?.() ?? []) all.set(attachmentKey(known.podUid, known.interface), known);
    for (const [key, own] of this.#attachments) all.set(key, own);
    return all;
  }
}

export function attachmentKey(podUid: string, interfaceName: string): string {
  return `${podUid}/${interfaceName}`;
}

export interface PodReference {
  readonly namespace: string;
  readonly name: string;
  /** Absent with runtimes that do not pass K8S_POD_UID. */
  readonly uid: string | undefined;
}

/** From CNI_ARGS; undefined when the runtime is not a kubelet's. */
export function podReference(request: CniRequest): PodReference | undefined {
  const { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name, K8S_POD_UID: uid } = request.args;
  return namespace && name ? { namespace, name, uid: uid || undefined } : undefined;
}

export function requirePodReference(request: CniRequest): PodReference {
  const pod = podReference(request);
  if (pod !== undefined) return pod;
  const message = 'CNI_ARGS lacks K8S_POD_NAMESPACE or K8S_POD_NAME: spiderpool allocates for Kubernetes pods only';
  throw new CniError(
    4,
    message,
    'Let a Kubernetes container runtime call the plugin, or use the host-local IPAM plugin.',
  );
}

/** The very pod the runtime means; the cache is asked first and believed only when it is not behind. */
export async function findPod(state: IpamState, pod: PodReference, signal: AbortSignal): Promise<IpamPod> {
  const cached = state.deps.pods.cached(pod.namespace, pod.name);
  if (cached !== undefined && pod.uid !== undefined && cached.metadata?.uid === pod.uid) return cached;
  const read = await state.deps.pods.read(pod.namespace, pod.name, signal);
  if (read === undefined)
    throw podError(pod, 'not found, it was deleted', 'nothing is to be done if the pod was deleted on purpose');
  if (pod.uid === undefined || read.metadata?.uid === pod.uid) return read;
  throw podError(
    pod,
    `replaced by another pod of that name, UID ${read.metadata?.uid ?? '?'}`,
    'the new pod is attached by itself',
  );
}

export function podError(pod: PodReference, what: string, remedy?: string): SluiceError {
  const object = `Pod ${pod.namespace}/${pod.name}`;
  return new SluiceError({ code: 'not_found', operation: 'allocate addresses for', object, what, remedy });
}

/** The records of a pod's interface, by UID where it is known, else by name. */
export function isRecordOf(record: AllocationRecord, pod: PodReference, interfaceName: string): boolean {
  if (record.interface !== interfaceName) return false;
  return pod.uid === undefined ? record.pod === `${pod.namespace}/${pod.name}` : record.podUid === pod.uid;
}
