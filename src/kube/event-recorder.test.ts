import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Event, Pod } from '../api/kubernetes.ts';
import { pods } from '../api/resources.ts';
import { silentLogger } from '../core/log.ts';
import { ManualClock } from '../core/manual-clock.ts';
import { createKubeClient, type KubeClient } from './client.ts';
import { EventRecorder, referenceTo, type EventNote } from './event-recorder.ts';
import { TestApi } from './test-api.ts';

describe('EventRecorder', () => {
  let api: TestApi;
  let client: KubeClient;
  let clock: ManualClock;
  let recorder: EventRecorder;
  const warnings: string[] = [];

  beforeEach(async () => {
    api = await TestApi.start();
    api.intercept = ({ body }) => ({ body });
    client = createKubeClient(api.kubeConfig);
    clock = new ManualClock(Date.parse('2026-01-02T03:04:05.678Z'));
    warnings.length = 0;
    const log = { ...silentLogger, warn: (_fields: object, message: string) => warnings.push(message) };
    recorder = new EventRecorder({ client, component: 'sluice-agent', host: 'node-a', clock, log, random: () => 0.5 });
  });
  afterEach(async () => {
    client.close();
    await api[Symbol.asyncDispose]();
  });

  const pod: Pod = { metadata: { namespace: 'demo', name: 'web-1', uid: 'u1', resourceVersion: '5' } };
  const note: EventNote = {
    about: referenceTo(pods, pod),
    type: 'Warning',
    reason: 'PolicyInvalid',
    message: 'bad cidr',
  };

  it('writes an event as kubectl describe finds it', async () => {
    recorder.record(note);
    await recorder.flush();
    const [request] = api.requests;
    assert.equal(`${request?.method} ${request?.path}`, 'POST /api/v1/namespaces/demo/events');
    const { metadata, ...event } = request?.body as Event;
    assert.match(metadata?.name ?? '', /^web-1\.[0-9a-f]+$/);
    assert.deepEqual(event, {
      apiVersion: 'v1',
      kind: 'Event',
      involvedObject: {
        apiVersion: 'v1',
        kind: 'Pod',
        namespace: 'demo',
        name: 'web-1',
        uid: 'u1',
        resourceVersion: '5',
      },
      type: 'Warning',
      reason: 'PolicyInvalid',
      message: 'bad cidr',
      source: { component: 'sluice-agent', host: 'node-a' },
      reportingComponent: 'sluice-agent',
      reportingInstance: 'node-a',
      count: 1,
      firstTimestamp: '2026-01-02T03:04:05Z',
      lastTimestamp: '2026-01-02T03:04:05Z',
    });
  });

  it('counts repetitions on the same event, and starts another for another message', async () => {
    recorder.record(note);
    await recorder.flush();
    await clock.advance(10_000);
    recorder.record({ ...note, about: { ...note.about, resourceVersion: '6' } });
    recorder.record({ ...note, message: 'other' });
    await recorder.flush();
    const name = (api.requests[0]?.body as Event).metadata?.name;
    assert.deepEqual(
      api.requests.map(({ method }) => method),
      ['POST', 'PATCH', 'POST'],
    );
    assert.equal(api.requests[1]?.path, `/api/v1/namespaces/demo/events/${name}`);
    assert.deepEqual(api.requests[1]?.body, { count: 2, lastTimestamp: '2026-01-02T03:04:15Z' });
  });

  it('writes a burst in few requests, with the full count', async () => {
    for (let i = 0; i < 1000; i++) recorder.record(note);
    await recorder.flush();
    assert.ok(api.requests.length <= 2, `${api.requests.length} requests`);
    assert.equal((api.requests.at(-1)?.body as Event).count, 1000);
  });

  it('starts anew when the server has dropped the event', async () => {
    recorder.record(note);
    await recorder.flush();
    api.intercept = ({ method, body }) =>
      method === 'PATCH' ? { status: 404, body: { reason: 'NotFound' } } : { body };
    recorder.record(note);
    await recorder.flush();
    assert.deepEqual(
      api.requests.map(({ method }) => method),
      ['POST', 'PATCH', 'POST'],
    );
    assert.equal((api.requests[2]?.body as Event).count, 1);
  });

  it('puts events about cluster-scoped objects into default, and shortens endless messages', async () => {
    recorder.record({ ...note, about: { kind: 'Node', name: 'node-a' }, message: 'x'.repeat(5000) });
    await recorder.flush();
    assert.equal(api.requests[0]?.path, '/api/v1/namespaces/default/events');
    assert.equal((api.requests[0]?.body as Event).message?.length, 1024);
  });

  it('writes what all nodes say as one event: whoever comes second only says when', async () => {
    recorder.record({ ...note, shared: true });
    await recorder.flush();
    const created = api.requests[0]?.body as Event;
    assert.equal(created.source?.host, undefined);
    const other = new EventRecorder({ client, component: 'sluice-agent', host: 'node-b', clock, log: silentLogger });
    api.intercept = ({ method, body }) =>
      method === 'POST' ? { status: 409, body: { kind: 'Status', code: 409, reason: 'AlreadyExists' } } : { body };
    other.record({ ...note, shared: true });
    await other.flush();
    const [, second, third] = api.requests;
    assert.equal((second?.body as Event).metadata?.name, created.metadata?.name);
    assert.equal(
      `${third?.method} ${third?.path}`,
      `PATCH /api/v1/namespaces/demo/events/${created.metadata?.name ?? ''}`,
    );
    assert.deepEqual(Object.keys(third?.body as object), ['lastTimestamp']);
  });

  it('logs what it can not write, and goes on', async () => {
    let failing = true;
    api.intercept = ({ body }) => (failing ? { status: 403, body: { message: 'no' } } : { body });
    recorder.record(note);
    await recorder.flush();
    failing = false;
    recorder.record(note);
    await recorder.flush();
    assert.deepEqual(warnings, [
      'event not written: create Event demo/' + ((api.requests[0]?.body as Event).metadata?.name ?? '') + ': no',
    ]);
    assert.equal(api.requests.length, 2);
  });
});
