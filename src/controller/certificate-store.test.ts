import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import type { Secret } from '../api/kubernetes.ts';
import { systemClock } from '../core/clock.ts';
import { SluiceError } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import { CertificateStore } from './certificate-store.ts';
import { certificateFault, createWebhookCertificate, type WebhookCertificate } from './webhook-certificate.ts';

const dayMs = 86_400_000;
const name = { namespace: 'kube-system', name: 'webhook' };

/** One Secret, as the API server keeps it, and controllers that share it. */
class World {
  secret: Secret | undefined;
  writes = 0;
  nowMs = Date.parse('2026-01-01T00:00:00Z');

  controller(hosts: readonly string[] = ['web.kube-system.svc'], isOwn = true): CertificateStore {
    return new CertificateStore({
      secrets: {
        read: async () => this.secret,
        create: async (secret) => this.#write(secret, this.secret === undefined),
        replace: async (secret) =>
          this.#write(secret, this.secret?.metadata?.resourceVersion === secret.metadata?.resourceVersion),
      },
      clock: { ...systemClock, nowMs: () => this.nowMs, sleep: () => Promise.resolve() },
      ...{ secret: name, isOwn, hosts, log: silentLogger },
    });
  }

  put(certificate: WebhookCertificate): void {
    const { caPem, certificatePem, keyPem } = certificate;
    const texts = { 'ca.crt': caPem, 'tls.crt': certificatePem, 'tls.key': keyPem };
    const data = Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')]);
    this.secret = {
      metadata: { ...name, resourceVersion: '0' },
      data: Object.fromEntries(data) as Record<string, string>,
    };
  }

  faultOf(certificate: WebhookCertificate, host = 'web.kube-system.svc'): string | undefined {
    return certificateFault(certificate, [host], { nowMs: this.nowMs, leftMs: 0 });
  }

  #write(secret: Secret, isNewest: boolean): Secret {
    if (!isNewest) throw new SluiceError({ code: 'kube_conflict', operation: 'put', object: 'secret', what: 'x' });
    this.secret = { ...secret, metadata: { ...secret.metadata, resourceVersion: String(++this.writes) } };
    return this.secret;
  }
}

async function refreshed(store: CertificateStore): Promise<WebhookCertificate> {
  await store.refresh();
  return store.current;
}

const serial = ({ certificatePem }: WebhookCertificate): string => new X509Certificate(certificatePem).serialNumber;

describe('certificate in a Secret of our own', () => {
  it('is one for all controllers, also when they start at once', async () => {
    const world = new World();
    const all = await Promise.all([1, 2, 3].map(() => refreshed(world.controller())));
    assert.equal(new Set(all.map(serial)).size, 1);
    assert.equal(new Set(all.map(({ caPem }) => caPem)).size, 1);
    assert.equal(world.writes, 1);
    assert.equal(all[0] && world.faultOf(all[0]), undefined);
    assert.equal(world.secret?.type, 'kubernetes.io/tls');
  });

  it('is renewed months before its end, by the same authority, and the others take it over', async () => {
    const world = new World();
    const [first, second] = [world.controller(), world.controller()];
    const before = await refreshed(first);
    await second.refresh();
    world.nowMs += 200 * dayMs;
    assert.equal(await first.refresh(), false);
    world.nowMs += 50 * dayMs;
    assert.equal(await first.refresh(), true);
    assert.notEqual(serial(first.current), serial(before));
    assert.equal(first.current.caPem, before.caPem, 'whom the API server trusts stays the same');
    assert.equal(world.faultOf(first.current), undefined);
    assert.equal(await second.refresh(), true);
    assert.equal(serial(second.current), serial(first.current));
  });

  it('gets another authority from the leader only, which tells the API server of both first', async () => {
    const world = new World();
    const [leader, other] = [world.controller(), world.controller()];
    await leader.refresh();
    for (let year = 0; year < 8; year++) {
      world.nowMs += 340 * dayMs;
      await other.refresh();
    }
    world.nowMs = Date.parse('2034-02-01T00:00:00Z');
    await other.refresh();
    await leader.refresh();
    const before = other.current;
    assert.equal(await other.refresh(), false, 'it does not lead');
    let announced = '';
    assert.equal(
      await leader.refresh(async (caPem) => {
        announced = caPem;
        assert.equal(await other.refresh(), false, 'nobody shows the new certificate yet');
      }),
      true,
    );
    const trusting = (certificate: WebhookCertificate): string | undefined =>
      world.faultOf({ ...certificate, caPem: announced });
    assert.equal(trusting(before), undefined, 'the old certificate is trusted');
    assert.equal(trusting(leader.current), undefined, 'and the new one');
    assert.notEqual(world.faultOf({ ...leader.current, caPem: before.caPem }), undefined);
    await other.refresh();
    assert.equal(serial(other.current), serial(leader.current));
    assert.equal(await leader.refresh(() => assert.fail('once is enough')), false);
  });

  it('is for every name that one of the controllers is called by', async () => {
    const world = new World();
    await refreshed(world.controller(['10.0.0.1']));
    const both = await refreshed(world.controller(['fd00::1', 'web.kube-system.svc']));
    for (const host of ['10.0.0.1', 'fd00::1', 'web.kube-system.svc'])
      assert.equal(world.faultOf(both, host), undefined);
    assert.notEqual(world.faultOf(both, '10.0.0.2'), undefined);
  });

  it('is made anew when the Secret is deleted or damaged', async () => {
    const world = new World();
    const store = world.controller();
    await store.refresh();
    const before = store.current;
    world.secret = undefined;
    assert.equal(await store.refresh(), false, 'it does not lead');
    let announced = '';
    assert.equal(await store.refresh(async (caPem) => void (announced = caPem)), true);
    assert.equal(
      world.faultOf({ ...before, caPem: announced }),
      undefined,
      'what others show is trusted until they change',
    );
    for (const key of ['ca.crt', 'ca.key', 'tls.crt', 'tls.key']) {
      const secret: Secret = world.secret ?? assert.fail('no Secret');
      world.secret = { ...secret, data: { ...secret.data, [key]: Buffer.from('nonsense').toString('base64') } };
      await store.refresh(async () => undefined);
      assert.equal(world.faultOf(store.current), undefined, key);
      assert.equal(world.faultOf(await refreshed(world.controller())), undefined, key);
    }
  });
});

describe('certificate in the Secret of a user', () => {
  it('is shown, followed when it changes, and never written', async () => {
    const world = new World();
    const store = world.controller(undefined, false);
    const made = await createWebhookCertificate(['web.kube-system.svc'], world.nowMs);
    world.put(made);
    assert.equal(serial(await refreshed(store)), serial(made));
    const next = await createWebhookCertificate(['web.kube-system.svc'], world.nowMs);
    world.put(next);
    assert.equal(await store.refresh(), true);
    assert.equal(serial(store.current), serial(next));
    world.secret = undefined;
    assert.equal(await store.refresh(), false);
    assert.equal(serial(store.current), serial(next), 'the last good one is shown');
    assert.equal(world.writes, 0);
  });

  it('stops the start with the reason and the remedy when it is of no use', async () => {
    const world = new World();
    const refused = async (reason: RegExp): Promise<void> => {
      await assert.rejects(world.controller(undefined, false).refresh(), (error: Error) => {
        assert.match(error.message, reason);
        assert.match(error.message, /Secret kube-system\/webhook/);
        assert.match((error as SluiceError).remedy ?? '', /write tls\.crt, tls\.key and ca\.crt into it/);
        return true;
      });
    };
    await refused(/it does not exist/);
    const other = await createWebhookCertificate(['other'], world.nowMs);
    world.put(other);
    await refused(/it is not for web\.kube-system\.svc/);
    const good = await createWebhookCertificate(['web.kube-system.svc'], world.nowMs);
    world.put({ ...good, keyPem: other.keyPem });
    await refused(/its key is another one’s/);
    world.put({ ...good, caPem: other.caPem });
    await refused(/not signed by the authority/);
    world.put({ ...good, caPem: '' });
    await refused(/not signed by the authority/);
    world.put(good);
    world.nowMs += 400 * dayMs;
    await refused(/it is valid until 2027-01-01/);
  });
});
