/** Events about Kubernetes objects, as the agent tells them. */
import { nodes, pods } from '../api/resources.ts';
import type { EventRecorder } from '../kube/event-recorder.ts';
import type { PodRef } from './cluster-view.ts';

/** The Node's own name is what the kubelet writes as uid too, so that `kubectl describe node` finds it. */
export function warnNode(events: EventRecorder, name: string, reason: string, message: string): void {
  const about = { apiVersion: 'v1', kind: nodes.kind, name, uid: name };
  events.record({ about, type: 'Warning', reason, message });
}

export function warnPod(events: EventRecorder, pod: PodRef, reason: string, message: string): void {
  recordOnPod(events, 'Warning', pod, reason, message);
}

export function recordOnPod(
  events: EventRecorder,
  type: 'Normal' | 'Warning',
  pod: PodRef,
  reason: string,
  message: string,
): void {
  const { namespace, name, uid } = pod;
  events.record({
    about: { apiVersion: 'v1', kind: pods.kind, namespace, name, uid },
    ...{ type, reason, message },
  });
}
