import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connect } from 'node:tls';
import type { KubeObject, Secret } from '../api/kubernetes.ts';
import type { GroupVersionResource } from '../api/resources.ts';
import { systemClock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import { readSettings } from '../ipam/settings.ts';
import type { KubeClient } from '../kube/client.ts';
import { createAdmission } from './admission-server.ts';
import { webhookPaths } from './webhook-server.ts';
import { WebhookUpkeep } from './webhook-upkeep.ts';

const dayMs = 86_400_000;
const { settings } = readSettings(undefined);

/** Objects by kind and name, and what an API server adds to a webhook configuration. */
class ObjectStore {
  readonly objects = new Map<string, KubeObject>();
  writes = 0;

  get client(): KubeClient {
    const client = {
      get: async (gvr: GroupVersionResource, { name }: { name: string }) =>
        this.objects.get(`${gvr.kind} ${name}`) ?? fail('kube_not_found'),
      create: async (gvr: GroupVersionResource, object: KubeObject) => this.#put(gvr, object),
      replace: async (gvr: GroupVersionResource, object: KubeObject) => this.#put(gvr, object),
    };
    return client as unknown as KubeClient;
  }

  registration(kind: 'Validating' | 'Mutating'): { caBundle?: string; url?: string } {
    const object = this.objects.get(`${kind}WebhookConfiguration sluice-controller`);
    const { webhooks = [] } = (object ?? {}) as { webhooks?: { clientConfig: { caBundle?: string; url?: string } }[] };
    return webhooks[0]?.clientConfig ?? {};
  }

  #put(gvr: GroupVersionResource, object: KubeObject): KubeObject {
    this.writes++;
    const { webhooks } = object as { webhooks?: readonly object[] };
    const defaulted = webhooks && { webhooks: webhooks.map((webhook) => ({ ...webhook, namespaceSelector: {} })) };
    const metadata = { ...object.metadata, resourceVersion: String(this.writes) };
    const stored = { ...object, ...defaulted, metadata };
    this.objects.set(`${gvr.kind} ${object.metadata?.name ?? ''}`, stored);
    return stored;
  }
}

function fail(code: 'kube_not_found'): never {
  throw new SluiceError({ code, operation: 'get', object: 'object', what: 'not found' });
}

/** Serial number of what the server shows to a client that trusts the registered authority. */
function shown(port: number, caBundle = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ca: Buffer.from(caBundle, 'base64').toString() }, () => {
      resolve(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    });
    socket.on('error', reject);
  });
}

async function controller(store: ObjectStore, nowMs: () => number) {
  const clock = { ...systemClock, nowMs, sleep: () => Promise.resolve() };
  const { signal } = new AbortController();
  const common = { client: store.client, clock, log: silentLogger, settings };
  const webhook = { host: '127.0.0.1', port: 0 };
  const admission = await createAdmission({ ...common, webhook, signal });
  const url = new URL(await admission.server.listen(webhook));
  const upkeep = new WebhookUpkeep({ ...common, admission, address: { kind: 'url', hostPort: url.host } });
  return { admission, upkeep, port: Number(url.port) };
}

describe('webhooks looked after', () => {
  it('shows a renewed certificate without a restart, in all controllers, trusted by the registered authority', async () => {
    const store = new ObjectStore();
    // The clients here have no other clock: what is renewed was made in the past.
    let nowMs = Date.now() - 300 * dayMs;
    const [leader, other] = [await controller(store, () => nowMs), await controller(store, () => nowMs)];
    try {
      await leader.upkeep.lead();
      const { caBundle, url } = store.registration('Validating');
      assert.equal(url, `https://127.0.0.1:${leader.port}${webhookPaths.validatePool}`);
      assert.equal(store.registration('Mutating').caBundle, caBundle);
      const before = await shown(leader.port, caBundle);
      assert.equal(await shown(other.port, caBundle), before, 'any controller may be called');
      nowMs = Date.now();
      await other.upkeep.check();
      await leader.upkeep.check();
      const after = await shown(leader.port, caBundle);
      assert.notEqual(after, before);
      assert.equal(await shown(other.port, caBundle), after);
    } finally {
      await leader.admission.server.close();
      await other.admission.server.close();
    }
  });

  it('registers again what somebody edited or deleted, and writes nothing otherwise', async () => {
    const store = new ObjectStore();
    const { admission, upkeep, port } = await controller(store, Date.now);
    try {
      await upkeep.check();
      assert.deepEqual(store.registration('Validating'), {}, 'it does not lead');
      await upkeep.lead();
      const { caBundle } = store.registration('Validating');
      const { writes } = store;
      await upkeep.check();
      assert.equal(store.writes, writes);
      const [kind, name] = ['MutatingWebhookConfiguration', 'sluice-controller'];
      const edited = JSON.stringify(store.objects.get(`${kind} ${name}`)).replaceAll(caBundle ?? '?', 'AAAA');
      store.objects.set(`${kind} ${name}`, JSON.parse(edited) as KubeObject);
      store.objects.delete(`ValidatingWebhookConfiguration ${name}`);
      await upkeep.check();
      for (const which of ['Validating', 'Mutating'] as const) await shown(port, store.registration(which).caBundle);
      assert.equal(store.writes, writes + 2);
    } finally {
      await admission.server.close();
    }
  });

  it('registers a new authority when the Secret was deleted; the certificates of before are trusted until they change', async () => {
    const store = new ObjectStore();
    const [leader, other] = [await controller(store, Date.now), await controller(store, Date.now)];
    try {
      await leader.upkeep.lead();
      const before = store.registration('Validating').caBundle;
      assert.equal((store.objects.get('Secret sluice-controller-webhook') as Secret).type, 'kubernetes.io/tls');
      store.objects.delete('Secret sluice-controller-webhook');
      await other.upkeep.check();
      await leader.upkeep.check();
      const after = store.registration('Validating').caBundle;
      assert.notEqual(await shown(leader.port, after), await shown(other.port, after));
      await assert.rejects(shown(leader.port, before));
      await other.upkeep.check();
      assert.equal(await shown(leader.port, after), await shown(other.port, after));
    } finally {
      await leader.admission.server.close();
      await other.admission.server.close();
    }
  });
});
