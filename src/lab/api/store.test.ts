/** The store and its journal: versions, history, conflicts, recovery. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Journal } from './journal.ts';
import type { KubeObject } from './json.ts';
import { historyLimit, RevisionConflict, Store, type StoredEvent } from './store.ts';

const object = (name: string, data: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'a' },
  data,
});
const text = (event: StoredEvent): string =>
  `${event.type} ${event.key} ${String(event.object.metadata.resourceVersion)}`;

describe('store', () => {
  test('every change gets the next resourceVersion, across buckets, and deletions too', () => {
    const store = new Store();
    const seen: number[] = [];
    store.subscribe((event) => seen.push(event.resourceVersion));
    const one = store.create('/configmaps', 'a/one', object('one', '1'));
    store.create('/secrets', 'a/two', object('two', '1'));
    store.update('/configmaps', 'a/one', object('one', '2'), one.metadata.resourceVersion);
    store.delete('/secrets', 'a/two', '3');
    assert.deepEqual(seen, [2, 3, 4, 5]);
    assert.equal(store.resourceVersion, 5);
  });

  test('an update or deletion from another resourceVersion is refused and changes nothing', () => {
    const store = new Store();
    store.create('/configmaps', 'a/one', object('one', '1'));
    assert.throws(() => store.update('/configmaps', 'a/one', object('one', '2'), '1'), RevisionConflict);
    assert.throws(() => store.delete('/configmaps', 'a/one', '99'), RevisionConflict);
    assert.equal(store.get('/configmaps', 'a/one')?.data, '1');
    assert.equal(store.resourceVersion, 2);
  });

  test('a past state is rebuilt from the history, for random changes (seed printed)', (t) => {
    let seed = Math.floor(Math.random() * 2 ** 31);
    t.diagnostic(`seed ${seed}`);
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
      return (seed >> 8) % below;
    };
    const store = new Store();
    const snapshots: [number, string][] = [];
    const show = (objects: readonly KubeObject[]): string =>
      JSON.stringify(objects.map((item) => [item.metadata.name, item.data]));
    for (let step = 0; step < 400; step++) {
      const name = `n${random(12)}`;
      const found = store.get('/configmaps', `a/${name}`);
      if (found === undefined) store.create('/configmaps', `a/${name}`, object(name, String(step)));
      else if (random(3) === 0) store.delete('/configmaps', `a/${name}`, found.metadata.resourceVersion);
      else store.update('/configmaps', `a/${name}`, object(name, String(step)), found.metadata.resourceVersion);
      snapshots.push([store.resourceVersion, show(store.list('/configmaps'))]);
    }
    for (const [version, expected] of snapshots)
      assert.equal(show(store.listAt('/configmaps', version) ?? []), expected);
  });

  test('history older than the window is reported as unknown, not as empty', () => {
    const store = new Store();
    let current = store.create('/configmaps', 'a/one', object('one', '0'));
    for (let step = 1; step <= historyLimit * 1.25; step++) {
      current = store.update('/configmaps', 'a/one', object('one', String(step)), current.metadata.resourceVersion);
    }
    assert.equal(store.eventsSince('/configmaps', 1), undefined);
    assert.equal(store.listAt('/configmaps', 1), undefined);
    const oldest = store.oldestResourceVersion;
    assert.ok(oldest > 1);
    assert.equal(store.eventsSince('/configmaps', oldest)?.length, store.resourceVersion - oldest);
  });
});

describe('journal', () => {
  const withDir = (name: string, run: (dir: string) => void): void => {
    test(name, () => {
      const dir = mkdtempSync(join(tmpdir(), 'sluice-journal-'));
      try {
        run(dir);
      } finally {
        rmSync(dir, { recursive: true, force: true });
      }
    });
  };

  withDir('a store opened again has the same objects, resourceVersion and history', (dir) => {
    const first = new Store(new Journal(dir));
    const one = first.create('/configmaps', 'a/one', object('one', '1'));
    first.create('/configmaps', 'a/two', object('two', '1'));
    first.update('/configmaps', 'a/one', object('one', '2'), one.metadata.resourceVersion);
    first.delete('/configmaps', 'a/two', '3');
    // Not closed: as after kill -9.
    const second = new Store(new Journal(dir));
    assert.equal(second.resourceVersion, 5);
    assert.deepEqual(second.list('/configmaps'), first.list('/configmaps'));
    assert.deepEqual(second.eventsSince('/configmaps', 2)?.map(text), [
      'ADDED a/two 3',
      'MODIFIED a/one 4',
      'DELETED a/two 5',
    ]);
    first.close();
    second.close();
  });

  withDir('a torn last line is cut off, and writing goes on after it', (dir) => {
    const first = new Store(new Journal(dir));
    first.create('/configmaps', 'a/one', object('one', '1'));
    first.close();
    appendFileSync(join(dir, 'journal.jsonl'), '{"type":"ADDED","resourceVersion":3,"bucket":"/conf');
    const second = new Store(new Journal(dir));
    assert.equal(second.resourceVersion, 2);
    second.create('/configmaps', 'a/two', object('two', '1'));
    second.close();
    const third = new Store(new Journal(dir));
    assert.deepEqual(
      third.list('/configmaps').map((item) => item.metadata.name),
      ['one', 'two'],
    );
    third.close();
  });

  withDir('damage before the end is an error that names the line, not silent loss', (dir) => {
    const first = new Store(new Journal(dir));
    first.create('/configmaps', 'a/one', object('one', '1'));
    first.close();
    appendFileSync(join(dir, 'journal.jsonl'), 'garbage\n');
    assert.throws(() => new Store(new Journal(dir)), /line 2 is damaged/);
  });

  withDir('a large journal is folded into a snapshot and stays small', (dir) => {
    const limit = 20_000;
    const first = new Store(new Journal(dir, limit));
    let current = first.create('/configmaps', 'a/one', object('one', '0'));
    for (let step = 1; step < 1000; step++) {
      current = first.update('/configmaps', 'a/one', object('one', String(step)), current.metadata.resourceVersion);
    }
    first.close();
    assert.deepEqual(readdirSync(dir).sort(), ['journal.jsonl', 'snapshot.jsonl']);
    assert.ok(statSync(join(dir, 'journal.jsonl')).size <= limit + 1000);
    const second = new Store(new Journal(dir, limit));
    assert.equal(second.resourceVersion, 1001);
    assert.equal(second.get('/configmaps', 'a/one')?.data, '999');
    assert.equal(second.eventsSince('/configmaps', 2), undefined);
    second.close();
  });
});
