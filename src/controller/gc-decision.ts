import type { Pod } from '../api/kubernetes.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { AllocationRecord } from '../ipam/allocated-ips.ts';
import { isPodAlive } from '../ipam/pod.ts';

/**
 * What becomes of a pool's record, from what is known of its pod. No I/O: asked once of the copies, to find what may be
 * due, and again of what the API server says, before anything is released. docs/reference/garbage-collection.md has
 * the table.
 */

export interface GcFlags {
  /** Added to each deadline. */
  readonly additionalDelayMs: number;
  readonly terminatingOnReadyNode: boolean;
  readonly terminatingOnNotReadyNode: boolean;
  readonly runningWithoutIps: boolean;
}

export interface GcFacts {
  readonly record: AllocationRecord;
  /** The pod of the record's name, whatever its UID. */
  readonly pod: Pod | undefined;
  readonly endpoint: SpiderEndpoint | undefined;
  /** Undefined: the addresses go with the pod. Else whether StatefulSet or virtual machine still want it. */
  readonly isWanted: boolean | undefined;
  /** False also when the node is gone. */
  readonly isNodeReady: boolean;
  readonly nowMs: number;
}

export type GcDecision =
  | { readonly action: 'keep'; readonly reason: string }
  /** Release when it is still so then. */
  | { readonly action: 'wait'; readonly untilMs: number; readonly reason: string }
  | { readonly action: 'release'; readonly reason: string };

export function decideRecord(facts: GcFacts, flags: GcFlags): GcDecision {
  const { record, pod, isWanted } = facts;
  if (pod === undefined) {
    return isWanted === true ? keep('its workload still wants it') : release('the pod is gone');
  }
  if (pod.metadata?.uid !== record.podUid) return ofAnotherPod(pod, isWanted);
  if (isWanted === true) return keep('its workload still wants it');
  if (pod.metadata.deletionTimestamp) return ofTerminating(pod, facts, flags);
  if (!isPodAlive(pod)) {
    const untilMs = endedMs(pod) + gracePeriodMs(pod) + flags.additionalDelayMs;
    return due(untilMs, facts.nowMs, 'the pod has ended');
  }
  const isRunningWithoutIps = pod.status?.phase === 'Running' && (pod.status.podIPs ?? []).length === 0;
  if (isRunningWithoutIps && flags.runningWithoutIps && isWanted === undefined)
    return release('the pod runs and has no address');
  // Which of its records are stale the agent of its node finds out (src/cni/ipam-stale.ts): it knows what is being added just now.
  return keep('the pod lives');
}

/** A pod of that name, but not the one that got the address. */
function ofAnotherPod(pod: Pod, isWanted: boolean | undefined): GcDecision {
  const hasAddresses = (pod.status?.podIPs ?? []).length > 0;
  if (isWanted === true && !hasAddresses) return keep('the next pod of the name will take it over');
  return release('the pod is gone, another has its name');
}

function ofTerminating(pod: Pod, { isNodeReady, nowMs }: GcFacts, flags: GcFlags): GcDecision {
  const isOn = isNodeReady ? flags.terminatingOnReadyNode : flags.terminatingOnNotReadyNode;
  if (!isOn) return keep(`the pod is going on a node that is ${isNodeReady ? '' : 'not '}ready`);
  const deletedMs = Date.parse(pod.metadata?.deletionTimestamp ?? '');
  const untilMs = deletedMs + gracePeriodMs(pod) + flags.additionalDelayMs;
  return due(untilMs, nowMs, 'the grace period of the deleted pod is over');
}

function due(untilMs: number, nowMs: number, reason: string): GcDecision {
  return nowMs >= untilMs ? release(reason) : { action: 'wait', untilMs, reason };
}

function gracePeriodMs({ metadata, spec }: Pod): number {
  return (metadata?.deletionGracePeriodSeconds ?? spec?.terminationGracePeriodSeconds ?? 30) * 1000;
}

/** When the last container ended; the beginning of time for a pod that never ran one, such as an evicted one. */
function endedMs({ status }: Pod): number {
  const ends = (status?.containerStatuses ?? []).map(({ state }) => Date.parse(state?.terminated?.finishedAt ?? ''));
  return Math.max(0, ...ends.filter((end) => !Number.isNaN(end)));
}

function keep(reason: string): GcDecision {
  return { action: 'keep', reason };
}

function release(reason: string): GcDecision {
  return { action: 'release', reason };
}
