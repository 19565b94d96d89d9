/**
 * The lab's kube-controller-manager and kube-scheduler: one level-based pass per kind, run again whenever anything
 * they look at has changed. They use the API like any other client, so they also work against a real kube-apiserver.
 */

import { setMaxListeners } from 'node:events';
import type { KubeObject, Pod } from '../../api/kubernetes.ts';
import { pods as podsGvr } from '../../api/resources.ts';
import type { Clock } from '../../core/clock.ts';
import { formatErrorChain } from '../../core/error.ts';
import type { Logger } from '../../core/log.ts';
import { BoundedRunner } from '../../core/runner.ts';
import type { KubeClient } from '../../kube/client.ts';
import { EventRecorder, referenceTo } from '../../kube/event-recorder.ts';
import { isConflict, isNotFound } from '../../kube/error.ts';
import { applyActions, type Action, type ActionContext } from './action.ts';
import { ClusterView } from './cluster-view.ts';
import { planDaemonSet } from './daemon-set.ts';
import { planDeployment } from './deployment.ts';
import { planEndpointSlices } from './endpoint-slice.ts';
import { planJob } from './job.ts';
import { planReplicaSet } from './replica-set.ts';
import { planScheduling, type Decision } from './scheduler.ts';
import { planStatefulSet } from './stateful-set.ts';
import { timestamp } from '../../core/timestamp.ts';

export interface WorkloadsOptions {
  readonly client: KubeClient;
  readonly log: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface Workloads {
  /** Resolves when everything has stopped after the signal was aborted. */
  readonly stopped: Promise<void>;
}

/** Gathers a burst of changes into one pass. */
const minIntervalMs = 20;
/** minReadySeconds and progress deadlines pass without any event. */
const maxIntervalMs = 2_000;

/** Resolves when the controllers run. */
export async function startWorkloads(given: WorkloadsOptions): Promise<Workloads> {
  const options = { ...given, signal: AbortSignal.any([given.signal]) };
  // One listener for each informer's and runner's wait; Node warns from the eleventh on.
  setMaxListeners(0, options.signal);
  const view = new ClusterView(options);
  const passes = [...controllerPasses(view, options), schedulerPass(view, options)];
  const runners = passes.map(({ name, run }) => {
    const runner: BoundedRunner = new BoundedRunner({
      ...options,
      name,
      run: async (signal) => {
        if (!(await run(signal))) runner.markDirty();
      },
      minIntervalMs,
      maxIntervalMs,
      maxBackoffMs: 5_000,
    });
    return runner;
  });
  view.onChange(() => runners.forEach((runner) => runner.markDirty()));
  const { stopped } = await view.start(options.signal);
  runners.forEach((runner) => runner.markDirty());
  const all = [stopped, ...runners.map((runner) => runner.start(options.signal))];
  return { stopped: Promise.all(all).then(() => undefined) };
}

/** False asks for another pass: something changed in between. */
interface Pass {
  readonly name: string;
  readonly run: (signal: AbortSignal) => Promise<boolean>;
}

function controllerPasses(view: ClusterView, options: WorkloadsOptions): Pass[] {
  const { clock } = options;
  const space = (object: KubeObject): string => object.metadata?.namespace ?? '';
  const pass = <T extends KubeObject>(
    component: string,
    list: () => readonly T[],
    plan: (object: T) => Action[],
  ): Pass => {
    const recorder = new EventRecorder({ ...options, component });
    const context: ActionContext = {
      client: options.client,
      recorder,
      observe: (gvr, object) => view.observe(gvr, object),
      expectDeleted: (object) => view.expectDeleted(object),
    };
    return { name: component, run: (signal) => reconcileEach(context, list(), plan, signal) };
  };
  return [
    pass(
      'deployment-controller',
      () => view.deployments.list(),
      (deployment) => {
        return planDeployment(
          deployment,
          view.replicaSets.list(space(deployment)),
          view.podsIn(space(deployment)),
          clock.nowMs(),
        );
      },
    ),
    pass(
      'replicaset-controller',
      () => view.replicaSets.list(),
      (set) => planReplicaSet(set, view.podsIn(space(set)), clock.nowMs()),
    ),
    pass(
      'statefulset-controller',
      () => view.statefulSets.list(),
      (set) => planStatefulSet(set, view.podsIn(space(set))),
    ),
    pass(
      'daemonset-controller',
      () => view.daemonSets.list(),
      (set) => planDaemonSet(set, view.podsIn(space(set)), view.nodes.list()),
    ),
    pass(
      'job-controller',
      () => view.jobs.list(),
      (job) => planJob(job, view.podsIn(space(job)), clock.nowMs()),
    ),
    pass(
      'endpointslice-controller',
      () => view.services.list(),
      (service) => {
        return planEndpointSlices(service, view.podsIn(space(service)), view.endpointSlices.list(space(service)));
      },
    ),
  ];
}

/** One object's failure must not hold up the others; the first is thrown in the end, so that the runner backs off. */
async function reconcileEach<T extends KubeObject>(
  context: ActionContext,
  objects: readonly T[],
  plan: (object: T) => Action[],
  signal: AbortSignal,
): Promise<boolean> {
  const failures: unknown[] = [];
  let complete = true;
  for (const object of objects) {
    try {
      complete = (await applyActions(context, plan(object), signal)) && complete;
    } catch (error) {
      signal.throwIfAborted();
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
  return complete;
}

function schedulerPass(view: ClusterView, options: WorkloadsOptions): Pass {
  const recorder = new EventRecorder({ ...options, component: 'default-scheduler' });
  const assumed = new Map<string, string>();
  view.pods.on('delete', ({ metadata }) => assumed.delete(metadata?.uid ?? ''));
  return {
    name: 'default-scheduler',
    run: async (signal) => {
      let complete = true;
      for (const decision of planScheduling(view.podsIn(), view.nodes.list(), assumed)) {
        complete = (await carryOut(decision, { ...options, recorder, assumed, signal })) && complete;
      }
      return complete;
    },
  };
}

interface SchedulerContext extends WorkloadsOptions {
  readonly recorder: EventRecorder;
  readonly assumed: Map<string, string>;
}

async function carryOut(decision: Decision, context: SchedulerContext): Promise<boolean> {
  const { pod, nodeName, reason = '' } = decision;
  try {
    if (nodeName === undefined) await markUnschedulable(pod, reason, context);
    else await bind(pod, nodeName, context);
    return true;
  } catch (error) {
    context.signal.throwIfAborted();
    if (isConflict(error) || isNotFound(error)) return false;
    context.log.error(
      { pod: `${pod.metadata?.namespace}/${pod.metadata?.name}` },
      `scheduling failed: ${formatErrorChain(error)}`,
    );
    throw error;
  }
}

async function bind(
  pod: Pod,
  nodeName: string,
  { client, recorder, assumed, signal }: SchedulerContext,
): Promise<void> {
  const { namespace, name, uid = '' } = pod.metadata ?? {};
  const binding = {
    apiVersion: 'v1',
    kind: 'Binding',
    metadata: { namespace, name, uid },
    target: { apiVersion: 'v1', kind: 'Node', name: nodeName },
  };
  await client.create(podsGvr, binding, { subresource: 'binding', signal });
  assumed.set(uid, nodeName);
  const message = `Successfully assigned ${namespace}/${name} to ${nodeName}`;
  recorder.record({ about: referenceTo(podsGvr, pod), type: 'Normal', reason: 'Scheduled', message });
}

/** Told once per reason: the condition shows whether it was. */
async function markUnschedulable(pod: Pod, message: string, context: SchedulerContext): Promise<void> {
  const before = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
  if (before?.status === 'False' && before.message === message) return;
  const lastTransitionTime = timestamp(context.clock.nowMs());
  const condition = {
    type: 'PodScheduled',
    status: 'False',
    reason: 'Unschedulable',
    message,
    lastTransitionTime,
  } as const;
  const others = (pod.status?.conditions ?? []).filter(({ type }) => type !== 'PodScheduled');
  const { namespace, name = '', resourceVersion } = pod.metadata ?? {};
  const body = { metadata: { resourceVersion }, status: { conditions: [...others, condition] } };
  await context.client.patch(
    podsGvr,
    { namespace, name },
    { type: 'merge', body },
    { subresource: 'status', signal: context.signal },
  );
  context.recorder.record({ about: referenceTo(podsGvr, pod), type: 'Warning', reason: 'FailedScheduling', message });
}
