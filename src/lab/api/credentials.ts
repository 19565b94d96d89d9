/** A certificate authority, the API server's certificate and kubeconfig files. */
import { randomBytes, webcrypto } from 'node:crypto';
import type * as X509 from './x509.ts';
import type { Extension } from '@peculiar/x509';

/** Loaded on first use: a restarted server has its certificates already, and the library is the slowest part of its start. */
function loadX509(): Promise<typeof X509> {
  return import('./x509.ts');
}

export interface Credentials {
  /** All PEM. */
  readonly caCert: string;
  readonly serverCert: string;
  readonly serverKey: string;
  readonly token: string;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const validityMs = 10 * 365 * 24 * 3600 * 1000;
/** Clocks of machines that share a kubeconfig may differ. */
const clockSkewMs = 24 * 3600 * 1000;
const serverNames = ['localhost', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc'];
const serverAddresses = ['127.0.0.1', '::1', '10.96.0.1'];

/** A fresh CA, a server certificate for loopback and the in-cluster names, and a random token. */
export async function createCredentials(nowMs: number, moreAddresses: readonly string[] = []): Promise<Credentials> {
  const x509 = await loadX509();
  const issuer = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const notBefore = new Date(nowMs - clockSkewMs);
  const notAfter = new Date(nowMs + validityMs);
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: randomBytes(8).toString('hex'),
    name: 'CN=sluice-lab-ca',
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    keys: issuer,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  const server = await x509.X509CertificateGenerator.create({
    serialNumber: randomBytes(8).toString('hex'),
    subject: 'CN=kube-apiserver',
    issuer: ca.subject,
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: issuer.privateKey,
    extensions: serverExtensions(x509, [...serverAddresses, ...moreAddresses]),
  });
  return {
    caCert: ca.toString('pem'),
    serverCert: server.toString('pem'),
    serverKey: await privateKeyPem(keys.privateKey),
    token: randomBytes(24).toString('base64url'),
  };
}

function serverExtensions(x509: typeof X509, addresses: readonly string[]): Extension[] {
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    new x509.SubjectAlternativeNameExtension([
      ...serverNames.map((value) => ({ type: 'dns' as const, value })),
      ...addresses.map((value) => ({ type: 'ip' as const, value })),
    ]),
  ];
}

async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/.{64}/g, '$&\n').trimEnd()}\n-----END PRIVATE KEY-----\n`;
}

export interface KubeconfigInput {
  /** "https://127.0.0.1:6443" */
  readonly server: string;
  readonly caCert: string;
  readonly token: string;
  readonly name?: string;
}

/** A kubeconfig (YAML, in its JSON subset) with everything embedded. */
export function formatKubeconfig({ server, caCert, token, name = 'sluice-lab' }: KubeconfigInput): string {
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster: { server, 'certificate-authority-data': Buffer.from(caCert).toString('base64') } }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name, namespace: 'default' } }],
    'current-context': name,
  };
  return `${toYaml(config)}\n`;
}

/** Enough YAML for a kubeconfig, without loading a YAML library into the server's start. */
function toYaml(value: object, indent = ''): string {
  const lines: string[] = [];
  for (const [key, member] of Object.entries(value) as [string, unknown][]) {
    if (Array.isArray(member)) {
      lines.push(`${indent}${key}:`);
      for (const item of member as object[]) lines.push(`${indent}- ${toYaml(item, `${indent}  `).trimStart()}`);
    } else if (typeof member === 'object' && member !== null) {
      lines.push(`${indent}${key}:`, toYaml(member, `${indent}  `));
    } else lines.push(`${indent}${key}: ${JSON.stringify(member)}`);
  }
  return lines.join('\n');
}
