/** `sluice preflight`: a node and a cluster where nothing is right, and where all is. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { preflightNode } from '../src/agent/preflight.ts';
import type { KubeObject } from '../src/api/kubernetes.ts';
import {
  customResourceDefinitions,
  daemonSets,
  mutatingWebhookConfigurations,
  validatingWebhookConfigurations,
} from '../src/api/resources.ts';
import { readGrants } from '../src/cli/preflight.ts';
import { preflightCluster } from '../src/controller/preflight.ts';
import { registerWebhooks } from '../src/controller/register.ts';
import type { PreflightFinding } from '../src/core/preflight-finding.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { listMounts } from '../src/kernel/mount.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { startTestApiServer, type TestApiServer } from '../src/lab/api/testing.ts';
import { applyAccounts } from '../src/lab/lifecycle/accounts.ts';
import { applyDefinitions } from '../src/lab/lifecycle/defaults.ts';

const of = (findings: readonly PreflightFinding[], check: string): string[] =>
  findings.filter((finding) => finding.check === check).map(({ state, what }) => `${state}: ${what}`);

describe('preflight of a node', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-preflight-test-'));
  const [bin, conf] = [join(dir, 'bin'), join(dir, 'net.d')];
  const run = (uid = 0): PreflightFinding[] =>
    preflightNode({ bpffsDir: join(dir, 'bpf'), cniBinDir: bin, cniConfDir: conf, uid });
  after(() => rmSync(dir, { recursive: true }));

  it('loads the programs, tries what the kernel has, and leaves nothing', () => {
    process.env['TMPDIR'] = dir;
    const findings = run();
    assert.match(of(findings, 'kernel').join(), /^ok: Linux \S+ takes the programs and maps$/);
    for (const check of ['hooks', 'links', 'bandwidth']) assert.notEqual(of(findings, check).length, 0, check);
    const version1 = listMounts().some(({ fsType }) => fsType === 'cgroup');
    assert.match(of(findings, 'sockets').join(), version1 ? /^warning: .+ CAP_NET_RAW/ : /^ok: cgroup version 2/);
    assert.match(of(findings, 'bpffs').join(), /^warning: .+ is on no bpffs/);
    delete process.env['TMPDIR'];
    assert.deepEqual(
      listMounts().filter(({ target }) => target.startsWith(dir)),
      [],
    );
    assert.deepEqual(readdirSync(dir), []);
    assert.match(of(run(1000), 'kernel').join(), /^problem: not root/);
  });

  it('finds what is missing for CNI, and whose an executable is', () => {
    assert.match(of(run(), 'cni executables').join(), /^problem: there is no /);
    assert.match(of(run(), 'cni configuration').join(), /^problem: no configuration/);
    execFileSync('make', ['-s', '-C', join(packageRoot(), 'shim')]);
    for (const path of [bin, conf]) mkdirSync(path);
    for (const name of ['sluice', 'spiderpool', 'coordinator'])
      copyFileSync(join(packageRoot(), 'shim/build', name), join(bin, name));
    writeFileSync(join(bin, 'cilium-cni'), 'somebody else’s');
    writeFileSync(join(bin, 'macvlan'), '');
    writeFileSync(join(conf, '10-calico.conflist'), '{}');
    const findings = run();
    assert.match(
      of(findings, 'cni executables').join('; '),
      /^problem: \S+cilium-cni is another project’s; problem: not in \S+: ifacer$/,
    );
    assert.match(of(findings, 'cni configuration').join(), /^warning: no Multus among 10-calico\.conflist/);
    for (const name of ['ifacer', 'cilium-cni']) copyFileSync(join(packageRoot(), 'shim/build', name), join(bin, name));
    writeFileSync(join(conf, '00-multus.conf'), '{}');
    assert.match(of(run(), 'cni executables').join(), /^ok: /);
    assert.match(of(run(), 'cni configuration').join(), /^ok: /);
  });
});

describe('preflight of a cluster', () => {
  let server: TestApiServer;
  let client: KubeClient;
  before(async () => {
    server = await startTestApiServer();
    client = createKubeClient(loadKubeConfig({ path: server.kubeConfigPath }));
  });
  after(async () => {
    client.close();
    await server.close();
  });
  const run = async (): Promise<PreflightFinding[]> => preflightCluster(client, await readGrants());

  it('names every definition and right that is missing, and no more once they are there', async () => {
    const bare = await run();
    assert.equal(of(bare, 'definitions').length, 7);
    assert.match(
      of(bare, 'rbac').join('; '),
      /sluice-agent may not: get pods, .+; problem: .+sluice-controller may not: /,
    );
    assert.ok(bare.every(({ state, remedy }) => state === 'ok' || remedy !== undefined));
    await applyDefinitions(client);
    await applyAccounts(client);
    const metadata = { namespace: 'kube-system', name: 'kube-multus-ds' };
    const template = { metadata: { labels: { app: 'm' } }, spec: { containers: [{ name: 'c', image: 'none' }] } };
    const spec = { selector: { matchLabels: { app: 'm' } }, template };
    await client.create(daemonSets, { metadata, spec } as KubeObject);
    const whole = await run();
    assert.deepEqual(
      whole.filter(({ state }) => state !== 'ok'),
      [],
    );
  });

  it('finds other installations, and webhooks that nobody serves', async () => {
    const rule = { apiGroups: ['spiderpool.spidernet.io'], apiVersions: ['v2beta1'], resources: ['spiderippools'] };
    const webhook = {
      ...{ name: 'pool.example.com', admissionReviewVersions: ['v1'], sideEffects: 'None', failurePolicy: 'Ignore' },
      ...{ clientConfig: { url: 'https://127.0.0.1:9/' }, rules: [{ ...rule, operations: ['CREATE'] }] },
    };
    const theirs = { metadata: { name: 'spiderpool-controller' }, webhooks: [webhook] };
    await client.create(mutatingWebhookConfigurations, theirs);
    const name = 'spiderippools.spiderpool.spidernet.io';
    const annotations = { 'meta.helm.sh/release-name': 'spiderpool' };
    const body = { metadata: { annotations } };
    await client.patch(customResourceDefinitions, { name }, { type: 'merge', body });
    await registerWebhooks(client, { kind: 'url', hostPort: '127.0.0.1:9' }, 'none');
    const findings = await run();
    assert.match(
      of(findings, 'other controllers').join(),
      /^problem: MutatingWebhookConfiguration spiderpool-controller/,
    );
    assert.match(
      of(findings, 'definitions').join(),
      /^warning: spiderippools.+ belongs to the Helm release spiderpool/,
    );
    assert.match(of(findings, 'webhooks').join(), /^problem: registered, and no controller leads/);
    await client.delete(validatingWebhookConfigurations, { name: 'sluice-controller' });
    assert.match(of(await run(), 'webhooks').join(), /^ok: not registered yet/);
  });
});
