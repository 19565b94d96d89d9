import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { KubeObject, Pod } from '../api/kubernetes.ts';
import { pods } from '../api/resources.ts';
import type { Clock } from '../core/clock.ts';
import { systemClock } from '../core/clock.ts';
import { silentLogger } from '../core/log.ts';
import { createKubeClient, type KubeClient } from './client.ts';
import { Informer, type InformerOptions } from './informer.ts';
import { eventually, TestApi } from './test-api.ts';

describe('Informer', () => {
  let api: TestApi;
  let client: KubeClient;
  let stop: AbortController;
  let stopped: Promise<void>;
  let seen: string[];
  let pausesMs: number[];

  beforeEach(async () => {
    api = await TestApi.start();
    client = createKubeClient(api.kubeConfig);
    stop = new AbortController();
    seen = [];
    pausesMs = [];
  });
  afterEach(async () => {
    stop.abort();
    await stopped;
    client.close();
    await api[Symbol.asyncDispose]();
  });

  /** Pauses are recorded and cut to 2 ms. */
  const impatient: Clock = {
    ...systemClock,
    sleep: (ms, signal) => {
      pausesMs.push(ms);
      return systemClock.sleep(2, signal);
    },
  };

  function start(options: Partial<InformerOptions<Pod>> = {}): Informer<Pod> {
    const informer = new Informer<Pod>({
      client,
      gvr: pods,
      log: silentLogger,
      clock: impatient,
      random: () => 0,
      ...options,
    });
    const name = (object: KubeObject): string => `${object.metadata?.name}@${object.metadata?.resourceVersion}`;
    informer.on('add', (object) => seen.push(`+${name(object)}`));
    informer.on('update', (object, old) => seen.push(`~${name(object)} was ${old.metadata?.resourceVersion}`));
    informer.on('delete', (object) => seen.push(`-${object.metadata?.name}`));
    stopped = informer.start(stop.signal);
    return informer;
  }

  const listCount = (): number => api.requests.filter(({ query }) => !query.has('watch')).length;
  const watching = (): Promise<void> => eventually('a watch is open', () => api.openWatches === 1);

  it('lists, then follows', async () => {
    api.put('a');
    const informer = start();
    await informer.synced;
    assert.deepEqual(seen, ['+a@101']);
    api.put('b');
    api.put('a');
    api.remove('b');
    await eventually('three events', () => seen.length === 4);
    assert.deepEqual(seen, ['+a@101', '+b@102', '~a@103 was 101', '-b']);
    assert.equal(informer.get('demo', 'a')?.metadata?.resourceVersion, '103');
    assert.equal(informer.get('demo', 'b'), undefined);
    assert.equal(listCount(), 1);
    assert.ok(informer.connected);
  });

  for (const how of ['end', 'reset'] as const) {
    it(`resumes from the last version when the stream is ${how === 'end' ? 'ended' : 'broken off'}, without a new list`, async () => {
      const informer = start();
      await informer.synced;
      await watching();
      api.put('a');
      await eventually('a', () => seen.length === 1);
      api.endWatches(how);
      api.put('b');
      await eventually('b', () => seen.length === 2);
      assert.deepEqual(seen, ['+a@101', '+b@102']);
      assert.equal(listCount(), 1);
      assert.equal(api.requests.at(-1)?.query.get('resourceVersion'), '101');
    });
  }

  it('leaves nothing at the signal that stops it, however often its stream ends', async () => {
    const listeners = (): number => getEventListeners(stop.signal, 'abort').length;
    await start().synced;
    for (let stream = 0; stream < 24; stream++) {
      await watching();
      // An event first: a stream that ends without one is followed by a pause, and that listens as well.
      api.put(`a${stream}`);
      await eventually('the event', () => seen.length === stream + 1);
      assert.ok(listeners() <= 2, `${listeners()} listeners after ${stream} streams`);
      const asked = api.requests.length;
      api.endWatches(stream % 2 === 0 ? 'end' : 'reset');
      await eventually('the next stream', () => api.requests.length > asked);
    }
  });

  it('resumes from a bookmark', async () => {
    await start().synced;
    await watching();
    api.bookmark();
    api.put('a');
    await eventually('a', () => seen.length === 1);
    api.bookmark();
    await new Promise((resolve) => setTimeout(resolve, 20));
    api.compact();
    api.endWatches('end');
    await watching();
    api.put('b');
    await eventually('b', () => seen.length === 2);
    assert.equal(listCount(), 1);
  });

  it('lists again after 410 and delivers what it missed: changes, deletions, an object made anew', async () => {
    for (const name of ['same', 'changed', 'gone', 'again']) api.put(name);
    const informer = start();
    await informer.synced;
    await watching();
    seen.length = 0;
    api.put('changed', {}, { silently: true });
    api.remove('gone', { silently: true });
    api.remove('again', { silently: true });
    api.put('again', { uid: 'other' }, { silently: true });
    api.put('new', {}, { silently: true });
    api.compact();
    api.endWatches('reset');
    await eventually('a second list', () => seen.length === 5);
    assert.deepEqual([...seen].sort(), ['+again@108', '+new@109', '-again', '-gone', '~changed@105 was 102']);
    assert.ok(seen.indexOf('-again') < seen.indexOf('+again@108'));
    assert.equal(listCount(), 2);
    api.put('later');
    await eventually('later', () => seen.length === 6);
  });

  it('drops what is older than its copy', async () => {
    api.put('a', { uid: 'u' });
    const informer = start();
    await informer.synced;
    await watching();
    const stale = { namespace: 'demo', name: 'a', uid: 'u', resourceVersion: '99' };
    api.send({ type: 'MODIFIED', object: { metadata: stale } });
    api.send({ type: 'DELETED', object: { metadata: { ...stale, uid: 'an earlier a' } } });
    api.put('b');
    await eventually('b', () => seen.includes('+b@102'));
    assert.deepEqual(seen, ['+a@101', '+b@102']);
    assert.equal(informer.get('demo', 'a')?.metadata?.resourceVersion, '101');
  });

  it('compares versions as numbers, not as texts', async () => {
    api.put('a', { uid: 'u' });
    const informer = start();
    await informer.synced;
    await watching();
    api.send({
      type: 'MODIFIED',
      object: { metadata: { namespace: 'demo', name: 'a', uid: 'u', resourceVersion: '1000' } },
    });
    await eventually('1000', () => seen.includes('~a@1000 was 101'));
    api.send({
      type: 'MODIFIED',
      object: { metadata: { namespace: 'demo', name: 'a', uid: 'u', resourceVersion: '999' } },
    });
    api.put('b');
    await eventually('b', () => seen.length === 3);
    assert.equal(informer.get('demo', 'a')?.metadata?.resourceVersion, '1000');
  });

  it('waits longer and longer while the server is away, and catches up when it is back', async () => {
    let failing = 5;
    api.intercept = () => (failing-- > 0 ? 'reset' : undefined);
    api.put('a');
    const informer = start();
    await informer.synced;
    assert.deepEqual(pausesMs, [200, 400, 800, 1600, 3200]);
    assert.deepEqual(seen, ['+a@101']);
  });

  it('says once that a resource is not served, settles without it, and says once that it came', async () => {
    const said: string[] = [];
    const say =
      (level: string) =>
      (fields: { readonly resource?: string }, message: string): void =>
        void said.push(`${level} ${fields.resource}: ${message}`);
    const log = { ...silentLogger, warn: say('warn'), info: say('info') };
    api.put('a');
    api.intercept = () => ({ status: 404, body: { reason: 'NotFound', message: 'not found' } });
    const informer = start({ log });
    await informer.settled;
    await eventually('five tries', () => pausesMs.length >= 5);
    assert.equal(said.length, 1);
    assert.match(said[0] ?? '', /^warn pods: .*definition is missing/);
    assert.equal(informer.hasSynced, false);
    api.intercept = () => undefined;
    await informer.synced;
    await watching();
    assert.deepEqual(said.slice(1), ['info pods: the API server serves the resource now']);
    assert.deepEqual(seen, ['+a@101']);
  });

  it('adds chance to its pauses and heeds Retry-After', async () => {
    let failing = 2;
    api.intercept = () =>
      failing-- > 0 ? { status: 429, headers: { 'retry-after': failing === 0 ? '60' : '0' } } : undefined;
    const informer = start({ random: () => 0.5 });
    await informer.synced;
    assert.deepEqual(pausesMs, [250, 60_000]);
  });

  it('does not spin on a server that ends every watch at once', async () => {
    api.intercept = ({ query }) => (query.has('watch') ? { body: '' } : undefined);
    start();
    await eventually('five pauses', () => pausesMs.length >= 5);
    assert.deepEqual(pausesMs.slice(0, 5), [200, 400, 800, 1600, 3200]);
    assert.equal(listCount(), 1);
  });

  it('survives a line that is no JSON and a handler that throws', async () => {
    const errors: string[] = [];
    const informer = start({ log: { ...silentLogger, error: (_fields, message) => errors.push(message) } });
    informer.on('add', () => {
      throw new Error('handler');
    });
    await informer.synced;
    await watching();
    api.put('a');
    await eventually('a', () => seen.length === 1);
    api.send('not an event');
    for (const line of [1, null]) api.send(line);
    await watching();
    api.put('b');
    await eventually('b', () => seen.length === 2);
    assert.deepEqual(errors, ['informer handler failed: handler', 'informer handler failed: handler']);
  });

  it('finds by namespace and by index, and forgets what left', async () => {
    api.put('a', { labels: { node: 'n1' } });
    api.put('b', { labels: { node: 'n1' } }, { namespace: 'other' });
    const informer = start({ indexes: { node: (pod) => [pod.metadata?.labels?.node ?? ''] } });
    await informer.synced;
    const names = (list: Pod[]): string => list.map(({ metadata }) => metadata?.name).join();
    assert.equal(names(informer.list('demo')), 'a');
    assert.equal(names(informer.byIndex('node', 'n1')), 'a,b');
    api.put('a', { labels: { node: 'n2' } });
    api.remove('b', { namespace: 'other' });
    await eventually('both', () => seen.length === 4);
    assert.equal(names(informer.byIndex('node', 'n1')), '');
    assert.equal(names(informer.byIndex('node', 'n2')), 'a');
    assert.equal(names(informer.list('other')), '');
    assert.throws(() => informer.byIndex('nope', ''), /no index "nope"/);
  });

  it('keeps no managedFields', async () => {
    api.put('a', { managedFields: [{}] } as object);
    const informer = start();
    await informer.synced;
    assert.ok(!('managedFields' in (informer.get('demo', 'a')?.metadata ?? {})));
  });

  it('rejects `synced` when it is stopped before, and leaves no watch behind', async () => {
    api.intercept = () => 'reset';
    const informer = start();
    stop.abort();
    await assert.rejects(informer.synced, { code: 'cancelled' });
    await stopped;
    assert.equal(api.openWatches, 0);
    assert.ok(!informer.connected);
  });
});
