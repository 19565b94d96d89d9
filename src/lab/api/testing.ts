/** An API server in this process, for tests: in memory unless a directory is given, on a free loopback port. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from '../../core/log.ts';
import { createCredentials, formatKubeconfig, type Credentials } from './credentials.ts';
import { Journal } from './journal.ts';
import type { KubeletSocket } from './kubelet-proxy.ts';
import { createApiServer, type ApiServer } from './server.ts';
import { Store } from './store.ts';

export interface TestApiServer {
  readonly url: string;
  readonly credentials: Credentials;
  /** Text of a kubeconfig, for KubeConfig.loadFromString. */
  readonly kubeConfig: string;
  /** The same in a file (mode 0600), for kubectl and --kubeconfig. */
  readonly kubeConfigPath: string;
  readonly store: Store;
  readonly server: ApiServer;
  close(): Promise<void>;
}

export interface TestApiOptions {
  readonly stateDir?: string;
  readonly kubeletSocket?: KubeletSocket;
  readonly log?: Logger;
  /** Reuse from an earlier server, for restarts. */
  readonly credentials?: Credentials;
  readonly port?: number;
}

export async function startTestApiServer(options: TestApiOptions = {}): Promise<TestApiServer> {
  const credentials = options.credentials ?? (await createCredentials(Date.now()));
  const store = new Store(options.stateDir === undefined ? undefined : new Journal(options.stateDir));
  const server = createApiServer({
    store,
    tls: { key: credentials.serverKey, cert: credentials.serverCert },
    tokens: [{ token: credentials.token, user: 'kubernetes-admin', groups: ['system:masters'] }],
    ...(options.kubeletSocket === undefined ? {} : { kubeletSocket: options.kubeletSocket }),
    ...(options.log === undefined ? {} : { log: options.log }),
  });
  await server.listen('127.0.0.1', options.port ?? 0);
  const dir = mkdtempSync(join(tmpdir(), 'sluice-api-'));
  const kubeConfig = formatKubeconfig({ server: server.url, caCert: credentials.caCert, token: credentials.token });
  const kubeConfigPath = join(dir, 'kubeconfig');
  writeFileSync(kubeConfigPath, kubeConfig, { mode: 0o600 });
  return {
    url: server.url,
    credentials,
    kubeConfig,
    kubeConfigPath,
    store,
    server,
    close: async () => {
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
