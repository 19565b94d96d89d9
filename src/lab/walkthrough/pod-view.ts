/** The few fields of a Pod that the walkthrough needs. */
import type { PodView } from './cluster.ts';

export interface PodObject {
  readonly metadata?: { readonly name?: string; readonly namespace?: string; readonly deletionTimestamp?: unknown };
  readonly spec?: { readonly nodeName?: string };
  readonly status?: {
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

export function podView(pod: PodObject): PodView {
  const ready =
    pod.status?.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True') ?? false;
  return {
    namespace: pod.metadata?.namespace ?? 'default',
    name: pod.metadata?.name ?? '',
    ip: pod.status?.podIP,
    node: pod.spec?.nodeName,
    ready: ready && pod.metadata?.deletionTimestamp === undefined,
  };
}
