/**
 * Which limit a pod's interface has, of all that were asked for. Per direction, the first that says something wins:
 *
 *   the pod's first interface   the pod's annotation · runtimeConfig.bandwidth of ADD · the namespace's annotation
 *   any other                   `bandwidth` of its network selection · runtimeConfig.bandwidth of ADD
 */
import type { BandwidthSource } from '../api/agent-api.ts';
import type { CniBandwidth } from '../api/cni.ts';
import { additionalNetworks, defaultInterface } from '../api/network-selection.ts';
import { multusAnnotations } from '../api/spider.ts';
import {
  bandwidthAnnotations,
  bandwidthDirections,
  invalidRate,
  parseRate,
  rateOf,
  type BandwidthDirection,
} from './bandwidth-rate.ts';

/** In bits per second; undefined: not limited. */
export interface BandwidthRates {
  readonly ingressBps?: number | undefined;
  readonly egressBps?: number | undefined;
}

export interface BandwidthLimit {
  readonly bps: number;
  readonly source: BandwidthSource;
}

/** Of one interface; a direction that is not there is not limited. */
export type BandwidthLimits = Readonly<Partial<Record<BandwidthDirection, BandwidthLimit>>>;

export interface AnnotatedPod {
  readonly namespace: string;
  readonly name: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** A namespace's default; `malformed` leaves what is in force. */
export type NamespaceDefaults = Readonly<Partial<Record<BandwidthDirection, number | 'malformed'>>>;

export interface LimitQuestion {
  readonly pod: AnnotatedPod;
  readonly interfaceName: string;
  /** The interface that the pod's own addresses are on. */
  readonly primary: boolean;
  readonly runtime: BandwidthRates;
  readonly defaults: NamespaceDefaults;
  readonly inForce: BandwidthLimits;
}

/** Throws SluiceError invalid_resource for what the pod itself says wrongly; a namespace cannot break its pods. */
export function limitsOf(question: LimitQuestion): BandwidthLimits {
  const { pod, primary, interfaceName, runtime, defaults, inForce } = question;
  const own = primary ? podLimits(pod) : selectionLimits(pod, interfaceName);
  const limits = bandwidthDirections.flatMap((direction): [BandwidthDirection, BandwidthLimit][] => {
    const given = runtime[`${direction}Bps`];
    const fromRuntime: BandwidthLimit | undefined = given === undefined ? undefined : { bps: given, source: 'runtime' };
    const fallback = primary ? namespaceLimit(defaults[direction], inForce[direction]) : undefined;
    const limit = own[direction] ?? fromRuntime ?? fallback;
    return limit === undefined ? [] : [[direction, limit]];
  });
  return Object.fromEntries(limits);
}

/** What the pod says by its annotations of an interface; `runtimeConfig` then repeats it at ADD, and must not outlive it. */
export function ownLimits(pod: AnnotatedPod, interfaceName: string): BandwidthLimits {
  return interfaceName === defaultInterface ? podLimits(pod) : selectionLimits(pod, interfaceName);
}

export function ratesOf(limits: BandwidthLimits): BandwidthRates {
  return { ingressBps: limits.ingress?.bps, egressBps: limits.egress?.bps };
}

/**
 * runtimeConfig.bandwidth without the bursts: containerd always fills in 2^32-1 and dockershim 2^31-1 bits, which would
 * leave the first second unlimited (kubernetes#90838). A rate of 0 means none, as in the `bandwidth` plugin. What repeats
 * the pod's own annotations is left out: removing the annotation removes the limit.
 */
export function runtimeBandwidth(bandwidth: CniBandwidth | undefined, own: BandwidthLimits): BandwidthRates {
  const rate = (direction: BandwidthDirection): number | undefined =>
    own[direction] === undefined ? bandwidth?.[`${direction}Rate`] || undefined : undefined;
  return { ingressBps: rate('ingress'), egressBps: rate('egress') };
}

function podLimits(pod: AnnotatedPod): BandwidthLimits {
  return eachDirection((direction) => {
    const annotation = bandwidthAnnotations[direction];
    const text = pod.annotations[annotation];
    if (text === undefined) return undefined;
    const { bps, problem } = parseRate(text);
    if (problem !== undefined) throw invalidRate(pod, annotation, problem);
    return { bps, source: 'pod-annotation' };
  });
}

/** Multus' BandwidthEntry: whole bits per second, 0 is none, bursts ours. */
function selectionLimits(pod: AnnotatedPod, interfaceName: string): BandwidthLimits {
  const selection = additionalNetworks(pod).find((network) => network.interface === interfaceName);
  return eachDirection((direction) => {
    const value = selection?.bandwidth?.[`${direction}Rate`];
    if (value === undefined || value === 0) return undefined;
    const { bps, problem } = rateOf(value);
    if (problem !== undefined)
      throw invalidRate(pod, multusAnnotations.networks, `${direction}Rate of ${interfaceName}: ${problem}`);
    return { bps, source: 'network-selection' };
  });
}

/** Nobody's limit goes, or comes, because somebody mistyped a default. */
function namespaceLimit(
  value: NamespaceDefaults[BandwidthDirection],
  inForce: BandwidthLimit | undefined,
): BandwidthLimit | undefined {
  if (value === 'malformed') return inForce?.source === 'namespace-annotation' ? inForce : undefined;
  return value === undefined ? undefined : { bps: value, source: 'namespace-annotation' };
}

function eachDirection(limit: (direction: BandwidthDirection) => BandwidthLimit | undefined): BandwidthLimits {
  const found = bandwidthDirections.flatMap((direction) => {
    const one = limit(direction);
    return one === undefined ? [] : [[direction, one] as const];
  });
  return Object.fromEntries(found);
}
