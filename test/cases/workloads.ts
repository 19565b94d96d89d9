/** Workloads of a case: all with the label app=NAME and one container that sleeps. */
import type { KubeObject } from '../../src/api/kubernetes.ts';
import type { GroupVersionResource } from '../../src/api/resources.ts';
import type { CaseSpace } from './bed.ts';

export interface WorkloadOptions {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly replicas?: number;
  readonly spec?: object;
}

export function podTemplate(
  name: string,
  { annotations, labels }: WorkloadOptions,
): { readonly metadata: object; readonly spec: object } {
  return {
    metadata: { labels: { app: name, ...labels }, ...(annotations && { annotations }) },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'c', image: 'none', command: ['sleep', '100000'] }],
    },
  };
}

export async function workload(
  c: CaseSpace,
  gvr: GroupVersionResource,
  name: string,
  options: WorkloadOptions = {},
): Promise<void> {
  const spec = {
    selector: { matchLabels: { app: name } },
    template: podTemplate(name, options),
    ...(gvr.kind === 'DaemonSet' ? {} : { replicas: options.replicas ?? 2 }),
    ...(gvr.kind === 'StatefulSet' ? { serviceName: name, podManagementPolicy: 'Parallel' } : {}),
    ...options.spec,
  };
  await c.kube.create(gvr, { metadata: { namespace: c.namespace, name }, spec } as KubeObject);
}
