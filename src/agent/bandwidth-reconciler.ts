/**
 * Keeps each endpoint's limits as its pod's annotations say, also while the pod runs. A malformed change keeps the limit
 * that is in force and is told as a Warning event on the pod.
 */
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { mergeBandwidth, podBandwidth, type BandwidthRates } from './pod-bandwidth.ts';

export interface PodFacts {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Shaper {
  apply(target: ShapedInterface, rates: BandwidthRates): void;
  read(target: ShapedInterface): BandwidthRates;
}

export interface ShapedInterface {
  readonly netns: string;
  readonly interfaceName: string;
}

export interface BandwidthReconcilerDeps {
  readonly shaper: Shaper;
  readonly endpoints: () => readonly EndpointRecord[];
  /** As the informer knows it; undefined before it is synced or after the pod was deleted. */
  readonly podOf: (record: EndpointRecord) => PodFacts | undefined;
  readonly warnPod: (pod: PodFacts, reason: string, message: string) => void;
  readonly log: Logger;
}

export class BandwidthReconciler {
  readonly #deps: BandwidthReconcilerDeps;
  /** By endpoint id: what was applied last, and the complaint that was told already. */
  readonly #applied = new Map<number, BandwidthRates>();
  readonly #told = new Map<number, string>();

  constructor(deps: BandwidthReconcilerDeps) {
    this.#deps = deps;
  }

  /** Throws SluiceError invalid_resource for a malformed annotation. */
  desired(pod: PodFacts, runtime: BandwidthRates): BandwidthRates {
    return mergeBandwidth(podBandwidth(pod), runtime);
  }

  apply(record: EndpointRecord, rates: BandwidthRates): void {
    // A pod without limits needs no look at its qdiscs, unless it had limits before.
    if (isUnlimited(rates) && isUnlimited(this.#applied.get(record.endpointId) ?? this.#read(record))) {
      this.#applied.set(record.endpointId, rates);
      return;
    }
    this.#deps.shaper.apply(targetOf(record), rates);
    this.#applied.set(record.endpointId, rates);
    this.#deps.log.info({ endpoint: record.endpointId, pod: podName(record), ...rates }, 'bandwidth limits set');
  }

  forget(record: EndpointRecord): void {
    this.#applied.delete(record.endpointId);
    this.#told.delete(record.endpointId);
  }

  /** Brings every endpoint to what its pod asks for now; one failure does not keep the others. */
  run(): void {
    for (const record of this.#deps.endpoints()) {
      const pod = this.#deps.podOf(record);
      if (pod === undefined) continue;
      try {
        this.#reconcile(record, this.desired(pod, record.runtimeBandwidth));
        this.#told.delete(record.endpointId);
      } catch (error) {
        this.#complain(record, pod, error);
      }
    }
  }

  /** Sentences where the kernel's limits differ from those applied last. */
  check(record: EndpointRecord): string[] {
    const wanted = this.#applied.get(record.endpointId);
    if (wanted === undefined) return [];
    const found = this.#read(record);
    if (sameRates(wanted, found)) return [];
    return [`bandwidth limits are ${show(found)} instead of ${show(wanted)}`];
  }

  /** Puts back what `check` finds; answers the findings. */
  repair(record: EndpointRecord): string[] {
    const findings = this.check(record);
    const wanted = this.#applied.get(record.endpointId);
    if (findings.length > 0 && wanted !== undefined) this.#deps.shaper.apply(targetOf(record), wanted);
    return findings;
  }

  #reconcile(record: EndpointRecord, wanted: BandwidthRates): void {
    const applied = this.#applied.get(record.endpointId) ?? this.#read(record);
    this.#applied.set(record.endpointId, applied);
    if (!sameRates(applied, wanted)) this.apply(record, wanted);
  }

  #read(record: EndpointRecord): BandwidthRates {
    return this.#deps.shaper.read(targetOf(record));
  }

  #complain(record: EndpointRecord, pod: PodFacts, error: unknown): void {
    const message = formatErrorChain(error);
    if (this.#told.get(record.endpointId) === message) return;
    this.#told.set(record.endpointId, message);
    const ofPod = error instanceof SluiceError && error.code === 'invalid_resource';
    const kept = `${message}; the limits stay ${show(this.#applied.get(record.endpointId) ?? {})}`;
    this.#deps.log.warn({ endpoint: record.endpointId, pod: podName(record) }, kept);
    this.#deps.warnPod(pod, ofPod ? 'InvalidBandwidth' : 'BandwidthFailed', kept);
  }
}

function targetOf(record: EndpointRecord): ShapedInterface {
  return { netns: record.netns, interfaceName: record.ifName };
}

function isUnlimited(rates: BandwidthRates): boolean {
  return rates.ingressBps === undefined && rates.egressBps === undefined;
}

/** The kernel keeps whole bytes per second. */
function sameRates(a: BandwidthRates, b: BandwidthRates): boolean {
  const kernelRate = (bps: number | undefined): number | undefined => bps && Math.ceil(bps / 8);
  return kernelRate(a.ingressBps) === kernelRate(b.ingressBps) && kernelRate(a.egressBps) === kernelRate(b.egressBps);
}

function show(rates: BandwidthRates): string {
  const one = (bps: number | undefined): string => (bps === undefined ? 'none' : `${bps} bit/s`);
  return `ingress ${one(rates.ingressBps)}, egress ${one(rates.egressBps)}`;
}

function podName(record: EndpointRecord): string {
  return `${record.pod.namespace}/${record.pod.name}`;
}
