/** An unmodified kubectl against the embedded API server. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startTestApiServer, type TestApiServer } from './testing.ts';

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const version = await run('kubectl', ['version', '--client'], {}).catch(() => undefined);

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Run> {
  return new Promise((resolve, reject) => {
    execFile(command, [...args], { env: { ...process.env, ...env }, timeout: 30_000 }, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== 'number')
        reject(new Error(`${command} did not run`, { cause: error }));
      else resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
    });
  });
}

const manifest = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop, labels: { app: web } }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
        - { name: main, image: "example/web:1", ports: [{ containerPort: 80 }] }
        - { name: side, image: "example/side:1" }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { selector: { app: web }, ports: [{ port: 80 }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: quiet, namespace: shop }
spec: { podSelector: { matchLabels: { app: web } }, policyTypes: [Egress] }
`;

describe('kubectl', { skip: version === undefined ? 'kubectl is not installed' : false }, () => {
  let server: TestApiServer;
  let dir: string;
  const kubectl = (...args: string[]): Promise<Run> =>
    run('kubectl', args, { KUBECONFIG: server.kubeConfigPath, HOME: dir, KUBE_EDITOR: 'sed -i s/side:1/side:2/' });
  const ok = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await kubectl(...args);
    assert.equal(code, 0, `kubectl ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };

  before(async () => {
    server = await startTestApiServer();
    dir = mkdtempSync(join(tmpdir(), 'sluice-kubectl-'));
    await ok('apply', '-f', file('shop.yaml', manifest));
  });
  after(async () => {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  });

  test('apply a second time changes nothing; a changed file patches only what changed', async () => {
    const again = await ok('apply', '-f', join(dir, 'shop.yaml'));
    assert.deepEqual(
      again
        .trim()
        .split('\n')
        .map((line) => line.split(' ')[1]),
      Array(4).fill('unchanged'),
    );
    const changed = file(
      'changed.yaml',
      manifest.replace('example/web:1', 'example/web:2').replace(/.*side:1.*\n/, ''),
    );
    assert.match(await ok('apply', '-f', changed), /deployment\.apps\/web configured/);
    const containers = await ok(
      'get',
      'deploy',
      'web',
      '-n',
      'shop',
      '-o',
      'jsonpath={.spec.template.spec.containers[*].image}',
    );
    assert.equal(containers, 'example/web:2');
    await ok('apply', '-f', join(dir, 'shop.yaml'));
  });

  test('get prints the tables of a real cluster', async () => {
    const lines = (await ok('get', 'deploy,svc,netpol', '-n', 'shop', '-o', 'wide')).split('\n');
    const words = lines.map((line) => line.split(/ {2,}/));
    assert.ok(words.some((row) => row.join('|') === 'NAME|READY|UP-TO-DATE|AVAILABLE|AGE|CONTAINERS|IMAGES|SELECTOR'));
    assert.ok(
      words.some(
        (row) => row[0] === 'deployment.apps/web' && row[1] === '0/2' && row[5] === 'main,side' && row[7] === 'app=web',
      ),
    );
    assert.ok(words.some((row) => row[0] === 'networkpolicy.networking.k8s.io/quiet' && row[1] === 'app=web'));
    assert.match(await ok('get', 'ns', '--no-headers'), /^shop\s+Active\s+\d+s$/m);
    assert.match(await ok('get', 'svc', '-A'), /^shop\s+web\s+ClusterIP\s+10\.96\./m);
    assert.match(await ok('get', 'deploy', '-A', '-l', 'app=web', '-o', 'name'), /^deployment\.apps\/web$/m);
    assert.match(await ok('get', 'all', '-n', 'shop'), /service\/web[\s\S]*deployment\.apps\/web/);
  });

  test('edit, patch, label, annotate and scale', async () => {
    assert.match(await ok('edit', 'deploy', 'web', '-n', 'shop'), /edited/);
    const images = ['get', 'deploy', 'web', '-n', 'shop', '-o', 'jsonpath={.spec.template.spec.containers[*].image}'];
    assert.equal(await ok(...images), 'example/web:1 example/side:2');
    await ok(
      'patch',
      'deploy',
      'web',
      '-n',
      'shop',
      '-p',
      '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"example/side:3"}]}}}}',
    );
    assert.equal(await ok(...images), 'example/web:1 example/side:3');
    await ok(
      'patch',
      'deploy',
      'web',
      '-n',
      'shop',
      '--type=json',
      '-p',
      '[{"op":"replace","path":"/spec/template/spec/containers/1/image","value":"example/side:1"}]',
    );
    assert.equal(await ok(...images), 'example/web:1 example/side:1');
    await ok('label', 'deploy', 'web', '-n', 'shop', 'tier=front');
    await ok('annotate', 'deploy', 'web', '-n', 'shop', 'note=x');
    await ok('label', 'deploy', 'web', '-n', 'shop', 'tier-');
    await ok('scale', 'deploy', 'web', '-n', 'shop', '--replicas=5');
    const after = JSON.parse(await ok('get', 'deploy', 'web', '-n', 'shop', '-o', 'json')) as {
      metadata: { labels: object; annotations: Record<string, string> };
      spec: { replicas: number };
    };
    assert.deepEqual(after.metadata.labels, { app: 'web' });
    assert.equal(after.metadata.annotations.note, 'x');
    assert.equal(after.spec.replicas, 5);
    assert.equal(
      (await kubectl('scale', 'deploy', 'web', '-n', 'shop', '--current-replicas=9', '--replicas=1')).code,
      1,
    );
  });

  test('create by generators, which send protobuf', async () => {
    await ok('create', 'namespace', 'made');
    await ok('create', 'deployment', 'made', '--image=example/made:1', '--replicas=3', '-n', 'made');
    await ok('create', 'configmap', 'made', '--from-literal=key=value', '-n', 'made');
    await ok('create', 'secret', 'generic', 'made', '--from-literal=key=value', '-n', 'made');
    await ok('expose', 'deployment', 'made', '--port=80', '--target-port=http', '-n', 'made');
    assert.equal(
      await ok(
        'get',
        'deploy',
        'made',
        '-n',
        'made',
        '-o',
        'jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}',
      ),
      '3 example/made:1',
    );
    assert.equal(await ok('get', 'cm', 'made', '-n', 'made', '-o', 'jsonpath={.data.key}'), 'value');
    assert.equal(await ok('get', 'secret', 'made', '-n', 'made', '-o', 'jsonpath={.data.key}'), 'dmFsdWU=');
    assert.equal(await ok('get', 'svc', 'made', '-n', 'made', '-o', 'jsonpath={.spec.ports[0].targetPort}'), 'http');
    assert.match(await ok('auth', 'can-i', 'create', 'pods'), /yes/);
  });

  test('describe, explain, api-resources, cluster-info and version', async () => {
    assert.match(
      await ok('describe', 'deploy', 'web', '-n', 'shop'),
      /RollingUpdateStrategy:\s+25% max unavailable, 25% max surge/,
    );
    assert.match(await ok('describe', 'netpol', 'quiet', '-n', 'shop'), /Policy Types: Egress/);
    assert.match(await ok('describe', 'ns', 'shop'), /Status:\s+Active/);
    assert.match(await ok('explain', 'pod.spec.containers.image'), /FIELD: image <string>/);
    assert.match(await ok('api-resources', '--api-group=apps'), /deployments\s+deploy\s+apps\/v1\s+true\s+Deployment/);
    assert.match(await ok('cluster-info'), /https:\/\/127\.0\.0\.1/);
    assert.match(await ok('version'), /Server Version: v1\.32\./);
  });

  test('create, get and describe Jobs and CronJobs', async () => {
    await ok('create', 'job', 'once', '--image=none', '-n', 'shop');
    await ok('create', 'cronjob', 'nightly', '--image=none', '--schedule=0 3 * * *', '-n', 'shop');
    assert.match(
      await ok('get', 'jobs', '-n', 'shop'),
      /^NAME\s+STATUS\s+COMPLETIONS\s+DURATION\s+AGE\nonce\s+Running\s+0\/1\s+\d+s/,
    );
    assert.match(
      await ok('get', 'cj', '-n', 'shop'),
      /^NAME\s+SCHEDULE\s+TIMEZONE\s+SUSPEND\s+ACTIVE\s+LAST SCHEDULE\s+AGE\nnightly\s+0 3 \* \* \*\s+<none>\s+False\s+0\s+<none>\s+\d+s/,
    );
    assert.match(await ok('describe', 'job', 'once', '-n', 'shop'), /Completions:\s+1/);
    await ok('delete', 'job/once', 'cronjob/nightly', '-n', 'shop');
  });

  test('a typing mistake in a manifest is refused and named', async () => {
    const { code, stderr } = await kubectl(
      'apply',
      '-f',
      file('bad.yaml', manifest.replace('replicas: 2', 'replicaz: 2')),
    );
    assert.equal(code, 1);
    assert.match(stderr, /strict decoding error: unknown field "spec\.replicaz"/);
    const server = await kubectl('apply', '--server-side', '-f', join(dir, 'shop.yaml'));
    assert.match(server.stderr, /server-side apply is not offered/);
  });

  test('wait and rollout status follow the status; get -w shows changes as they come', async () => {
    await ok('create', 'configmap', 'watched', '-n', 'shop');
    const watch = spawn('kubectl', ['get', 'cm', 'watched', '-n', 'shop', '-w'], {
      env: { ...process.env, KUBECONFIG: server.kubeConfigPath, HOME: dir },
    });
    let shown = '';
    const seen = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`watch showed only: ${shown}`)), 15_000);
      watch.stdout.on('data', (chunk: Buffer) => {
        shown += chunk.toString('utf8');
        const rows = shown.split('\n').length - 1;
        if (rows === 2)
          void ok('patch', 'cm', 'watched', '-n', 'shop', '--type=merge', '-p', '{"data":{"a":"1","b":"2"}}');
        if (rows < 3) return;
        clearTimeout(timer);
        resolve();
      });
    });
    try {
      await seen;
    } finally {
      watch.kill();
    }
    assert.match(shown, /^NAME\s+DATA\s+AGE\nwatched\s+0\s+\d+s\nwatched\s+2\s+\d+s/);
    const rollout = ok('rollout', 'status', 'deploy/web', '-n', 'shop', '--timeout=20s');
    const waiting = ok('wait', 'deploy/web', '-n', 'shop', '--for=condition=Available', '--timeout=20s');
    await ok(
      'patch',
      'deploy',
      'web',
      '-n',
      'shop',
      '--subresource=status',
      '--type=merge',
      '-p',
      JSON.stringify({
        status: {
          observedGeneration: 99,
          replicas: 5,
          updatedReplicas: 5,
          readyReplicas: 5,
          availableReplicas: 5,
          conditions: [{ type: 'Available', status: 'True' }],
        },
      }),
    );
    assert.match(await rollout, /successfully rolled out/);
    assert.match(await waiting, /condition met/);
  });

  test('delete waits until the object, and everything in a namespace, is gone', async () => {
    await ok('create', 'namespace', 'doomed');
    await ok('run', 'pod', '--image=example/pod:1', '-n', 'doomed');
    assert.match(await ok('delete', 'pod', 'pod', '-n', 'doomed', '--grace-period=1'), /deleted/);
    await ok('delete', 'ns', 'doomed', '--timeout=20s');
    assert.match((await kubectl('get', 'ns', 'doomed')).stderr, /namespaces "doomed" not found/);
    assert.match(
      (await kubectl('get', 'pod', 'none', '-n', 'shop')).stderr,
      /Error from server \(NotFound\): pods "none" not found/,
    );
  });

  test("the product's custom resources: apply, table, invalid field", async () => {
    const path = new URL('../../../deploy/crds/k8s.cni.cncf.io_network-attachment-definitions.yaml', import.meta.url);
    assert.match(readFileSync(path, 'utf8'), /NetworkAttachmentDefinition/);
    await ok('apply', '-f', path.pathname);
    await ok(
      'wait',
      '--for=condition=Established',
      'crd',
      'network-attachment-definitions.k8s.cni.cncf.io',
      '--timeout=10s',
    );
    const attachment = `{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"name":"a","namespace":"shop"},"spec":{"config":"{}"}}`;
    await ok('apply', '-f', file('nad.json', attachment));
    assert.match(await ok('apply', '-f', file('nad.json', attachment.replace('{}', '{ }'))), /configured/);
    assert.match(await ok('get', 'net-attach-def', '-n', 'shop'), /^a\s+\d+s$/m);
    const bad = await kubectl('apply', '-f', file('bad.json', attachment.replace('"config":"{}"', '"confix":"{}"')));
    assert.match(bad.stderr, /unknown field "spec\.confix"/);
  });
});
