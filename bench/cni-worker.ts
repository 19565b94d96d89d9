/** Runs inside a lab node's namespace: DIR ID PODS. Prints a WorkerReport. */
import { join } from 'node:path';
import { pods as podResource } from '../src/api/resources.ts';
import { createNamedNetns, removeNamedNetns } from '../src/kernel/netns.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { loadKubeConfig } from '../src/kube/config.ts';
import { labLayout, nodePaths } from '../src/lab/layout.ts';
import { type NetworkList, parseNetworkList } from '../src/lab/node/cni-config.ts';
import { CniRunner, type CniAttachmentRequest } from '../src/lab/node/cni-runner.ts';
import { newContainerId } from '../src/lab/node/pod-network.ts';
import { networkAttachmentDefinitions } from '../src/api/resources.ts';
import { parallel, type ChainTimes, type WorkerReport } from './cni.ts';

const [dir = '', id = '', count = '0'] = process.argv.slice(2);
const lab = labLayout({ dir, id });
const node = nodePaths(lab, 'node1');
const client = createKubeClient(loadKubeConfig({ path: lab.nodeKubeconfig }));
const runner = new CniRunner({
  binDirs: [lab.cniBinDir, '/usr/lib/cni'],
  env: { PATH: process.env['PATH'] ?? '', SLUICE_CNI_SOCKET: node.cniSocket },
  timeoutMs: 60_000,
});

const plainChain = {
  cniVersion: '1.0.0',
  name: 'plain',
  plugins: [
    {
      type: 'macvlan',
      master: 'ens192',
      mode: 'bridge',
      ipam: {
        type: 'host-local',
        dataDir: join(lab.runDir, 'host-local'),
        ranges: [[{ subnet: '172.51.0.0/16', rangeStart: '172.51.200.1', rangeEnd: '172.51.209.254' }]],
      },
    },
    { type: 'tuning', sysctl: { 'net.core.somaxconn': '4096' } },
  ],
};

interface NadObject {
  readonly metadata: { readonly name: string };
  readonly spec?: { readonly config?: string };
}

async function oursChain(): Promise<NetworkList> {
  const nad = (await client.get(networkAttachmentDefinitions, {
    namespace: 'kube-system',
    name: 'default',
  })) as unknown as NadObject;
  return parseNetworkList(nad.spec?.config ?? '', 'the default attachment', 'default');
}

/**
 * Not for any scheduler: no kubelet starts it, but the agent finds it. IPv4 only, as the plain chain: with IPv6 the main plugin
 * of either chain waits one to two seconds for duplicate address detection.
 */
async function createPod(kube: KubeClient, name: string): Promise<string> {
  const annotations = { 'ipam.spidernet.io/ippool': JSON.stringify({ ipv4: ['lab-default-v4'] }) };
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { app: 'bench' }, annotations },
    spec: { schedulerName: 'nobody', containers: [{ name: 'c', image: 'none' }] },
  };
  const created = (await kube.create(podResource, pod as never)) as unknown as { metadata: { uid: string } };
  return created.metadata.uid;
}

/** A pod and its namespace for as long as the task runs. */
async function withPod<T>(name: string, task: (request: CniAttachmentRequest) => Promise<T>): Promise<T> {
  const uid = await createPod(client, name);
  const netns = `/run/netns/sluice-${id}-${name}`;
  createNamedNetns(netns);
  try {
    const containerId = newContainerId();
    const args = {
      IgnoreUnknown: '1',
      K8S_POD_NAMESPACE: 'default',
      K8S_POD_NAME: name,
      K8S_POD_INFRA_CONTAINER_ID: containerId,
      K8S_POD_UID: uid,
    };
    return await task({ containerId, netns, ifName: 'eth0', args });
  } finally {
    removeNamedNetns(netns);
    await client.delete(podResource, { namespace: 'default', name }, { gracePeriodSeconds: 0 });
  }
}

/** One after another: milliseconds of each ADD and DEL. */
async function measure(list: NetworkList, prefix: string): Promise<ChainTimes> {
  const times = { add: [] as number[], del: [] as number[] };
  for (let index = 0; index < Number(count); index++) {
    await withPod(`${prefix}-${index}`, async (request) => {
      const start = performance.now();
      const result = await runner.add(list, request);
      const added = performance.now();
      await runner.del(list, request, result);
      times.add.push(added - start);
      times.del.push(performance.now() - added);
    });
  }
  return times;
}

/** Milliseconds of each ADD when this many begin at the same moment. */
async function measureTogether(list: NetworkList, prefix: string): Promise<number[]> {
  const started = new Barrier(parallel);
  const pods = Array.from({ length: parallel }, (_, index) =>
    withPod(`${prefix}-${index}`, async (request) => {
      await started.arrive();
      const start = performance.now();
      const result = await runner.add(list, request);
      const tookMs = performance.now() - start;
      await runner.del(list, request, result);
      return tookMs;
    }),
  );
  return Promise.all(pods);
}

/** Everybody waits until all are there. */
class Barrier {
  readonly #open: Promise<void>;
  #missing: number;
  #release: () => void = () => undefined;

  constructor(parties: number) {
    this.#missing = parties;
    this.#open = new Promise((resolve) => (this.#release = resolve));
  }

  arrive(): Promise<void> {
    if (--this.#missing === 0) this.#release();
    return this.#open;
  }
}

const ours = await oursChain();
const plain = parseNetworkList(JSON.stringify(plainChain), 'the plain chain', 'plain');
const suffix = Math.random().toString(36).slice(2, 7);
const report: WorkerReport = {
  ours: await measure(ours, `o${suffix}`),
  plain: await measure(plain, `p${suffix}`),
  oursTogether: await measureTogether(ours, `ot${suffix}`),
  plainTogether: await measureTogether(plain, `pt${suffix}`),
};
process.stdout.write(JSON.stringify(report));
client.close();
