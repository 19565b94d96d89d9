import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { NetworkAttachmentDefinition, SpiderMultusConfig } from '../api/spidermultusconfig.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import { AttachmentReconciler } from './attachment-reconciler.ts';
import { PoolReconciler } from './pool-reconciler.ts';
import { SubnetReconciler } from './subnet-reconciler.ts';
import { WorkQueue } from './work-queue.ts';

interface Named {
  readonly metadata: { readonly name?: string; readonly namespace?: string; readonly resourceVersion?: string };
}

/** Objects with versions, as an API server keeps them. */
class Objects<T extends Named> {
  readonly map = new Map<string, T>();
  writes: string[] = [];
  #version = 0;

  put(object: T): T {
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#version) } };
    this.map.set(`${object.metadata.namespace ?? ''}/${object.metadata.name ?? ''}`, stored);
    return stored;
  }
  cached = (): T[] => [...this.map.values()];
  read = async (namespace: string, name: string): Promise<T | undefined> => this.map.get(`${namespace}/${name}`);
  create = async (object: T): Promise<T> => {
    this.writes.push('create');
    return this.put(object);
  };
  replace = async (object: T): Promise<T> => {
    this.writes.push('replace');
    const actual = await this.read(object.metadata.namespace ?? '', object.metadata.name ?? '');
    if (actual?.metadata.resourceVersion !== object.metadata.resourceVersion) {
      throw new SluiceError({ code: 'kube_conflict', operation: 'replace', object: 'x', what: 'changed' });
    }
    return this.put(object);
  };
  replaceStatus = this.replace;
  remove = async (object: T): Promise<void> => {
    this.writes.push('remove');
    this.map.delete(`${object.metadata.namespace ?? ''}/${object.metadata.name ?? ''}`);
  };
}

const config: SpiderMultusConfig = {
  metadata: { name: 'c', namespace: 'ns', uid: 'u1', annotations: { a: 'b' } },
  spec: { cniType: 'ipvlan', ipvlan: { master: ['ens192'] } },
};

function attachmentCase() {
  const configs = new Objects<SpiderMultusConfig>();
  const attachments = new Objects<NetworkAttachmentDefinition>();
  const events: string[] = [];
  const writeEvent = (_object: object, type: string, reason: string, message: string): void => {
    events.push(`${type} ${reason} ${message}`);
  };
  const clock = { nowMs: () => Date.parse('2026-01-01T00:00:00.5Z') };
  const reconciler = new AttachmentReconciler({ configs, attachments, writeEvent, clock, log: silentLogger });
  configs.put(config);
  return { configs, attachments, events, reconciler };
}

describe('attachment reconciler', () => {
  it('creates, then leaves alone, then restores, and says so in events', async () => {
    const { attachments, events, reconciler } = attachmentCase();
    await reconciler.reconcile('ns/c');
    await reconciler.reconcile('ns/c');
    assert.deepEqual(attachments.writes, ['create']);
    const made = attachments.map.get('ns/c') ?? assert.fail('no attachment');
    attachments.map.clear();
    await reconciler.reconcile('ns/c');
    assert.equal(attachments.map.get('ns/c')?.spec?.config, made.spec?.config);
    assert.deepEqual(events, Array(2).fill('Normal AttachmentCreated created NetworkAttachmentDefinition ns/c'));
  });

  it('says in the status what came of it, and since when', async () => {
    const { configs, attachments, reconciler } = attachmentCase();
    const put = (generation: number, spec: SpiderMultusConfig['spec']): void => {
      const status = configs.map.get('ns/c')?.status;
      configs.put({ metadata: { ...config.metadata, generation }, spec, ...(status && { status }) });
    };
    const status = () => configs.map.get('ns/c')?.status ?? assert.fail('no status');
    put(1, config.spec);
    await reconciler.reconcile('ns/c');
    const ready = {
      ...{ type: 'Ready', status: 'True', observedGeneration: 1, lastTransitionTime: '2026-01-01T00:00:00Z' },
      ...{ reason: 'Generated', message: 'NetworkAttachmentDefinition ns/c is what this asks for' },
    };
    assert.deepEqual(status(), { observedGeneration: 1, attachment: 'c', conditions: [ready] });
    await reconciler.reconcile('ns/c');
    assert.deepEqual(configs.writes, ['replace'], 'nothing is written when nothing changes');
    const owner = { apiVersion: 'v', kind: 'SpiderMultusConfig', name: 'other', uid: 'o', controller: true };
    attachments.put({ metadata: { name: 'c', namespace: 'ns', ownerReferences: [owner] }, spec: {} });
    put(2, config.spec);
    await assert.rejects(reconciler.reconcile('ns/c'));
    const [failed] = status().conditions ?? [];
    assert.deepEqual([failed?.status, failed?.reason, failed?.observedGeneration], ['False', 'AttachmentFailed', 2]);
    assert.match(failed?.message ?? '', /managed by SpiderMultusConfig ns\/other/);
    assert.equal(status().attachment, 'c');
  });

  it('removes what it generated under another name when cr-name changes, and nothing of others', async () => {
    const { configs, attachments, events, reconciler } = attachmentCase();
    await reconciler.reconcile('ns/c');
    const owner = { apiVersion: 'v', kind: 'SpiderMultusConfig', name: 'other', uid: 'o', controller: true };
    attachments.put({ metadata: { name: 'theirs', namespace: 'ns', ownerReferences: [owner] }, spec: {} });
    attachments.put({ metadata: { name: 'nobodys', namespace: 'ns' }, spec: {} });
    const annotations = { 'multus.spidernet.io/cr-name': 'd' };
    configs.put({ ...config, metadata: { ...config.metadata, annotations } });
    await reconciler.reconcile('ns/c');
    assert.deepEqual([...attachments.map.keys()].sort(), ['ns/d', 'ns/nobodys', 'ns/theirs']);
    assert.match(
      events.at(-1) ?? '',
      /Normal AttachmentRemoved removed NetworkAttachmentDefinition ns\/c: the name is d now/,
    );
    assert.equal(configs.map.get('ns/c')?.status?.attachment, 'd');
  });

  it('keeps the attachment of the old name when the new name is another’s', async () => {
    const { configs, attachments, reconciler } = attachmentCase();
    await reconciler.reconcile('ns/c');
    const owner = { apiVersion: 'v', kind: 'SpiderMultusConfig', name: 'other', uid: 'o', controller: true };
    attachments.put({ metadata: { name: 'd', namespace: 'ns', ownerReferences: [owner] }, spec: {} });
    const annotations = { 'multus.spidernet.io/cr-name': 'd' };
    configs.put({ ...config, metadata: { ...config.metadata, annotations } });
    await assert.rejects(reconciler.reconcile('ns/c'));
    assert.deepEqual([...attachments.map.keys()].sort(), ['ns/c', 'ns/d']);
  });

  it('puts back what was changed and keeps labels and other owners', async () => {
    const { attachments, reconciler } = attachmentCase();
    await reconciler.reconcile('ns/c');
    const made = attachments.map.get('ns/c') ?? assert.fail('no attachment');
    const other = { apiVersion: 'v1', kind: 'ConfigMap', name: 'm', uid: 'm' };
    attachments.put({
      ...made,
      metadata: { ...made.metadata, labels: { l: '1' }, annotations: { x: 'y' }, ownerReferences: [other] },
      spec: { config: '{}' },
    });
    await reconciler.reconcile('ns/c');
    const restored = attachments.map.get('ns/c');
    assert.equal(restored?.spec?.config, made.spec?.config);
    assert.deepEqual(restored?.metadata.annotations, { a: 'b' });
    assert.deepEqual(restored.metadata.labels, { l: '1' });
    assert.deepEqual(
      restored.metadata.ownerReferences?.map(({ kind }) => kind),
      ['ConfigMap', 'SpiderMultusConfig'],
    );
  });

  it("does not touch another owner's attachment, and says whose it is", async () => {
    const { attachments, events, reconciler } = attachmentCase();
    const owner = { apiVersion: 'v', kind: 'SpiderMultusConfig', name: 'other', uid: 'o', controller: true };
    attachments.put({ metadata: { name: 'c', namespace: 'ns', ownerReferences: [owner] }, spec: { config: 'theirs' } });
    await assert.rejects(reconciler.reconcile('ns/c'));
    assert.equal(attachments.map.get('ns/c')?.spec?.config, 'theirs');
    assert.match(events.join(), /Warning AttachmentFailed .*managed by SpiderMultusConfig ns\/other.*cr-name/);
  });

  it('adopts what a deleted config of the same name left behind', async () => {
    const { configs, attachments, reconciler } = attachmentCase();
    await reconciler.reconcile('ns/c');
    configs.put({ ...config, metadata: { ...config.metadata, uid: 'u2' } });
    await reconciler.reconcile('ns/c');
    assert.deepEqual(
      attachments.map.get('ns/c')?.metadata.ownerReferences?.map(({ uid }) => uid),
      ['u2'],
    );
  });

  it('finds the configs an attachment belongs to, by owner and by name', () => {
    const { reconciler } = attachmentCase();
    assert.deepEqual(reconciler.configsOf({ metadata: { name: 'c', namespace: 'ns' } }), ['ns/c']);
    const owner = { apiVersion: 'v', kind: 'SpiderMultusConfig', name: 'd', uid: 'd' };
    assert.deepEqual(reconciler.configsOf({ metadata: { name: 'e', namespace: 'ns', ownerReferences: [owner] } }), [
      'ns/d',
    ]);
    assert.deepEqual(reconciler.configsOf({ metadata: { name: 'c', namespace: 'elsewhere' } }), []);
  });
});

function poolOf(allocatedIPs?: string, more: object = {}): SpiderIPPool {
  return {
    metadata: { name: 'p', finalizers: ['spiderpool.spidernet.io', 'other/one'], ...more },
    spec: { subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'] },
    status: { ...(allocatedIPs === undefined ? {} : { allocatedIPs }) },
  };
}

const record = '{"10.0.0.1":{"pod":"default/a","podUid":"u"}}';

describe('pool reconciler', () => {
  const reconcile = async (pool: SpiderIPPool, others: SpiderIPPool[] = []) => {
    const pools = new Objects<SpiderIPPool>();
    const events: string[] = [];
    for (const each of [...others, pool]) pools.put(each);
    const deps = {
      pools,
      log: silentLogger,
      writeEvent: (_: object, type: string, reason: string) => events.push(`${type} ${reason}`),
    };
    await new PoolReconciler(deps).reconcile('p');
    return { pool: pools.map.get('/p'), writes: pools.writes, events };
  };

  it('counts, and does not write when the counts are right', async () => {
    const first = await reconcile(poolOf(record));
    assert.deepEqual(first.pool?.status, { allocatedIPs: record, totalIPCount: 9, allocatedIPCount: 1 });
    assert.deepEqual((await reconcile(first.pool ?? assert.fail())).writes, []);
  });

  it('lets a deleted pool go only when its last address is back', async () => {
    const going = { deletionTimestamp: '2026-01-01T00:00:00Z' };
    const kept = await reconcile(poolOf(record, going));
    assert.deepEqual(kept.pool?.metadata.finalizers, ['spiderpool.spidernet.io', 'other/one']);
    const freed = await reconcile(poolOf(undefined, going));
    assert.deepEqual(freed.pool?.metadata.finalizers, ['other/one']);
  });

  it('tells of an overlap', async () => {
    const other = { ...poolOf(), metadata: { name: 'q' } };
    assert.deepEqual((await reconcile(poolOf(), [other])).events, ['Warning PoolsOverlap']);
  });
});

describe('subnet reconciler', () => {
  it('puts wrong records and counts right, one at a time or unreadable, and then does not write (I00022)', async () => {
    const spec = { ipVersion: 4 as const, subnet: '10.0.0.0/24', ips: ['10.0.0.1-10.0.0.9'] };
    const right = {
      controlledIPPools: '{"p":{"ips":["10.0.0.1-10.0.0.3"]}}',
      totalIPCount: 9,
      allocatedIPCount: 3,
    };
    const pool: SpiderIPPool = { metadata: { name: 'p' }, spec: { ...spec, ips: ['10.0.0.1-10.0.0.3'] } };
    for (const wrong of [
      { controlledIPPools: '{"gone":{"ips":["10.0.0.7"]}}' },
      { controlledIPPools: '{"p":' },
      { controlledIPPools: undefined },
      { totalIPCount: -1 },
      { allocatedIPCount: 4 },
    ]) {
      const subnets = new Objects<SpiderSubnet>();
      subnets.put({ metadata: { name: 's' }, spec, status: { ...right, ...wrong } });
      const pools = { list: async () => [pool] };
      const reconciler = new SubnetReconciler({ subnets, pools, log: silentLogger });
      await reconciler.reconcile('s');
      assert.deepEqual(subnets.map.get('/s')?.status, right);
      await reconciler.reconcile('s');
      assert.equal(subnets.writes.length, 1, JSON.stringify(wrong));
    }
  });
});

describe('work queue', () => {
  it('reconciles a burst once, keys one at a time, and again what is marked meanwhile', async () => {
    const seen: string[] = [];
    let isRunning = false;
    const queue: WorkQueue = new WorkQueue({
      name: 't',
      clock: systemClock,
      log: silentLogger,
      signal: new AbortController().signal,
      reconcile: async (key) => {
        assert.equal(isRunning, false);
        isRunning = true;
        if (seen.length === 0) queue.add('a');
        seen.push(key);
        await new Promise((resolve) => setImmediate(resolve));
        isRunning = false;
      },
    });
    for (const key of ['a', 'a', 'b', 'a']) queue.add(key);
    await queue.idle();
    assert.deepEqual(seen, ['a', 'b', 'a']);
  });

  it('tries again what failed, later each time, until it is stopped', async () => {
    const stop = new AbortController();
    const sleeps: number[] = [];
    let attempts = 0;
    const done = new Promise<void>((resolve) => {
      const clock: Clock = { ...systemClock, sleep: async (ms) => void sleeps.push(ms) };
      const reconcile = async (): Promise<void> => {
        if (++attempts === 4) resolve();
        if (attempts < 4) throw new Error('not yet');
      };
      new WorkQueue({ name: 't', clock, log: silentLogger, signal: stop.signal, reconcile }).add('a');
    });
    await done;
    assert.deepEqual(sleeps, [100, 200, 400]);
  });
});
