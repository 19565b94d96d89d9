/** A pod's status from what the kubelet knows of it. Pure. */
import type { ContainerRecord, PodRecord } from './pod-record.ts';
import type {
  Container,
  ContainerState,
  ContainerStatus,
  Pod,
  Condition,
  PodStatus,
  ContainerStateTerminated,
} from './pod-api.ts';
import { timestamp } from '../../core/timestamp.ts';

export interface StatusInput {
  readonly pod: Pod;
  readonly record: PodRecord;
  readonly nowMs: number;
  readonly hostIps: readonly string[];
  /** By container name: what the readiness and startup probes say. */
  readonly ready: (container: string) => boolean;
  readonly started: (container: string) => boolean;
  /** Why a container cannot be created, where that is so (CreateContainerConfigError …). */
  readonly creationFailure: (container: string) => { reason: string; message: string } | undefined;
  readonly sandboxReady: boolean;
}

export function isRunning(record: ContainerRecord | undefined): boolean {
  return record !== undefined && record.finishedAtMs === undefined;
}

export function shouldRestart(pod: Pod, record: ContainerRecord, isInit: boolean): boolean {
  const policy = pod.spec.restartPolicy ?? 'Always';
  if (policy === 'Never') return false;
  if (isInit || policy === 'OnFailure') return record.exitCode !== 0;
  return true;
}

/** When a container that has ended may start again, in milliseconds since 1970. */
export function restartAtMs(record: ContainerRecord): number {
  return (record.finishedAtMs ?? 0) + record.backoffMs;
}

export function podStatus(input: StatusInput): PodStatus {
  const { pod, record } = input;
  const inits = pod.spec.initContainers ?? [];
  const initialized = inits.every((container) => succeeded(record.containers[container.name]));
  const containerStatuses = pod.spec.containers.map((container) =>
    containerStatus(input, container, false, initialized),
  );
  const initStatuses = inits.map((container) => containerStatus(input, container, true, initialized));
  const phase = podPhase(input, initialized);
  const ended = phase === 'Succeeded' || phase === 'Failed';
  const ready = !ended && containerStatuses.every((status) => status.ready);
  const unready = containerStatuses.filter((status) => !status.ready).map((status) => status.name);
  const uninitialized = initStatuses.filter((status) => !status.ready).map((status) => status.name);
  const readyReason = ended
    ? { reason: phase === 'Succeeded' ? 'PodCompleted' : 'PodFailed' }
    : unreadyReason('ContainersNotReady', 'unready', unready);
  return {
    phase,
    hostIP: input.hostIps[0],
    hostIPs: input.hostIps.map((ip) => ({ ip })),
    ...(record.podIps.length === 0 ? {} : { podIP: record.podIps[0], podIPs: record.podIps.map((ip) => ({ ip })) }),
    startTime: timestamp(record.startTimeMs),
    conditions: [
      condition(input, 'PodReadyToStartContainers', input.sandboxReady && !ended),
      condition(
        input,
        'Initialized',
        initialized,
        ended ? { reason: 'PodCompleted' } : unreadyReason('ContainersNotInitialized', 'incomplete', uninitialized),
      ),
      condition(input, 'Ready', ready, readyReason),
      condition(input, 'ContainersReady', ready, readyReason),
      condition(input, 'PodScheduled', true),
    ],
    containerStatuses,
    ...(inits.length === 0 ? {} : { initContainerStatuses: initStatuses }),
    qosClass: qosClass(pod),
  };
}

function unreadyReason(
  reason: string,
  adjective: string,
  names: readonly string[],
): { reason: string; message: string } {
  return { reason, message: `containers with ${adjective} status: [${names.join(' ')}]` };
}

function podPhase(input: StatusInput, initialized: boolean): NonNullable<PodStatus['phase']> {
  const { pod, record } = input;
  const failedInit = (pod.spec.initContainers ?? []).some((container) => {
    const init = record.containers[container.name];
    return init !== undefined && !isRunning(init) && init.exitCode !== 0 && !shouldRestart(pod, init, true);
  });
  if (failedInit) return 'Failed';
  if (!initialized) return 'Pending';
  const records = pod.spec.containers.map((container) => record.containers[container.name]);
  if (records.some((each) => each === undefined)) return records.some(isRunning) ? 'Running' : 'Pending';
  const over = records.every((each) => each !== undefined && !isRunning(each) && !shouldRestart(pod, each, false));
  if (!over) return 'Running';
  return records.every(succeeded) ? 'Succeeded' : 'Failed';
}

function succeeded(record: ContainerRecord | undefined): boolean {
  return record?.finishedAtMs !== undefined && record.exitCode === 0;
}

function containerStatus(input: StatusInput, spec: Container, isInit: boolean, initialized: boolean): ContainerStatus {
  const record = input.record.containers[spec.name];
  const running = isRunning(record);
  const lastRun = record?.last;
  const waitsForRestart = record !== undefined && !running && shouldRestart(input.pod, record, isInit);
  const state = containerState(input, spec, isInit, initialized);
  // A run that ended and waits for its restart is the last one, and the state is CrashLoopBackOff.
  const last = waitsForRestart && 'waiting' in state ? record : lastRun;
  return {
    name: spec.name,
    image: spec.image ?? '',
    imageID: '',
    ...(record === undefined ? {} : { containerID: `sluice://${record.id}` }),
    ready: isInit ? succeeded(record) : running && input.started(spec.name) && input.ready(spec.name),
    started: running && input.started(spec.name),
    restartCount: record?.attempt ?? 0,
    state,
    lastState: last === undefined ? {} : { terminated: terminated(last) },
  };
}

function containerState(input: StatusInput, spec: Container, isInit: boolean, initialized: boolean): ContainerState {
  const { pod, record, nowMs } = input;
  const own = record.containers[spec.name];
  const failure = input.creationFailure(spec.name);
  if (failure !== undefined && !isRunning(own)) return { waiting: failure };
  if (own === undefined) {
    const waitsForInits = !isInit && !initialized;
    return { waiting: { reason: waitsForInits || isInit ? 'PodInitializing' : 'ContainerCreating' } };
  }
  if (isRunning(own)) return { running: { startedAt: timestamp(own.startedAtMs) } };
  if (shouldRestart(pod, own, isInit) && own.backoffMs > 0 && nowMs < restartAtMs(own)) {
    return { waiting: { reason: 'CrashLoopBackOff', message: backoffMessage(pod, own) } };
  }
  return { terminated: terminated(own) };
}

/** kubelet's text. */
export function backoffMessage(pod: Pod, record: ContainerRecord): string {
  const { name, namespace, uid } = pod.metadata;
  return `back-off ${formatDelay(record.backoffMs)} restarting failed container=${record.name} pod=${name}_${namespace}(${uid})`;
}

/** Go's time.Duration.String for whole seconds: 10s, 1m20s, 5m0s. */
function formatDelay(ms: number): string {
  const total = Math.round(ms / 1000);
  return total < 60 ? `${total}s` : `${Math.floor(total / 60)}m${total % 60}s`;
}

function terminated(record: Omit<ContainerRecord, 'last'>): ContainerStateTerminated {
  return {
    exitCode: record.exitCode ?? 0,
    reason: record.reason ?? (record.exitCode === 0 ? 'Completed' : 'Error'),
    ...(record.message === undefined ? {} : { message: record.message }),
    startedAt: timestamp(record.startedAtMs),
    finishedAt: timestamp(record.finishedAtMs ?? record.startedAtMs),
    containerID: `sluice://${record.id}`,
  };
}

function condition(
  input: StatusInput,
  type: string,
  holds: boolean,
  why: { reason?: string; message?: string } = {},
): Condition {
  const status = holds ? 'True' : 'False';
  const before = input.pod.status?.conditions?.find((each) => each.type === type);
  const same = before?.status === status && before.lastTransitionTime !== undefined;
  return {
    type,
    status,
    lastProbeTime: null,
    lastTransitionTime: same ? before.lastTransitionTime : timestamp(input.nowMs),
    ...(holds && why.reason !== 'PodCompleted' ? {} : why),
  };
}

function qosClass(pod: Pod): string {
  const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])];
  const lists = all.map(({ resources }) => ({
    limits: resources?.limits ?? {},
    requests: resources?.requests ?? resources?.limits ?? {},
  }));
  if (lists.every(({ limits, requests }) => Object.keys(limits).length === 0 && Object.keys(requests).length === 0))
    return 'BestEffort';
  const guaranteed = lists.every(({ limits, requests }) =>
    ['cpu', 'memory'].every((name) => limits[name] !== undefined && limits[name] === (requests[name] ?? limits[name])),
  );
  return guaranteed ? 'Guaranteed' : 'Burstable';
}
