/**
 * Pods of this node that ran before Sluice came, or whose records were lost, become endpoints without a restart: their
 * namespace is found by their addresses, their policy is written, then the hooks go on. Strict, since hooks on the wrong
 * interface would cut somebody else: all addresses on one interface, in exactly one namespace.
 */
import type { Pod } from '../api/kubernetes.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { Clock } from '../core/clock.ts';
import { formatIp, parseIp } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import type { PodRef } from './cluster-view.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { agentLimits, type AdoptionMode } from './limits.ts';
import { findPodInterfaces, listNetns, type PodInterface } from './pod-netns.ts';

export interface AdoptionDeps {
  readonly mode: AdoptionMode;
  readonly nodeName: string;
  readonly pods: () => readonly Pod[];
  readonly synced: () => boolean;
  readonly records: () => readonly EndpointRecord[];
  readonly adopt: (pod: PodRef, ips: readonly string[], found: PodInterface, signal: AbortSignal) => Promise<void>;
  readonly onAdopted: (pod: PodRef, found: PodInterface) => void;
  /** Once for each reason. */
  readonly onFailed: (pod: PodRef, message: string) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What came of a pod without a record, by uid. */
interface Attempt {
  readonly message: string;
  readonly nextMs: number;
  readonly pauseMs: number;
}

export class PodAdoption {
  readonly #deps: AdoptionDeps;
  readonly #attempts = new Map<string, Attempt>();

  #passed = false;

  constructor(deps: AdoptionDeps) {
    this.#deps = deps;
  }

  /** Whether every pod that could be adopted at the start had its chance. */
  get passed(): boolean {
    return this.#passed;
  }

  /** One pass over the pods without a record. Looks at the node's namespaces only when there is such a pod. */
  async run(signal: AbortSignal): Promise<void> {
    if (!this.#deps.synced()) return;
    if (this.#deps.mode !== 'none') await this.#runSynced(signal);
    this.#passed ||= !signal.aborted;
  }

  async #runSynced(signal: AbortSignal): Promise<void> {
    const candidates = this.#candidates();
    this.#forgetOthers(candidates);
    const now = this.#deps.clock.monotonicMs();
    const due = candidates.filter(({ pod }) => (this.#attempts.get(pod.uid)?.nextMs ?? 0) <= now);
    if (due.length === 0) return;
    const namespaces = listNetns();
    for (const candidate of due) {
      await new Promise((resolve) => setImmediate(resolve));
      if (signal.aborted) return;
      await this.#tryOne(candidate, namespaces, signal);
    }
  }

  #candidates(): Candidate[] {
    const known = new Set(this.#deps.records().map((record) => record.pod.uid));
    return this.#deps.pods().flatMap((pod) => {
      const candidate = candidateOf(pod, this.#deps.nodeName);
      return candidate === undefined || known.has(candidate.pod.uid) ? [] : [candidate];
    });
  }

  async #tryOne({ pod, ips }: Candidate, namespaces: ReadonlyMap<string, string>, signal: AbortSignal): Promise<void> {
    try {
      const found = theOne(pod, ips, findPodInterfaces(ips, new Map(namespaces)));
      if (this.#deps.mode === 'underlay' && found.kind === 'veth') {
        // Another network's pod: not worth an event, and not worth a search every few seconds.
        this.#postpone(pod, `${found.interfaceName} is a veth interface`, agentLimits.adoptionMaxPauseMs);
        return;
      }
      await this.#deps.adopt(pod, ips, found, signal);
      this.#attempts.delete(pod.uid);
      this.#deps.onAdopted(pod, found);
    } catch (error) {
      if (signal.aborted) return;
      const message = formatErrorChain(error);
      if (this.#attempts.get(pod.uid)?.message !== message) this.#deps.onFailed(pod, message);
      this.#postpone(pod, message);
    }
  }

  #postpone(pod: PodRef, message: string, pauseMs?: number): void {
    const before = this.#attempts.get(pod.uid)?.pauseMs ?? agentLimits.adoptionCheckMs / 2;
    const pause = pauseMs ?? Math.min(before * 2, agentLimits.adoptionMaxPauseMs);
    this.#attempts.set(pod.uid, { message, pauseMs: pause, nextMs: this.#deps.clock.monotonicMs() + pause });
  }

  #forgetOthers(candidates: readonly Candidate[]): void {
    const uids = new Set(candidates.map(({ pod }) => pod.uid));
    for (const uid of this.#attempts.keys()) if (!uids.has(uid)) this.#attempts.delete(uid);
  }
}

interface Candidate {
  readonly pod: PodRef;
  readonly ips: readonly string[];
}

function candidateOf(pod: Pod, nodeName: string): Candidate | undefined {
  const { namespace = '', name = '', uid = '', deletionTimestamp } = pod.metadata ?? {};
  const { spec, status } = pod;
  if (spec?.nodeName !== nodeName || spec.hostNetwork === true) return undefined;
  if (status?.phase !== 'Running' || deletionTimestamp !== undefined) return undefined;
  const texts = status.podIPs?.map((entry) => entry.ip) ?? (status.podIP === undefined ? [] : [status.podIP]);
  const ips = texts.flatMap((text) => {
    const ip = parseIp(text ?? '');
    return ip === undefined ? [] : [formatIp(ip)];
  });
  return ips.length === 0 || ips.length !== texts.length ? undefined : { pod: { namespace, name, uid }, ips };
}

function theOne(pod: PodRef, ips: readonly string[], found: readonly PodInterface[]): PodInterface {
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  const what =
    found.length === 0
      ? `no network namespace of this node has an interface with ${ips.join(' and ')}`
      : `${ips.join(' and ')} are in ${found.length} places: ${found.map((f) => `${f.interfaceName} in ${f.netns}`).join(', ')}`;
  throw new SluiceError({
    code: 'not_found',
    operation: 'find network namespace of',
    object: `pod ${pod.namespace}/${pod.name}`,
    what,
    remedy: 'policy is not enforced for this pod; delete it so that it is made anew through Sluice',
  });
}
