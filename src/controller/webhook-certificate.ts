import 'reflect-metadata'; // @peculiar/x509 finds its parsers through tsyringe, which reads this metadata
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  type JsonGeneralName,
} from '@peculiar/x509';
import { parseIp } from '../core/ip.ts';

/**
 * A certificate authority made at start and kept in memory, and one server certificate of it. The API server is told
 * the authority with each registration (caBundle), so nothing has to be stored, rotated or restored.
 */
export interface WebhookCertificate {
  readonly caPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
/** Longer than any controller runs without a restart; a restart makes a new one. */
const validMs = 10 * 365 * 86_400_000;
/** The clocks of controller and API server may differ. */
const backdateMs = 3_600_000;

/** Host names or IP addresses that the API server may call the webhook by. */
export async function createWebhookCertificate(hosts: readonly string[], nowMs: number): Promise<WebhookCertificate> {
  const validity = { notBefore: new Date(nowMs - backdateMs), notAfter: new Date(nowMs + validMs) };
  const caKeys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const ca = await X509CertificateGenerator.createSelfSigned({
    ...validity,
    name: 'CN=sluice-controller-ca',
    keys: caKeys,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  const certificate = await X509CertificateGenerator.create({
    ...validity,
    subject: 'CN=sluice-controller',
    issuer: ca.subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(hosts.map(generalName)),
    ],
  });
  const pkcs8 = await crypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    caPem: ca.toString('pem'),
    certificatePem: certificate.toString('pem'),
    keyPem: PemConverter.encode(pkcs8, 'PRIVATE KEY'),
  };
}

function generalName(host: string): JsonGeneralName {
  return { type: parseIp(host) === undefined ? 'dns' : 'ip', value: host };
}
