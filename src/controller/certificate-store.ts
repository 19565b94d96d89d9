import type { Secret } from '../api/kubernetes.ts';
import type { Clock } from '../core/clock.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import type { ObjectAccess } from './ports.ts';
import {
  authorityFault,
  certificateFault,
  certificateHosts,
  createWebhookCertificate,
  issueCertificate,
  renewCertificateMs,
  trustBoth,
  type IssuedCertificate,
  type WebhookCertificate,
} from './webhook-certificate.ts';

/**
 * The certificate of the webhooks in a Secret that all controllers share: any of them may be called, and the API server
 * trusts one authority. The Secret is either ours, made and renewed here, or the user's, which is only read.
 */

export const ownSecretName = 'sluice-controller-webhook';

export interface SecretName {
  readonly namespace: string;
  readonly name: string;
}

export interface CertificateStoreDeps {
  readonly secrets: Pick<ObjectAccess<Secret>, 'read' | 'create' | 'replace'>;
  readonly secret: SecretName;
  /** False: the user's. */
  readonly isOwn: boolean;
  /** Names by which the API server calls the webhooks. */
  readonly hosts: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
}

/** Tells the API server whom to trust. Only the controller that leads has one. */
export type AnnounceAuthority = (caPem: string) => Promise<void>;

const attempts = 5;
/** API servers learn of a changed webhook configuration by a watch. */
const announceMs = 5_000;

export class CertificateStore {
  readonly #deps: CertificateStoreDeps;
  #current: WebhookCertificate | undefined;
  /** Of ours. */
  #issued: IssuedCertificate | undefined;
  #isUnstored = false;

  constructor(deps: CertificateStoreDeps) {
    this.#deps = deps;
  }

  /** After the first `refresh`. */
  get current(): WebhookCertificate {
    if (this.#current === undefined) throw new RangeError('the certificate has not been read');
    return this.#current;
  }

  /** Reads the Secret, and makes what is missing or ends soon. Answers whether there is something new to serve. */
  async refresh(announce?: AnnounceAuthority): Promise<boolean> {
    const next = this.#deps.isOwn ? await this.#own(announce) : await this.#users();
    const { certificatePem, caPem } = this.#current ?? {};
    const isNew = next.certificatePem !== certificatePem || next.caPem !== caPem;
    this.#current = next;
    return isNew;
  }

  async #own(announce: AnnounceAuthority | undefined): Promise<WebhookCertificate> {
    const { secrets, secret, log } = this.#deps;
    for (let attempt = 1; ; attempt++) {
      const stored = await secrets.read(secret.namespace, secret.name);
      const before = stored && contentOf(stored);
      const next = await this.#renewed(before, announce);
      if (next === before || next === this.#issued) return (this.#issued = next);
      try {
        await this.#write(stored, next);
        log.info({ secret: `${secret.namespace}/${secret.name}` }, 'webhook certificate written');
        return (this.#issued = next);
      } catch (error) {
        if (hasErrorCode(error, 'kube_not_found')) return this.#unstored(next);
        // Another controller was first; what it wrote serves as well.
        if (!hasErrorCode(error, 'kube_conflict') || attempt >= attempts) throw error;
      }
    }
  }

  /** The same object, or the one in use, when nothing is to be done. */
  async #renewed(
    stored: IssuedCertificate | undefined,
    announce: AnnounceAuthority | undefined,
  ): Promise<IssuedCertificate> {
    const { hosts, clock, log } = this.#deps;
    const nowMs = clock.nowMs();
    const before = stored ?? this.#issued;
    if (before === undefined) return createWebhookCertificate(hosts, nowMs);
    const authority = stored === undefined ? 'its Secret is gone' : authorityFault(stored, nowMs);
    if (authority !== undefined) return this.#withNewAuthority(before, authority, announce);
    const reason = certificateFault(before, hosts, { nowMs, leftMs: renewCertificateMs });
    if (reason === undefined) return before;
    log.info({ reason }, 'webhook certificate renewed');
    return issueCertificate(before, this.#allHosts(before), nowMs);
  }

  /** One that still works is left to the controller that leads: it alone tells the API server of another authority. */
  async #withNewAuthority(
    before: IssuedCertificate,
    reason: string,
    announce: AnnounceAuthority | undefined,
  ): Promise<IssuedCertificate> {
    const { hosts, clock, log } = this.#deps;
    const nowMs = clock.nowMs();
    const works = certificateFault(before, hosts, { nowMs, leftMs: 0 }) === undefined;
    if (this.#isUnstored || (works && announce === undefined)) return before;
    log.info({ reason }, 'webhook authority renewed');
    const made = await createWebhookCertificate(works ? this.#allHosts(before) : hosts, nowMs);
    const next = { ...made, caPem: trustBoth(made.caPem, before.caPem, nowMs) };
    if (works && announce !== undefined) {
      await announce(next.caPem);
      await clock.sleep(announceMs);
    }
    return next;
  }

  #allHosts({ certificatePem }: WebhookCertificate): string[] {
    return [...new Set([...this.#deps.hosts, ...certificateHosts(certificatePem)])];
  }

  async #write(stored: Secret | undefined, next: IssuedCertificate): Promise<void> {
    const { secrets, secret } = this.#deps;
    const data = Object.fromEntries(
      Object.entries(secretKeys).map(([field, key]) => [key, encode(next[field as keyof typeof secretKeys])]),
    );
    if (stored === undefined) await secrets.create({ metadata: { ...secret }, type: 'kubernetes.io/tls', data });
    else await secrets.replace({ ...stored, data: { ...stored.data, ...data } });
  }

  /** API servers without Secrets exist in tests only; there the controller is alone. */
  #unstored(made: IssuedCertificate): WebhookCertificate {
    this.#deps.log.warn({}, 'the API server keeps no Secret here: no other controller may run beside this one');
    this.#isUnstored = true;
    return (this.#issued ??= made);
  }

  async #users(): Promise<WebhookCertificate> {
    const { secrets, secret, hosts, clock, log } = this.#deps;
    const stored = await secrets.read(secret.namespace, secret.name);
    const content = stored && contentOf(stored);
    const fault =
      content === undefined
        ? 'it does not exist'
        : certificateFault(content, hosts, { nowMs: clock.nowMs(), leftMs: 0 });
    if (content !== undefined && fault === undefined) return content;
    if (this.#current === undefined) throw unusable(secret, fault ?? '');
    log.warn({ secret: `${secret.namespace}/${secret.name}`, reason: fault }, 'the certificate before is still served');
    return this.#current;
  }
}

/** As cert-manager writes them, and the authority's key beside them. */
const secretKeys = { caPem: 'ca.crt', certificatePem: 'tls.crt', keyPem: 'tls.key', caKeyPem: 'ca.key' } as const;

function contentOf({ data = {} }: Secret): IssuedCertificate {
  const text = (key: string): string => Buffer.from(data[key] ?? '', 'base64').toString();
  return {
    caPem: text(secretKeys.caPem),
    certificatePem: text(secretKeys.certificatePem),
    keyPem: text(secretKeys.keyPem),
    caKeyPem: text(secretKeys.caKeyPem),
  };
}

function encode(text: string): string {
  return Buffer.from(text).toString('base64');
}

function unusable({ namespace, name }: SecretName, what: string): SluiceError {
  return new SluiceError({
    code: 'invalid_config',
    operation: 'take the webhook certificate from',
    object: `Secret ${namespace}/${name}`,
    what,
    remedy: 'write tls.crt, tls.key and ca.crt into it, as cert-manager does, or leave out --webhook-secret',
  });
}
