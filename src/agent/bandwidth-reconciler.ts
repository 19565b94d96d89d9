/**
 * Keeps each endpoint's limits as its pod and namespace say, also while the pod runs. A malformed change keeps the limit
 * that is in force and is told as a Warning event on the pod.
 */
import { defaultInterface } from '../api/network-selection.ts';
import { formatErrorChain, hasErrorCode } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { bandwidthDirections } from './bandwidth-rate.ts';
import {
  limitsOf,
  ratesOf,
  type AnnotatedPod,
  type BandwidthLimits,
  type BandwidthRates,
  type NamespaceDefaults,
} from './bandwidth-sources.ts';
import type { AppliedBandwidth } from '../datapath/shaper.ts';
import type { EndpointRecord } from './endpoint-store.ts';
import { agentLimits } from './limits.ts';

export interface PodFacts extends AnnotatedPod {
  readonly uid: string;
}

export interface Shaper {
  apply(target: ShapedInterface, rates: BandwidthRates): void;
  read(target: ShapedInterface): AppliedBandwidth;
}

export interface ShapedInterface {
  readonly netns: string;
  readonly interfaceName: string;
}

export interface BandwidthReconcilerDeps {
  readonly shaper: Shaper;
  readonly endpoints: () => readonly EndpointRecord[];
  /** Keeps what is in force for the next agent. */
  readonly save: (record: EndpointRecord, limits: BandwidthLimits) => void;
  /** As the informer knows it; undefined before it is synced or after the pod was deleted. */
  readonly podOf: (record: EndpointRecord) => PodFacts | undefined;
  readonly defaultsOf: (namespace: string) => NamespaceDefaults;
  /** An endpoint was limited, whoever's it is. */
  readonly onLimited: () => void;
  readonly warnPod: (pod: PodFacts, reason: string, message: string) => void;
  readonly log: Logger;
}

export class BandwidthReconciler {
  readonly #deps: BandwidthReconcilerDeps;
  /** By endpoint id: the complaint that was told already. */
  readonly #told = new Map<number, string>();
  /** Whose limits the next sweep looks at first. */
  #turn = 0;

  constructor(deps: BandwidthReconcilerDeps) {
    this.#deps = deps;
  }

  /** What the interface of a pod is to have. Throws SluiceError invalid_resource for what the pod says wrongly. */
  desired(
    pod: PodFacts,
    {
      ifName,
      adopted,
      runtimeBandwidth,
      limits = {},
    }: Pick<EndpointRecord, 'ifName' | 'runtimeBandwidth'> & Partial<EndpointRecord>,
  ): BandwidthLimits {
    return limitsOf({
      pod,
      interfaceName: ifName,
      // A pod is adopted by the interface that has its addresses, whatever its name.
      primary: adopted === true || ifName === defaultInterface,
      runtime: runtimeBandwidth,
      defaults: this.#deps.defaultsOf(pod.namespace),
      inForce: limits,
    });
  }

  /** Puts the record's limits into the kernel; `before` is the endpoint as an earlier ADD made it. */
  apply(record: EndpointRecord, before?: EndpointRecord): void {
    if (!isLimited(record) && before === undefined) return;
    this.#shape(record, record.limits ?? {});
    if (!isLimited(record)) return;
    this.#deps.log.info({ endpoint: record.endpointId, pod: podName(record), ...record.limits }, 'bandwidth limited');
  }

  forget(record: EndpointRecord): void {
    this.#told.delete(record.endpointId);
  }

  /** Takes the endpoint's limits out of the kernel. */
  remove(record: EndpointRecord): void {
    if (isLimited(record)) this.#shape(record, {});
  }

  /** Brings every endpoint to what is asked for now; one failure does not keep the others. */
  run(): void {
    for (const record of this.#deps.endpoints()) {
      const pod = this.#deps.podOf(record);
      if (pod === undefined) continue;
      try {
        this.#reconcile(record, this.desired(pod, record));
        this.#told.delete(record.endpointId);
      } catch (error) {
        this.#complain(record, pod, error);
      }
    }
  }

  /** Limited endpoints whose turn it is in this sweep: a look takes about a millisecond each. */
  turn(): EndpointRecord[] {
    const limited = this.#deps.endpoints().filter(isLimited);
    const count = Math.min(limited.length, agentLimits.limitsPerSweep);
    const first = limited.length === 0 ? 0 : this.#turn % limited.length;
    this.#turn = first + count;
    return [...limited.slice(first), ...limited.slice(0, first)].slice(0, count);
  }

  /** Sentences where the kernel's limits differ from those in force. */
  check(record: EndpointRecord): string[] {
    if (record.limits === undefined) return [];
    const [wanted, found] = [ratesOf(record.limits), this.#deps.shaper.read(targetOf(record))];
    return sameRates(wanted, found) ? [] : [`bandwidth limits are ${show(found)} instead of ${show(wanted)}`];
  }

  /** Puts back what `check` finds; answers the findings. */
  repair(record: EndpointRecord): string[] {
    const findings = this.check(record);
    if (findings.length > 0) this.#shape(record, record.limits ?? {});
    return findings;
  }

  #reconcile(record: EndpointRecord, wanted: BandwidthLimits): void {
    if (record.limits !== undefined && sameLimits(record.limits, wanted)) return;
    try {
      this.#shape(record, wanted);
    } catch (error) {
      if (record.limits !== undefined) this.#shape(record, record.limits);
      throw error;
    }
    this.#deps.save(record, wanted);
    this.#deps.log.info({ endpoint: record.endpointId, pod: podName(record), ...wanted }, 'bandwidth limits changed');
  }

  #shape(record: EndpointRecord, limits: BandwidthLimits): void {
    this.#deps.shaper.apply(targetOf(record), ratesOf(limits));
    if (isLimited({ limits })) this.#deps.onLimited();
  }

  #complain(record: EndpointRecord, pod: PodFacts, error: unknown): void {
    const message = formatErrorChain(error);
    if (this.#told.get(record.endpointId) === message) return;
    this.#told.set(record.endpointId, message);
    const kept = `${message}; the limits stay ${show(ratesOf(record.limits ?? {}))}`;
    this.#deps.log.warn({ endpoint: record.endpointId, pod: podName(record) }, kept);
    this.#deps.warnPod(pod, hasErrorCode(error, 'invalid_resource') ? 'InvalidBandwidth' : 'BandwidthFailed', kept);
  }
}

function targetOf(record: EndpointRecord): ShapedInterface {
  return { netns: record.netns, interfaceName: record.ifName };
}

function isLimited({ limits }: Pick<EndpointRecord, 'limits'>): boolean {
  return limits?.ingress !== undefined || limits?.egress !== undefined;
}

function sameLimits(a: BandwidthLimits, b: BandwidthLimits): boolean {
  return bandwidthDirections.every(
    (direction) => a[direction]?.bps === b[direction]?.bps && a[direction]?.source === b[direction]?.source,
  );
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
