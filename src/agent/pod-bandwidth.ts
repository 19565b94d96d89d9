/** What a pod's annotations ask for, in bits per second. */
import type { CniBandwidth } from '../api/cni.ts';
import { SluiceError } from '../core/error.ts';
import { parseQuantity } from '../core/quantity.ts';

export const ingressBandwidthAnnotation = 'kubernetes.io/ingress-bandwidth';
export const egressBandwidthAnnotation = 'kubernetes.io/egress-bandwidth';

/** Undefined: not limited. Ingress is towards the pod. */
export interface BandwidthRates {
  readonly ingressBps?: number | undefined;
  readonly egressBps?: number | undefined;
}

/** k8s.io/kubernetes/pkg/util/bandwidth: 1 kbit/s to 1 Pbit/s. */
const minBps = 1_000n;
const maxBps = 1_000_000_000_000_000n;

/** Reads both annotations; throws SluiceError invalid_resource with the pod, the field and what to write instead. */
export function podBandwidth(pod: {
  readonly namespace: string;
  readonly name: string;
  readonly annotations: Readonly<Record<string, string>>;
}): BandwidthRates {
  return {
    ingressBps: parseRate(pod, ingressBandwidthAnnotation),
    egressBps: parseRate(pod, egressBandwidthAnnotation),
  };
}

/** An annotation beats the runtime's value; the annotation is what can change while the pod runs. */
export function mergeBandwidth(annotated: BandwidthRates, runtime: BandwidthRates): BandwidthRates {
  return {
    ingressBps: annotated.ingressBps ?? runtime.ingressBps,
    egressBps: annotated.egressBps ?? runtime.egressBps,
  };
}

/**
 * runtimeConfig.bandwidth without the bursts: containerd always fills in 2^32-1 and dockershim 2^31-1 bits, which would
 * leave the first second unlimited (kubernetes#90838). A rate of 0 means none, as in the `bandwidth` plugin.
 */
export function runtimeBandwidth(bandwidth: CniBandwidth | undefined): BandwidthRates {
  const rate = (bps: number | undefined): number | undefined => (bps === undefined || bps === 0 ? undefined : bps);
  return { ingressBps: rate(bandwidth?.ingressRate), egressBps: rate(bandwidth?.egressRate) };
}

function parseRate(pod: Parameters<typeof podBandwidth>[0], annotation: string): number | undefined {
  const text = pod.annotations[annotation];
  if (text === undefined) return undefined;
  const bps = parseQuantity(text);
  if (bps === undefined) throw invalid(pod, annotation, text, 'is not a quantity');
  if (bps < minBps) throw invalid(pod, annotation, text, 'resource is unreasonably small (< 1kbit)');
  if (bps > maxBps) throw invalid(pod, annotation, text, 'resource is unreasonably large (> 1Pbit)');
  return Number(bps);
}

function invalid(pod: Parameters<typeof podBandwidth>[0], annotation: string, text: string, what: string): SluiceError {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'read bandwidth of',
    object: `pod ${pod.namespace}/${pod.name}`,
    what: `metadata.annotations[${annotation}]: ${JSON.stringify(text)} ${what}`,
    remedy: 'write bits per second as a Kubernetes quantity between 1k and 1P, for example 100M for 100 Mbit/s',
  });
}
