import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { commandLine, containerEnvironment, expandReferences, type EnvSources } from './container-spec.ts';
import type { Container, Pod } from './pod-api.ts';
import type { ContainerRecord, PodRecord } from './pod-record.ts';
import { podStatus } from './pod-status.ts';

const pod: Pod = {
  metadata: { name: 'web-1', namespace: 'demo', uid: 'u1', labels: { app: 'web' } },
  spec: { nodeName: 'node1', containers: [] },
};
const sources: EnvSources = {
  podIps: ['10.0.0.1', 'fd00::1'],
  hostIps: ['172.51.0.11'],
  configMap: (name) => (name === 'settings' ? { color: 'blue' } : undefined),
  secret: () => undefined,
};
const container = (fields: Partial<Container>): Container => ({ name: 'c', image: 'i', ...fields });

describe('a container’s environment', () => {
  it('resolves the downward API, config maps and earlier variables', () => {
    const env = containerEnvironment(
      pod,
      container({
        envFrom: [{ prefix: 'CFG_', configMapRef: { name: 'settings' } }],
        env: [
          { name: 'A', value: '1' },
          { name: 'B', value: '$(A)-$(UNKNOWN)-$$(A)' },
          { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
          { name: 'APP', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
          { name: 'COLOR', valueFrom: { configMapKeyRef: { name: 'settings', key: 'color' } } },
          { name: 'NONE', valueFrom: { configMapKeyRef: { name: 'other', key: 'x', optional: true } } },
        ],
      }),
      sources,
    );
    const { A, B, IP, APP, COLOR, CFG_color, NONE, HOSTNAME } = env;
    const expected = {
      A: '1',
      B: '1-$(UNKNOWN)-$(A)',
      IP: '10.0.0.1',
      APP: 'web',
      COLOR: 'blue',
      CFG_color: 'blue',
      NONE: undefined,
      HOSTNAME: 'web-1',
    };
    assert.deepEqual({ A, B, IP, APP, COLOR, CFG_color, NONE, HOSTNAME }, expected);
  });

  it('names the object that is missing', () => {
    const env = [{ name: 'X', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } }];
    assert.throws(() => containerEnvironment(pod, container({ env }), sources), /secret "s" not found/);
  });

  it('has no command line when the spec has neither command nor args', () => {
    assert.equal(commandLine(container({}), {}), undefined);
    assert.deepEqual(commandLine(container({ command: ['echo'], args: ['$(A)'] }), { A: 'x' }), ['echo', 'x']);
    assert.equal(expandReferences('$$$(A)', { A: 'x' }), '$x');
  });
});

describe('a pod’s status', () => {
  const run = (fields: Partial<ContainerRecord>): ContainerRecord => ({
    name: 'c',
    attempt: 0,
    id: 'id',
    command: ['x'],
    env: {},
    startedAtMs: 1_000,
    backoffMs: 0,
    ...fields,
  });
  const status = (restartPolicy: 'Always' | 'OnFailure' | 'Never', record?: ContainerRecord, nowMs = 5_000) => {
    const podRecord: PodRecord = {
      uid: 'u1',
      namespace: 'demo',
      name: 'web-1',
      startTimeMs: 0,
      podIps: ['10.0.0.1'],
      containers: record === undefined ? {} : { c: record },
    };
    return podStatus({
      pod: { ...pod, spec: { containers: [container({})], restartPolicy } },
      record: podRecord,
      nowMs,
      hostIps: ['172.51.0.11'],
      sandboxReady: true,
      ready: () => true,
      started: () => true,
      creationFailure: () => undefined,
    });
  };
  const state = (of: ReturnType<typeof status>) => of.containerStatuses?.[0]?.state;

  it('is Pending before the first start and Running after', () => {
    assert.equal(status('Always').phase, 'Pending');
    assert.deepEqual(state(status('Always')), { waiting: { reason: 'ContainerCreating' } });
    const running = status('Always', run({}));
    assert.equal(running.phase, 'Running');
    assert.equal(running.conditions?.find(({ type }) => type === 'Ready')?.status, 'True');
    assert.equal(running.podIP, '10.0.0.1');
  });

  it('ends by restart policy and exit code', () => {
    const over = (exitCode: number) => run({ finishedAtMs: 2_000, exitCode });
    assert.equal(status('Never', over(0)).phase, 'Succeeded');
    assert.equal(status('Never', over(1)).phase, 'Failed');
    assert.equal(status('OnFailure', over(0)).phase, 'Succeeded');
    assert.equal(status('OnFailure', over(1)).phase, 'Running');
    assert.equal(status('Always', over(0)).phase, 'Running');
  });

  it('shows CrashLoopBackOff while the back-off lasts, with the last run beside it', () => {
    const crashed = status('Always', run({ attempt: 1, finishedAtMs: 4_000, exitCode: 3, backoffMs: 80_000 }));
    assert.deepEqual(state(crashed), {
      waiting: {
        reason: 'CrashLoopBackOff',
        message: 'back-off 1m20s restarting failed container=c pod=web-1_demo(u1)',
      },
    });
    const last = crashed.containerStatuses?.[0]?.lastState;
    assert.equal(last?.terminated?.exitCode, 3);
    assert.equal(crashed.containerStatuses?.[0]?.restartCount, 1);
  });
});
