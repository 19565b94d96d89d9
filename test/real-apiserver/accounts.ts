/** A real agent and a real controller on a real kube-apiserver, each with the rights that deploy/rbac.yaml gives it. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startAgent } from '../../src/agent/agent.ts';
import type { KubeObject, Pod } from '../../src/api/kubernetes.ts';
import {
  namespaces,
  networkAttachmentDefinitions,
  nodes,
  pods,
  spiderEndpoints,
  spiderIPPools,
  spiderMultusConfigs,
  spiderSubnets,
  validatingWebhookConfigurations,
} from '../../src/api/resources.ts';
import type { SpiderIPPool } from '../../src/api/spiderippool.ts';
import { startController } from '../../src/controller/start.ts';
import { silentLogger } from '../../src/core/log.ts';
import { TestBpffs, TestPair } from '../../src/datapath/test-bed.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { KubeConfig } from '../../src/kube/config.ts';
import { formatKubeconfig } from '../../src/lab/api/credentials.ts';
import { ContractClient } from '../../src/lab/contract/client.ts';
import { accountToken, applyAccounts } from '../../src/lab/lifecycle/accounts.ts';
import { applyDefinitions } from '../../src/lab/lifecycle/defaults.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { callShim } from '../cni-shim.ts';
import type { RealApiServer } from './start.ts';

const namespace = 'accounts';
const patience = { timeoutMs: 60_000 };

export function accountCases(theServer: () => RealApiServer): void {
  void test('deploy/rbac.yaml: controller and agent start, admit, allocate and return, and are refused nothing', async () => {
    const server = theServer();
    const dir = mkdtempSync(join(tmpdir(), 'sluice-accounts-'));
    const admin = createKubeClient(configWith(server, server.token));
    using bpffs = new TestBpffs();
    using pair = new TestPair('veth');
    const stop = new AbortController();
    const undo: (() => Promise<unknown>)[] = [];
    try {
      await prepare(admin);
      const refusedBefore = await refusals(server);
      const controller = await startController({
        kubeConfig: configWith(server, accountToken(server.credentials, 'sluice-controller')),
        ...{ webhook: { host: '127.0.0.1', port: 0 }, healthPort: 0, log: silentLogger, signal: stop.signal },
      });
      undo.push(() => controller.stopped);
      await controller.ready;
      const agent = await startAgent({
        kubeConfig: configWith(server, accountToken(server.credentials, 'sluice-agent')),
        ...{ nodeName: 'node1', bpffsDir: join(bpffs.path, 'sluice'), stateDir: join(dir, 'state') },
        ...{ cniSocketPath: join(dir, 'cni.sock'), healthAddress: '127.0.0.1:0', log: silentLogger },
      });
      undo.push(() => agent.stop());
      await waitFor('the agent', async () => (await fetch(`${agent.healthUrl}/readyz`)).ok, patience);
      await useThem(admin, (command) => spiderpool(command, join(dir, 'cni.sock'), pair.pod));
      assert.equal(await refusals(server), refusedBefore, 'no request was forbidden');
    } finally {
      stop.abort();
      for (const step of undo.reverse()) await step();
      await admin.delete(validatingWebhookConfigurations, { name: 'sluice-controller' }).catch(() => undefined);
      admin.close();
      rmSync(dir, { recursive: true, force: true });
    }
  });
}

async function prepare(admin: KubeClient): Promise<void> {
  await applyDefinitions(admin);
  await applyAccounts(admin);
  await applyAccounts(admin);
  await admin.create(namespaces, { metadata: { name: namespace } });
  await admin.create(nodes, { metadata: { name: 'node1' } });
  const spec = { nodeName: 'node1', containers: [{ name: 'c', image: 'none' }] };
  await admin.create<Pod>(pods, { metadata: { namespace, name: 'web' }, spec });
}

/** Admission, an attachment, an address, its return, and a pool that goes. */
async function useThem(admin: KubeClient, cni: (command: string) => Promise<string>): Promise<void> {
  const pool = async (): Promise<SpiderIPPool> => (await admin.get(spiderIPPools, { name: 'p' })) as SpiderIPPool;
  await admin.create(spiderSubnets, named('s', { subnet: '10.60.0.0/16', ips: ['10.60.0.10-10.60.0.30'] }));
  await admin.create(spiderIPPools, named('p', { subnet: '10.60.0.0/16', ips: ['10.60.0.10'] }));
  const config = named('net', { cniType: 'macvlan', macvlan: { master: ['eth0'], ippools: { ipv4: ['p'] } } });
  await admin.create(spiderMultusConfigs, { ...config, metadata: { namespace, name: 'net' } });
  await waitFor(
    'the attachment',
    () => exists(admin.get(networkAttachmentDefinitions, { namespace, name: 'net' })),
    patience,
  );
  assert.match(await cni('ADD'), /10\.60\.0\.10/);
  assert.match((await pool()).status?.allocatedIPs ?? '', /accounts\/web/);
  assert.ok(await exists(admin.get(spiderEndpoints, { namespace, name: 'web' })));
  await waitFor('the count', async () => (await pool()).status?.allocatedIPCount === 1, patience);
  await cni('DEL');
  await waitFor(
    'the endpoint gone',
    async () => !(await exists(admin.get(spiderEndpoints, { namespace, name: 'web' }))),
    patience,
  );
  await admin.delete(spiderIPPools, { name: 'p' });
  await waitFor('the pool gone', async () => !(await exists(pool())), patience);
}

function named(name: string, spec: object): KubeObject {
  return { metadata: { name }, spec } as KubeObject;
}

function exists(call: Promise<unknown>): Promise<boolean> {
  return call.then(
    () => true,
    () => false,
  );
}

function configWith({ url, caCert }: RealApiServer, token: string): KubeConfig {
  const config = new KubeConfig();
  config.loadFromString(formatKubeconfig({ server: url, caCert, token }));
  return config;
}

/** Requests that the server did not allow, by its own count. */
async function refusals(endpoint: RealApiServer): Promise<number> {
  const client = new ContractClient(endpoint);
  try {
    const { text } = await client.get('/metrics');
    const lines = text
      .split('\n')
      .filter((line) => /^authorization_attempts_total\{result="(denied|no-opinion)"/.test(line));
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  } finally {
    client.close();
  }
}

/** The real executable, as a main plugin calls it. */
async function spiderpool(command: string, socket: string, netns: string): Promise<string> {
  const ipam = { type: 'spiderpool', default_ipv4_ippool: ['p'] };
  const config = { cniVersion: '1.0.0', name: 'net', type: 'macvlan', ipam };
  const env = {
    ...{
      CNI_COMMAND: command,
      CNI_CONTAINERID: 'c-web',
      CNI_NETNS: netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: '/opt/cni/bin',
    },
    ...{ CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=web`, SLUICE_CNI_SOCKET: socket },
  };
  const { status, body } = await callShim('spiderpool', env, config);
  const answer = JSON.stringify(body);
  assert.equal(status, 0, `${command}: ${answer}`);
  return answer;
}
