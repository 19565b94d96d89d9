/** A bandwidth limit as an annotation says it: bits per second as a Kubernetes quantity. */
import { SluiceError } from '../core/error.ts';
import { parseQuantity } from '../core/quantity.ts';

export const bandwidthDirections = ['ingress', 'egress'] as const;
/** Ingress is towards the pod. */
export type BandwidthDirection = (typeof bandwidthDirections)[number];

/** On a Pod, and as a default on its Namespace. */
export const bandwidthAnnotations: Readonly<Record<BandwidthDirection, string>> = {
  ingress: 'kubernetes.io/ingress-bandwidth',
  egress: 'kubernetes.io/egress-bandwidth',
};

/** k8s.io/kubernetes/pkg/util/bandwidth: 1 kbit/s to 1 Pbit/s. */
const minBps = 1_000n;
const maxBps = 1_000_000_000_000_000n;
export const rateRemedy =
  'write bits per second as a Kubernetes quantity between 1k and 1P, for example 100M for 100 Mbit/s';

export type ParsedRate =
  { readonly bps: number; readonly problem?: undefined } | { readonly bps?: undefined; readonly problem: string };

export function parseRate(text: string): ParsedRate {
  return checked(parseQuantity(text), JSON.stringify(text));
}

/** Of a number, as in a network selection. */
export function rateOf(value: number): ParsedRate {
  return checked(Number.isSafeInteger(value) ? BigInt(value) : undefined, String(value));
}

/** The words for what is out of range are Kubernetes' own: people search their logs for them. */
function checked(bps: bigint | undefined, text: string): ParsedRate {
  if (bps === undefined) return { problem: `${text} is not a quantity` };
  if (bps < minBps) return { problem: `${text} resource is unreasonably small (< 1kbit)` };
  if (bps > maxBps) return { problem: `${text} resource is unreasonably large (> 1Pbit)` };
  return { bps: Number(bps) };
}

/** The pod, the field, the value, and what to write instead. */
export function invalidRate(pod: { namespace: string; name: string }, field: string, problem: string): SluiceError {
  return new SluiceError({
    ...{ code: 'invalid_resource', operation: 'read bandwidth of', object: `pod ${pod.namespace}/${pod.name}` },
    what: `metadata.annotations[${field}]: ${problem}`,
    remedy: rateRemedy,
  });
}
