/** Starts etcd and kube-apiserver on free loopback ports, with their files in a throw-away directory. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCredentials, type Credentials } from '../../src/lab/api/credentials.ts';
import type { ApiToken } from '../../src/lab/api/server.ts';
import { ContractClient, type Endpoint } from '../../src/lab/contract/client.ts';
import { freePort } from '../../src/lab/free-port.ts';
import { binaryPath } from './build.ts';

export interface RealApiServer extends Endpoint {
  readonly credentials: Credentials;
  readonly stop: () => Promise<void>;
}

/** Why it cannot run here; undefined when it can. */
export function unavailable(): string | undefined {
  if (spawnSync('etcd', ['--version']).status !== 0) return 'etcd is not installed (Debian package etcd-server)';
  if (existsSync(binaryPath())) return undefined;
  return 'no kube-apiserver is built: `node --import tsx test/real-apiserver/build.ts` builds it (needs Go)';
}

/** Besides the administrator’s, the tokens of `accounts`. */
export async function startRealApiServer(accounts?: (credentials: Credentials) => ApiToken[]): Promise<RealApiServer> {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-real-api-'));
  const children: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    for (const child of children.reverse()) await end(child);
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    const [clientPort, peerPort, apiPort] = await Promise.all([freePort(), freePort(), freePort()]);
    children.push(launch('etcd', etcdArguments(dir, clientPort, peerPort), join(dir, 'etcd.log')));
    const credentials = await createCredentials(Date.now());
    const files = writeFiles(dir, credentials, accounts?.(credentials) ?? []);
    children.push(launch(binaryPath(), apiArguments(files, clientPort, apiPort), join(dir, 'apiserver.log')));
    const endpoint = { url: `https://127.0.0.1:${apiPort}`, caCert: credentials.caCert, token: credentials.token };
    await ready(endpoint, dir, children);
    return { ...endpoint, credentials, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function etcdArguments(dir: string, clientPort: number, peerPort: number): string[] {
  const [client, peer] = [`http://127.0.0.1:${clientPort}`, `http://127.0.0.1:${peerPort}`];
  return [
    `--data-dir=${join(dir, 'etcd')}`,
    `--listen-client-urls=${client}`,
    `--advertise-client-urls=${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=default=${peer}`,
    '--unsafe-no-fsync',
  ];
}

interface Files {
  readonly dir: string;
  readonly tokens: string;
  readonly key: string;
  readonly cert: string;
  readonly accountKey: string;
}

function writeFiles(dir: string, credentials: Credentials, accounts: readonly ApiToken[]): Files {
  const write = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  const admin = { token: credentials.token, user: 'kubernetes-admin', groups: ['system:masters'] };
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return {
    dir,
    tokens: write('tokens.csv', [admin, ...accounts].map(tokenLine).join('')),
    key: write('server.key', credentials.serverKey),
    cert: write('server.crt', credentials.serverCert),
    accountKey: write('accounts.key', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()),
  };
}

/** Token, user, uid, groups: comma-separated values. */
function tokenLine({ token, user, groups = [] }: ApiToken): string {
  return `${token},${user},${randomBytes(4).toString('hex')},"${groups.join(',')}"\n`;
}

function apiArguments(files: Files, etcdPort: number, port: number): string[] {
  return [
    `--etcd-servers=http://127.0.0.1:${etcdPort}`,
    '--bind-address=127.0.0.1',
    `--secure-port=${port}`,
    '--advertise-address=127.0.0.1',
    `--tls-cert-file=${files.cert}`,
    `--tls-private-key-file=${files.key}`,
    `--cert-dir=${files.dir}`,
    `--token-auth-file=${files.tokens}`,
    '--authorization-mode=RBAC',
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-key-file=${files.accountKey}`,
    `--service-account-signing-key-file=${files.accountKey}`,
    '--service-cluster-ip-range=10.96.0.0/16',
    '--endpoint-reconciler-type=none',
    // No controller makes the "default" account that this plugin insists on.
    '--disable-admission-plugins=ServiceAccount',
  ];
}

function launch(command: string, args: readonly string[], log: string): ChildProcess {
  const fd = openSync(log, 'a');
  return spawn(command, args, { stdio: ['ignore', fd, fd] });
}

async function ready(endpoint: Endpoint, dir: string, children: readonly ChildProcess[]): Promise<void> {
  const client = new ContractClient(endpoint);
  const deadline = Date.now() + 120_000;
  try {
    while (Date.now() < deadline) {
      const dead = children.find((child) => child.exitCode !== null);
      if (dead !== undefined) throw new Error(`${dead.spawnfile} ended with ${dead.exitCode ?? ''}:\n${tail(dir)}`);
      const answer = await client.get('/readyz').catch(() => undefined);
      // The default namespace is made shortly after readiness.
      if (answer?.status === 200 && (await client.get('/api/v1/namespaces/default')).status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  } finally {
    client.close();
  }
  throw new Error(`kube-apiserver was not ready within 120 s:\n${tail(dir)}`);
}

function tail(dir: string): string {
  return ['etcd.log', 'apiserver.log']
    .map((name) => readFileSync(join(dir, name), 'utf8').split('\n').slice(-15).join('\n'))
    .join('\n');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
  await exited;
  clearTimeout(timer);
}
