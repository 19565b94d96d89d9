/**
 * The API client, the informer and the event recorder against a real API over TLS: the lab's, in this process.
 * What only a faulty server can do is in src/kube/*.test.ts.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ConfigMap, Event, Namespace, NetworkPolicy, Node } from '../src/api/kubernetes.ts';
import { configMaps, events, namespaces, networkPolicies, nodes } from '../src/api/resources.ts';
import { systemClock } from '../src/core/clock.ts';
import { silentLogger } from '../src/core/log.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { isAlreadyExists, isConflict, isExpired, isNotFound } from '../src/kube/error.ts';
import { EventRecorder, referenceTo } from '../src/kube/event-recorder.ts';
import { Informer } from '../src/kube/informer.ts';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';

let stateDir: string;
let server: TestApiServer;
let client: KubeClient;

before(async () => {
  stateDir = mkdtempSync(path.join(tmpdir(), 'sluice-kube-client-'));
  server = await startTestApiServer({ stateDir });
  client = createKubeClient(loadKubeConfig({ path: server.kubeConfigPath }));
  await client.create<Namespace>(namespaces, { metadata: { name: 'demo' } });
});
after(async () => {
  client.close();
  await server.close();
  rmSync(stateDir, { recursive: true, force: true });
});

async function eventually(description: string, condition: () => boolean): Promise<void> {
  const giveUpMs = Date.now() + 20_000;
  while (!condition()) {
    assert.ok(Date.now() < giveUpMs, `did not happen: ${description}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const configMap = (name: string, data: Record<string, string> = {}): ConfigMap => ({
  metadata: { namespace: 'demo', name },
  data,
});

describe('KubeClient', () => {
  it('creates, reads, replaces, patches and deletes', async () => {
    const ref = { namespace: 'demo', name: 'one' };
    const made = await client.create(configMaps, configMap('one', { a: '1' }));
    assert.deepEqual((await client.get<ConfigMap>(configMaps, ref)).data, { a: '1' });
    const replaced = await client.replace(configMaps, { ...made, data: { a: '2' } });
    assert.notEqual(replaced.metadata?.resourceVersion, made.metadata?.resourceVersion);
    await assert.rejects(client.replace(configMaps, made), isConflict);
    await assert.rejects(client.create(configMaps, configMap('one')), isAlreadyExists);
    await client.patch(configMaps, ref, { type: 'merge', body: { data: { a: null, b: '3' } } });
    await client.patch(configMaps, ref, { type: 'json', body: [{ op: 'add', path: '/data/c', value: '4' }] });
    const patched = await client.patch<ConfigMap>(configMaps, ref, {
      type: 'strategic',
      body: { metadata: { labels: { x: 'y' } } },
    });
    assert.deepEqual(patched.data, { b: '3', c: '4' });
    assert.deepEqual(patched.metadata?.labels, { x: 'y' });
    assert.equal((await client.list(configMaps, { namespace: 'demo', labelSelector: 'x=y' })).items.length, 1);
    assert.equal((await client.find(configMaps, ref))?.metadata?.name, 'one');
    await client.delete(configMaps, ref, { preconditions: { uid: made.metadata?.uid ?? '' } });
    await assert.rejects(client.get(configMaps, ref), isNotFound);
    assert.equal(await client.find(configMaps, ref), undefined);
  });

  it('changes a status apart from the rest', async () => {
    const node = await client.create<Node>(nodes, { metadata: { name: 'node-a' }, spec: { unschedulable: true } });
    const addresses = [{ type: 'InternalIP', address: '172.51.0.11' }];
    await client.replaceStatus<Node>(nodes, { ...node, spec: {}, status: { addresses } });
    const after = await client.get<Node>(nodes, { name: 'node-a' });
    assert.deepEqual(after.status?.addresses, addresses);
    assert.equal(after.spec?.unschedulable, true);
  });

  it('gives the server’s own words for a bad object', async () => {
    const bad = { metadata: { namespace: 'demo', name: 'Not A Name' }, spec: { podSelector: {} } };
    await assert.rejects(client.create<NetworkPolicy>(networkPolicies, bad), {
      code: 'kube_invalid',
      message: /Not A Name/,
    });
  });
});

describe('Informer', () => {
  it('ends equal to the server after changes in bursts, a broken connection and a restart, and never goes back', async () => {
    const stop = new AbortController();
    const newest = new Map<string, bigint>();
    const problems: string[] = [];
    const informer = new Informer<ConfigMap>({ client, gvr: configMaps, namespace: 'demo', log: silentLogger });
    const version = (object: ConfigMap): bigint => BigInt(object.metadata?.resourceVersion ?? '0');
    informer.on('add', (object) => {
      const name = object.metadata?.name ?? '';
      if (newest.has(name)) problems.push(`${name} was added twice`);
      newest.set(name, version(object));
    });
    informer.on('update', (object) => {
      const name = object.metadata?.name ?? '';
      if (version(object) <= (newest.get(name) ?? 0n)) problems.push(`${name} went back to ${version(object)}`);
      newest.set(name, version(object));
    });
    informer.on('delete', (object) => {
      if (!newest.delete(object.metadata?.name ?? ''))
        problems.push(`${object.metadata?.name} was deleted without being known`);
    });
    const stopped = informer.start(stop.signal);
    try {
      await informer.synced;
      await burst('first', 40);
      await restartServer();
      await burst('second', 40);
      const truth = await client.listAll<ConfigMap>(configMaps, { namespace: 'demo' });
      const wanted = JSON.stringify(
        truth.items.map((item) => [item.metadata?.name, item.metadata?.resourceVersion]).sort(),
      );
      const held = (): string =>
        JSON.stringify(
          informer
            .list('demo')
            .map((item) => [item.metadata?.name, item.metadata?.resourceVersion])
            .sort(),
        );
      await eventually('the copy equals the list', () => held() === wanted);
      assert.ok(truth.items.length > 20);
      assert.deepEqual(problems, []);
      assert.equal(newest.size, truth.items.length);
    } finally {
      stop.abort();
      await stopped;
    }
  });

  /** Makes `count` objects, changes half of them, deletes a third. */
  async function burst(prefix: string, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const ref = { namespace: 'demo', name: `${prefix}-${i}` };
      await client.create(configMaps, configMap(ref.name));
      if (i % 2 === 0) await client.patch(configMaps, ref, { type: 'merge', body: { data: { i: String(i) } } });
      if (i % 3 === 0) await client.delete(configMaps, ref);
    }
  }

  async function restartServer(): Promise<void> {
    const port = Number(new URL(server.url).port);
    const { credentials } = server;
    await server.close();
    server = await startTestApiServer({ stateDir, credentials, port });
    // A read is tried again when the connection kept from before turns out closed; a write would not be.
    await client.raw('/version');
  }

  it('is told when its version is too old, by the code it lists again for', async () => {
    const read = async (): Promise<void> => {
      for await (const _ of client.watch(configMaps, { namespace: 'demo', resourceVersion: '1', timeoutSeconds: 1 }))
        return;
    };
    // Version 1 is either still in the server's memory, or it must say 410 and nothing else.
    await read().catch((error: unknown) => assert.ok(isExpired(error), String(error)));
  });
});

describe('EventRecorder', () => {
  it('writes events that are found by their object, and counts them', async () => {
    const recorder = new EventRecorder({ client, component: 'sluice-test', clock: systemClock, log: silentLogger });
    const about = referenceTo(configMaps, await client.create(configMaps, configMap('noted')));
    for (let i = 0; i < 3; i++) {
      recorder.record({ about, type: 'Warning', reason: 'Testing', message: 'again' });
      await recorder.flush();
    }
    const fieldSelector = 'involvedObject.name=noted,involvedObject.kind=ConfigMap';
    const { items } = await client.list<Event>(events, { namespace: 'demo', fieldSelector });
    assert.deepEqual(
      items.map(({ reason, count, source }) => [reason, count, source?.component]),
      [['Testing', 3, 'sluice-test']],
    );
  });
});
