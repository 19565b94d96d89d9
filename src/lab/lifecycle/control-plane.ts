/** The process that is the cluster's API: API server, workload controllers, scheduler. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import { listenTcp } from '../../kernel/listen.ts';
import { createKubeClient } from '../../kube/client.ts';
import { loadKubeConfig } from '../../kube/config.ts';
import { createCredentials, formatKubeconfig, type Credentials } from '../api/credentials.ts';
import { Journal } from '../api/journal.ts';
import { createApiServer } from '../api/server.ts';
import { Store } from '../api/store.ts';
import { labLayout, nodeNames, nodePaths, type LabLayout } from '../layout.ts';
import { startWorkloads } from '../workloads/start.ts';
import { markControlPlaneReady } from './control-plane-ready.ts';
import { accountToken, accountTokens, applyAccounts } from './accounts.ts';
import { applyDefinitions } from './defaults.ts';
import { mustLabState, writeFileAtomically } from './state.ts';

/** Inside every node's netns. */
const nodeApiPort = 6443;

export async function runControlPlane(options: {
  readonly dir: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { log, signal } = options;
  const state = mustLabState(options.dir);
  const lab = labLayout(state);
  mkdirSync(lab.apiDir, { recursive: true, mode: 0o700 });
  const credentials = await ensureCredentials(lab);
  const names = nodeNames(state.nodes);
  const server = createApiServer({
    store: new Store(new Journal(join(lab.apiDir, 'objects'))),
    tls: { key: credentials.serverKey, cert: credentials.serverCert },
    tokens: [
      { token: credentials.token, user: 'lab-admin', groups: ['system:masters'] },
      ...accountTokens(credentials),
    ],
    kubeletSocket: (node) => (names.includes(node) ? nodePaths(lab, node).kubeletSocket : undefined),
    log,
  });
  await server.listen(state.apiHost, state.apiPort);
  for (const name of names) await server.listenFd(listenTcp(nodePaths(lab, name).netns, '127.0.0.1', nodeApiPort).fd);
  writeKubeconfigs(lab, credentials, state.apiPort);
  const client = createKubeClient(loadKubeConfig({ path: lab.kubeconfig }), { userAgent: 'sluice-lab' });
  await applyDefinitions(client);
  await applyAccounts(client);
  markControlPlaneReady(lab);
  log.info({ url: server.url, nodes: names.length }, 'control plane ready');
  const workloads = await startWorkloads({ client, log, clock: systemClock, signal });
  await workloads.stopped;
  await server.close();
  client.close();
}

function writeKubeconfigs(lab: LabLayout, credentials: Credentials, apiPort: number): void {
  const { caCert, token } = credentials;
  // The host's loopback leads here also when the lab runs in a virtual machine that forwards the same port.
  const ofHost = { server: `https://127.0.0.1:${apiPort}`, caCert };
  const ofNode = { server: `https://127.0.0.1:${nodeApiPort}`, caCert };
  const agent = accountToken(credentials, 'sluice-agent');
  const controller = accountToken(credentials, 'sluice-controller');
  for (const [path, config] of [
    [lab.kubeconfig, { ...ofHost, token }],
    [lab.nodeKubeconfig, { ...ofNode, token }],
    [lab.agentKubeconfig, { ...ofNode, token: agent }],
    [lab.controllerKubeconfig, { ...ofHost, token: controller }],
  ] as const)
    writeFileAtomically(path, formatKubeconfig(config));
}

/** The same for the lab's whole life: kubeconfigs and running clients outlive a restart. */
async function ensureCredentials(lab: LabLayout): Promise<Credentials> {
  const file = join(lab.apiDir, 'credentials.json');
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as Credentials;
  const credentials = await createCredentials(Date.now());
  writeFileAtomically(file, JSON.stringify(credentials));
  return credentials;
}
