import 'reflect-metadata'; // @peculiar/x509 finds its parsers through tsyringe, which reads this metadata
import { createPrivateKey, randomBytes, X509Certificate as NodeCertificate, type webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
  type JsonGeneralName,
} from '@peculiar/x509';
import { parseIp } from '../core/ip.ts';

/** A certificate authority of our own, and the certificate that the webhook server shows. */

/** What a server needs, and those who call it. */
export interface WebhookCertificate {
  /** One or more authorities; the first is the one that new certificates are made with. */
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface IssuedCertificate extends WebhookCertificate {
  readonly caKeyPem: string;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
const authorityMs = 3650 * dayMs;
const certificateMs = 365 * dayMs;
/** Renewed when less than this is left: by the authority's rule a certificate never outlives it. */
export const renewAuthorityMs = 730 * dayMs;
export const renewCertificateMs = 120 * dayMs;
/** The clocks of controller and API server may differ. */
const backdateMs = 3_600_000;

/** Host names or IP addresses that the API server may call the webhook by. */
export async function createWebhookCertificate(hosts: readonly string[], nowMs: number): Promise<IssuedCertificate> {
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const ca = await X509CertificateGenerator.createSelfSigned({
    ...validity(nowMs, authorityMs),
    // Of two authorities of one name OpenSSL tries the first only.
    name: `CN=sluice-controller-ca-${randomBytes(8).toString('hex')}`,
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  const caPem = ca.toString('pem');
  return issueCertificate({ caPem, caKeyPem: await pemOf(keys.privateKey) }, hosts, nowMs);
}

/** A further certificate of the same authority. */
export async function issueCertificate(
  { caPem, caKeyPem }: Pick<IssuedCertificate, 'caPem' | 'caKeyPem'>,
  hosts: readonly string[],
  nowMs: number,
): Promise<IssuedCertificate> {
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const [caPkcs8] = PemConverter.decode(caKeyPem);
  if (caPkcs8 === undefined) throw new RangeError('the key of the authority is no PEM');
  const certificate = await X509CertificateGenerator.create({
    ...validity(nowMs, certificateMs),
    subject: 'CN=sluice-controller',
    issuer: new X509Certificate(authorities(caPem)[0]?.toString() ?? caPem).subject,
    publicKey: keys.publicKey,
    signingKey: await crypto.subtle.importKey('pkcs8', caPkcs8, algorithm, true, ['sign']),
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(hosts.map(generalName)),
    ],
  });
  return { caPem, caKeyPem, certificatePem: certificate.toString('pem'), keyPem: await pemOf(keys.privateKey) };
}

/** What is wrong with a certificate, or will be soon; undefined when nothing is. */
export function certificateFault(
  { caPem, certificatePem, keyPem }: WebhookCertificate,
  hosts: readonly string[],
  { nowMs, leftMs }: { readonly nowMs: number; readonly leftMs: number },
): string | undefined {
  try {
    const certificate = new NodeCertificate(certificatePem);
    if (!certificate.checkPrivateKey(createPrivateKey(keyPem))) return 'its key is another one’s';
    if (!authorities(caPem).some((ca) => certificate.checkIssued(ca) && certificate.verify(ca.publicKey)))
      return 'it is not signed by the authority beside it';
    const untilMs = Date.parse(certificate.validTo);
    if (untilMs - nowMs < leftMs) return `it is valid until ${new Date(untilMs).toISOString()}`;
    const missing = hosts.find((host) => !isFor(certificate, host));
    return missing === undefined ? undefined : `it is not for ${missing}`;
  } catch (error) {
    return `it cannot be read (${error instanceof Error ? error.message : String(error)})`;
  }
}

/** The same of the authority that new certificates are made with. */
export function authorityFault(
  { caPem, caKeyPem }: Pick<IssuedCertificate, 'caPem' | 'caKeyPem'>,
  nowMs: number,
): string | undefined {
  try {
    const [ca] = authorities(caPem);
    if (ca?.checkPrivateKey(createPrivateKey(caKeyPem)) !== true) return 'its key is another one’s';
    const untilMs = Date.parse(ca.validTo);
    return untilMs - nowMs < renewAuthorityMs ? `it is valid until ${new Date(untilMs).toISOString()}` : undefined;
  } catch (error) {
    return `it cannot be read (${error instanceof Error ? error.message : String(error)})`;
  }
}

/** The authority of `next` first, and those of the other that are still valid: both are trusted while servers change. */
export function trustBoth(next: string, before: string, nowMs: number): string {
  let old: NodeCertificate[] = [];
  try {
    old = authorities(before).filter(({ validTo }) => Date.parse(validTo) > nowMs);
  } catch {
    // Nobody can have trusted what cannot be read.
  }
  const [first] = authorities(next);
  const others = old.filter(({ fingerprint256 }) => fingerprint256 !== first?.fingerprint256);
  // Two are enough, and a damaged Secret that is replaced again and again does not grow.
  return [first, ...others.slice(0, 1)].map((ca) => ca?.toString() ?? '').join('');
}

/** Names and addresses that the certificate is for; none when it cannot be read. */
export function certificateHosts(certificatePem: string): string[] {
  try {
    const names = new NodeCertificate(certificatePem).subjectAltName?.split(', ') ?? [];
    return names.map((name) => name.replace(/^(DNS|IP Address):/, ''));
  } catch {
    return [];
  }
}

function authorities(pem: string): NodeCertificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new NodeCertificate(block));
}

function isFor(certificate: NodeCertificate, host: string): boolean {
  return parseIp(host) === undefined
    ? certificate.checkHost(host) !== undefined
    : certificate.checkIP(host) !== undefined;
}

function validity(nowMs: number, forMs: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(nowMs - backdateMs), notAfter: new Date(nowMs + forMs) };
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  return PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

function generalName(host: string): JsonGeneralName {
  return { type: parseIp(host) === undefined ? 'dns' : 'ip', value: host };
}
