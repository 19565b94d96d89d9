/** A lab on macvlan, from up to down, used with kubectl as its user would. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { findCgroup2Mount } from '../../kernel/cgroup.ts';
import { PacketCapture } from '../../kernel/packet-capture.ts';
import { netnsDir, netnsPrefix } from '../layout.ts';
import { labDown } from './down.ts';
import { readLabState, type LabState } from './state.ts';
import { labStatus } from './status.ts';
import { labUp } from './up.ts';
import { waitFor } from './wait.ts';

const path = process.env['PATH'] ?? '';
const patience = { timeoutMs: 120_000 };

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

describe('a lab', () => {
  const home = mkdtempSync(join(tmpdir(), 'sluice-e2e-home-'));
  const dir = join(home, 'lab');
  let kubeconfig = '';
  let state: LabState;

  const options = {
    dir,
    nodes: 2,
    link: 'macvlan' as const,
    apiHost: '127.0.0.1',
    apiPort: 0,
    path,
    vmCacheDir: join(dir, 'no-vm'),
    uid: process.getuid?.(),
    onProgress: () => undefined,
  };

  before(async () => {
    kubeconfig = await labUp(options);
    const found = readLabState(dir);
    assert.ok(found);
    state = found;
  });
  after(async () => {
    await labDown(options);
    rmSync(home, { recursive: true, force: true });
  });

  function kubectl(args: readonly string[], input = ''): Promise<Ran> {
    return new Promise((resolve) => {
      const env = { PATH: path, HOME: home, KUBECONFIG: kubeconfig };
      const child = execFile('kubectl', args, { env, timeout: 120_000 }, (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }),
      );
      child.stdin?.end(input);
    });
  }

  async function must(args: readonly string[], input = ''): Promise<string> {
    const ran = await kubectl(args, input);
    assert.equal(ran.code, 0, `kubectl ${args.join(' ')}: ${ran.stderr}`);
    return ran.stdout;
  }

  const apply = (manifest: object): Promise<string> => must(['apply', '-f', '-'], JSON.stringify(manifest));
  const pod = (name: string, spec: object, annotations: object = {}): object => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, annotations, labels: { app: name } },
    spec: { terminationGracePeriodSeconds: 5, ...spec },
  });
  const ready = (name: string): Promise<string> =>
    must(['wait', '--for=condition=Ready', `pod/${name}`, '--timeout=120s']);

  it('runs pods on both nodes that reach each other over IPv4 and IPv6, TCP and UDP', async () => {
    const ports = [{ containerPort: 80 }, { containerPort: 5353, protocol: 'UDP' }];
    await apply(pod('web', { nodeName: 'node1', containers: [{ name: 'nginx', image: 'nginx', ports }] }));
    const command = ['sh', '-c', 'echo hello $POD; echo problem >&2; exec sleep 1000'];
    const env = [{ name: 'POD', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }];
    await apply(pod('shell', { nodeName: 'node2', containers: [{ name: 'sh', image: 'busybox', command, env }] }));
    await Promise.all([ready('web'), ready('shell')]);
    const ips = (await must(['get', 'pod', 'web', '-o', 'jsonpath={.status.podIPs[*].ip}'])).split(' ');
    assert.equal(ips.length, 2);
    for (const ip of ips) {
      const host = ip.includes(':') ? `[${ip}]` : ip;
      assert.equal(await must(['exec', 'shell', '--', 'curl', '-sg', '-m', '10', `http://${host}/`]), 'web\n');
    }
    const udp = `exec 3<>/dev/udp/${ips[0] ?? ''}/5353; echo hi >&3; timeout 10 head -1 <&3`;
    assert.equal(await must(['exec', 'shell', '--', 'bash', '-c', udp]), 'web\n');
  });

  it('isolates a pod’s processes, host name and interfaces', async () => {
    const seen = await must([
      'exec',
      'shell',
      '--',
      'sh',
      '-c',
      'hostname; echo $(ls /sys/class/net); ps -e -o comm= | sort | tr "\\n" " "',
    ]);
    const [hostname, links = '', processes = ''] = seen.split('\n');
    assert.equal(hostname, 'shell');
    assert.deepEqual(links.trim().split(' '), ['eth0', 'lo', 'veth0']);
    assert.ok(!processes.includes('node'), processes);
  });

  it('keeps logs by stream, with tail, timestamps and follow', async () => {
    assert.equal(await must(['logs', 'shell']), 'hello shell\nproblem\n');
    assert.equal(await must(['logs', 'shell', '--tail=1']), 'problem\n');
    assert.match(await must(['logs', 'shell', '--timestamps', '--tail=1']), /^\d{4}-\d\d-\d\dT[\d:.]+Z problem\n$/);
  });

  it('runs commands with input, exit status and a terminal', async () => {
    assert.equal((await kubectl(['exec', 'shell', '--', 'sh', '-c', 'exit 4'])).code, 4);
    assert.equal(await must(['exec', 'shell', '--', 'readlink', '/proc/self/fd/0']), '/dev/null\n');
    assert.equal(await must(['exec', '-i', 'shell', '--', 'cat'], 'from standard input'), 'from standard input');
    const big = 'x'.repeat(3_000_000);
    assert.equal((await must(['exec', '-i', 'shell', '--', 'wc', '-c'], big)).trim(), String(big.length));
  });

  it('probes from the node to the pod’s address, whatever policy the pod has', async () => {
    await apply({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'closed' },
      spec: { podSelector: { matchLabels: { app: 'probed' } }, policyTypes: ['Ingress', 'Egress'] },
    });
    const containers = [
      {
        name: 'c',
        image: 'nginx',
        ports: [{ name: 'http', containerPort: 8080 }],
        startupProbe: { tcpSocket: { port: 'http' }, periodSeconds: 1 },
        readinessProbe: { httpGet: { port: 'http', path: '/' }, periodSeconds: 1 },
        livenessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
      },
    ];
    await apply(pod('probed', { containers }));
    await ready('probed');
    const livenessProbe = { tcpSocket: { port: 9 }, periodSeconds: 1, failureThreshold: 1 };
    const command = ['sleep', '1000'];
    await apply(pod('sick', { containers: [{ name: 'c', image: 'busybox', command, livenessProbe }] }));
    await waitFor(
      'a restart',
      async () =>
        Number(await must(['get', 'pod', 'sick', '-o', 'jsonpath={.status.containerStatuses[0].restartCount}'])) > 0,
      patience,
    );
    assert.match(await must(['describe', 'pod', 'sick']), /Liveness probe failed: dial tcp [0-9.]+:9: .*ECONNREFUSED/);
    assert.equal(
      await must(['get', 'pod', 'probed', '-o', 'jsonpath={.status.containerStatuses[0].restartCount}']),
      '0',
    );
    await must(['delete', 'networkpolicy/closed', 'pod/probed', 'pod/sick', '--grace-period=1']);
  });

  it('lets no packet of an egress-denied pod onto the underlay, from its first instruction on', async () => {
    await apply({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'mute' },
      spec: { podSelector: { matchLabels: { app: 'muted' } }, policyTypes: ['Egress'] },
    });
    const ports = { muted: 39_001, heard: 39_002 };
    using capture = PacketCapture.open(join(netnsDir, `${netnsPrefix(state.id)}switch`), 'br0');
    const seen = { muted: 0, heard: 0 };
    const drain = (): void => {
      for (const frame of capture.drain()) {
        const port = udpDestinationPort(frame);
        for (const name of ['muted', 'heard'] as const) if (port === ports[name]) seen[name]++;
      }
    };
    const draining = setInterval(drain, 10);
    try {
      // Both send from their first instruction, and ask nobody for an address before: the gateway is the switch itself.
      for (const name of ['muted', 'heard'] as const) {
        const send = `while :; do echo now > /dev/udp/172.51.0.1/${ports[name]}; sleep 0.01; done`;
        await apply(pod(name, { containers: [{ name: 'c', image: 'bash', command: ['bash', '-c', send] }] }));
      }
      await Promise.all([ready('muted'), ready('heard')]);
      await waitFor('the other pod to be heard', () => Promise.resolve(seen.heard > 100), patience);
      drain();
      assert.deepEqual({ ...seen, heard: seen.heard > 100 }, { muted: 0, heard: true });
    } finally {
      clearInterval(draining);
      await must(['delete', 'networkpolicy/mute', 'pod/muted', 'pod/heard', '--grace-period=1', '--ignore-not-found']);
    }
  });

  it('restarts what ends, and says so', async () => {
    await apply(
      pod('crash', { containers: [{ name: 'sh', image: 'busybox', command: ['sh', '-c', 'echo bye; exit 3'] }] }),
    );
    await waitFor(
      'CrashLoopBackOff',
      async () => (await must(['get', 'pod', 'crash'])).includes('CrashLoopBackOff'),
      patience,
    );
    const last = await must([
      'get',
      'pod',
      'crash',
      '-o',
      'jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}',
    ]);
    assert.equal(last, '3');
    assert.equal(await must(['logs', 'crash', '--previous']), 'bye\n');
    await must(['delete', 'pod', 'crash']);
  });

  it('runs init containers first and finishes pods that are done', async () => {
    const command = (text: string): readonly string[] => ['sh', '-c', text];
    const mount = [{ name: 'scratch', mountPath: '/mnt' }];
    await apply(
      pod('job', {
        restartPolicy: 'Never',
        volumes: [{ name: 'scratch', emptyDir: {} }],
        initContainers: [
          { name: 'prepare', image: 'busybox', command: command('echo 42 > /mnt/answer'), volumeMounts: mount },
        ],
        containers: [{ name: 'use', image: 'busybox', command: command('cat /mnt/answer'), volumeMounts: mount }],
      }),
    );
    await must(['wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/job', '--timeout=120s']);
    assert.equal(await must(['logs', 'job', '-c', 'use']), '42\n');
    assert.equal(existsSync('/mnt/answer'), false, 'the volume must not show outside of the pod');
    await must(['delete', 'pod', 'job']);
  });

  it('names pod, annotation and what exists when the attachment is missing, then retries', async () => {
    const annotations = { 'v1.multus-cni.io/default-network': 'kube-system/nope' };
    await apply(
      pod(
        'lost',
        { nodeName: 'node1', containers: [{ name: 'sh', image: 'busybox', command: ['sleep', '1000'] }] },
        annotations,
      ),
    );
    const event = async (): Promise<string> =>
      await must([
        'get',
        'events',
        '--field-selector',
        'reason=FailedCreatePodSandBox',
        '-o',
        'jsonpath={.items[*].message}',
      ]);
    await waitFor('the event', async () => (await event()) !== '', patience);
    const message = await event();
    assert.match(message, /^Failed to create pod sandbox: /);
    for (const part of [
      'pod default/lost',
      'v1.multus-cni.io/default-network="kube-system/nope"',
      'these exist: kube-system/default',
    ]) {
      assert.ok(message.includes(part), message);
    }
    await must(['delete', 'pod', 'lost']);
  });

  it('keeps pods, their ports and logs over kill -9 of kubelet and supervisor', async () => {
    const before = await must([
      'get',
      'pods',
      '-o',
      'jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[0].containerID} {end}',
    ]);
    for (const { name, pid } of (await labStatus({ dir })).processes) {
      if (name.startsWith('kubelet') || name === 'supervisor') process.kill(pid ?? 0, 'SIGKILL');
    }
    assert.equal(await labUp(options), kubeconfig);
    await waitFor(
      'all processes',
      async () => (await labStatus({ dir })).processes.every(({ alive }) => alive),
      patience,
    );
    const ip = await must(['get', 'pod', 'web', '-o', 'jsonpath={.status.podIP}']);
    await waitFor(
      'the port to be served',
      async () => (await kubectl(['exec', 'shell', '--', 'curl', '-s', '-m', '5', `http://${ip}/`])).stdout === 'web\n',
      patience,
    );
    assert.equal(
      await must([
        'get',
        'pods',
        '-o',
        'jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[0].containerID} {end}',
      ]),
      before,
    );
    assert.equal(await must(['logs', 'shell', '--tail=1']), 'problem\n');
  });

  it('refuses to become another lab', async () => {
    await assert.rejects(labUp({ ...options, nodes: 3 }), /one with 2 nodes on macvlan is there/);
  });

  it('leaves nothing behind, whatever was killed', async () => {
    for (const { pid } of (await labStatus({ dir })).processes.slice(0, 4))
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
    assert.equal(await labDown(options), true);
    assert.deepEqual(leftovers(state), []);
    assert.equal(await labDown(options), false);
  });
});

/** Everything on this machine that carries the lab's id or directory. */
function leftovers({ id, dir }: LabState): string[] {
  const named = (folder: string): string[] =>
    existsSync(folder)
      ? readdirSync(folder)
          .filter((name) => name.includes(id))
          .map((name) => join(folder, name))
      : [];
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(id) || line.includes(dir));
  const processes = readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name) && commandLine(name).includes(dir));
  return [
    ...named('/run'),
    ...named('/run/netns'),
    ...named(findCgroup2Mount()),
    ...mounts,
    ...processes.map((pid) => `process ${pid}`),
    ...(existsSync(dir) ? [dir] : []),
  ];
}

function commandLine(pid: string): string {
  if (pid === String(process.pid)) return '';
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** Of an Ethernet frame with UDP over IPv4 without options; undefined for anything else. */
function udpDestinationPort(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 42 || view.getUint16(12) !== 0x0800 || view.getUint8(23) !== 17) return undefined;
  return view.getUint16(36);
}
