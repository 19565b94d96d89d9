/** The suites' world in a lab: nine pods on two nodes, a prober in each, and the actions of a case through the API. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ContainerPort, Namespace, Pod } from '../../src/api/kubernetes.ts';
import { namespaces, networkPolicies, pods } from '../../src/api/resources.ts';
import type { Labels } from '../../src/core/labels.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { loadKubeConfig } from '../../src/kube/config.ts';
import { labLayout, nodePaths, podNetnsPath } from '../../src/lab/layout.ts';
import { labDown } from '../../src/lab/lifecycle/down.ts';
import { mustLabState } from '../../src/lab/lifecycle/state.ts';
import { labUp, type LabUpOptions } from '../../src/lab/lifecycle/up.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { namespaceNames, podNames, type Action, type PodName } from './case.ts';
import { Prober } from './prober.ts';
import {
  initialNamespaceLabels,
  initialPodLabels,
  servedContainerPorts,
  splitName,
  type Addressing,
  type Scene,
} from './scene.ts';

const patience = { timeoutMs: 120_000 };

interface PodOptions {
  readonly ports?: readonly ContainerPort[];
  readonly annotations?: Labels;
}

interface LabPod {
  readonly netns: string;
  readonly prober: Prober;
  readonly addresses: ReturnType<Addressing>;
}

export class LabCluster {
  readonly #home = mkdtempSync(join(tmpdir(), 'sluice-suites-'));
  readonly #options: LabUpOptions;
  readonly #pods = new Map<PodName, LabPod>();
  #client: KubeClient | undefined;
  #labId = '';

  constructor(env: { readonly path: string; readonly uid: number | undefined }) {
    const dir = join(this.#home, 'lab');
    this.#options = {
      dir,
      nodes: 2,
      link: 'macvlan',
      apiHost: '127.0.0.1',
      apiPort: 0,
      path: env.path,
      vmCacheDir: join(dir, 'no-vm'),
      uid: env.uid,
      onProgress: () => undefined,
    };
  }

  get client(): KubeClient {
    if (this.#client === undefined) throw new Error('the lab is not up');
    return this.#client;
  }

  readonly addressing: Addressing = (pod) => this.#mustPod(pod).addresses;

  proberOf(pod: PodName): Prober {
    return this.#mustPod(pod).prober;
  }

  netnsOf(pod: PodName): string {
    return this.#mustPod(pod).netns;
  }

  /** Where everything that is no pod lives. */
  places(): { readonly switchNetns: string; readonly nodeNetns: (name: string) => string } {
    const layout = labLayout(mustLabState(this.#options.dir));
    return { switchNetns: layout.switchNetns, nodeNetns: (name) => nodePaths(layout, name).netns };
  }

  async up(): Promise<void> {
    this.#client = createKubeClient(loadKubeConfig({ path: await labUp(this.#options) }), {
      userAgent: 'sluice-policy-suites',
    });
    this.#labId = mustLabState(this.#options.dir).id;
    await Promise.all(namespaceNames.map((name) => this.#createNamespace(name, initialNamespaceLabels(name))));
    await Promise.all(podNames.map((pod) => this.createPod(pod, initialPodLabels(pod))));
  }

  async down(): Promise<void> {
    for (const { prober } of this.#pods.values()) prober[Symbol.dispose]();
    this.#client?.close();
    await labDown(this.#options);
    rmSync(this.#home, { recursive: true, force: true });
  }

  /** What the action does to the cluster; resolves when new pods are ready and deleted ones are gone. */
  async apply(action: Action, scene: Scene): Promise<void> {
    switch (action.do) {
      case 'create policy':
      case 'update policy':
        return this.#writePolicy(action, scene);
      case 'delete policy':
        return this.client.delete(networkPolicies, { namespace: action.namespace, name: action.name });
      case 'create namespace':
        return this.#createNamespace(action.namespace, action.labels);
      case 'label namespace':
        return this.#labelNamespace(action.namespace, action.labels);
      case 'delete namespace':
        return this.#deleteNamespace(action.namespace);
      case 'create pod':
        return this.createPod(action.pod, action.labels);
      case 'label pod':
        return this.#labelPod(action.pod, action.labels);
      case 'delete pod':
        return this.deletePod(action.pod);
    }
  }

  /** Back to the world as it was: no policies, the nine pods, their labels. */
  async reset(actions: readonly Action[]): Promise<void> {
    for (const namespace of namespaceNames) {
      const { items } = await this.client.list(networkPolicies, { namespace });
      await Promise.all(
        items.map(({ metadata }) => this.client.delete(networkPolicies, { namespace, name: metadata?.name ?? '' })),
      );
    }
    for (const action of actions) {
      if (action.do === 'label namespace') {
        await this.#labelNamespace(action.namespace, initialNamespaceLabels(action.namespace));
      } else if (action.do === 'label pod') {
        await this.#labelPod(action.pod, initialPodLabels(action.pod));
      }
    }
    const extraPods = [...this.#pods.keys()].filter((pod) => !podNames.includes(pod));
    await Promise.all(extraPods.map((pod) => this.deletePod(pod)));
    const { items } = await this.client.list<Namespace>(namespaces, { labelSelector: 'ns' });
    const extra = items.map(({ metadata }) => metadata?.name ?? '');
    await Promise.all(
      extra.filter((name) => !namespaceNames.includes(name as 'x')).map((name) => this.#deleteNamespace(name)),
    );
  }

  async #writePolicy(action: Action & { do: 'create policy' | 'update policy' }, scene: Scene): Promise<void> {
    const policy = scene.bind(action.policy);
    const { namespace = '', name = '' } = policy.metadata ?? {};
    if (action.do === 'create policy') {
      await this.client.create(networkPolicies, { ...policy, metadata: { namespace, name } });
      return;
    }
    const body = [{ op: 'replace', path: '/spec', value: policy.spec }];
    await this.client.patch(networkPolicies, { namespace, name }, { type: 'json', body });
  }

  async #createNamespace(name: string, labels: Labels): Promise<void> {
    await this.client.create(namespaces, { metadata: { name, labels } });
  }

  async #labelNamespace(name: string, labels: Labels): Promise<void> {
    const value = { ...labels, 'kubernetes.io/metadata.name': name };
    await this.client.patch(namespaces, { name }, { type: 'json', body: replaceLabels(value) });
  }

  async #deleteNamespace(name: string): Promise<void> {
    for (const pod of [...this.#pods.keys()].filter((one) => splitName(one).namespace === name)) this.#forget(pod);
    await this.client.delete(namespaces, { name });
    await waitFor(
      `namespace ${name} to be gone`,
      async () => (await this.client.find(namespaces, { name })) === undefined,
      patience,
    );
  }

  /** Resolves when it is ready and probes can start in it; annotations and ports other than the suites' on request. */
  async createPod(pod: PodName, labels: Labels, options: PodOptions = {}): Promise<void> {
    const { namespace, name } = splitName(pod);
    const index = podNames.indexOf(pod);
    await this.client.create(pods, {
      metadata: { namespace, name, labels, annotations: options.annotations ?? {} },
      spec: {
        nodeName: index % 2 === 0 ? 'node1' : 'node2',
        terminationGracePeriodSeconds: 0,
        containers: [{ name: 'server', image: 'suites/server', ports: options.ports ?? servedContainerPorts }],
      },
    });
    await waitFor(`pod ${pod} to be ready`, async () => isReady(await this.client.get<Pod>(pods, splitName(pod))), {
      ...patience,
    });
    const made = await this.client.get<Pod>(pods, splitName(pod));
    const ips = (made.status?.podIPs ?? []).map(({ ip }) => ip);
    const [v4, v6] = [ips.find((ip) => !ip.includes(':')), ips.find((ip) => ip.includes(':'))];
    if (v4 === undefined || v6 === undefined) throw new Error(`pod ${pod} is not dual-stack: ${ips.join(' ')}`);
    const netns = podNetnsPath(this.#labId, made.metadata?.uid ?? '');
    this.#pods.set(pod, { netns, prober: new Prober(netns), addresses: { 4: v4, 6: v6 } });
  }

  /** A pod in its node's netns, which no prober enters. */
  async createHostNetworkPod(pod: PodName, labels: Labels, nodeName: string, ports: object[]): Promise<void> {
    const spec = { nodeName, hostNetwork: true, containers: [{ name: 'server', image: 'suites/server', ports }] };
    await this.client.create(pods, { metadata: { ...splitName(pod), labels }, spec } as Pod);
    await waitFor(`pod ${pod} to be ready`, async () => isReady(await this.client.get<Pod>(pods, splitName(pod))), {
      ...patience,
    });
  }

  /** A pod that does nothing and ends. */
  async runToEnd(pod: PodName, labels: Labels, annotations: Labels): Promise<void> {
    const containers = [{ name: 'main', image: 'suites/nothing', command: ['true'] }];
    const spec = { nodeName: 'node1', restartPolicy: 'Never', containers };
    await this.client.create(pods, { metadata: { ...splitName(pod), labels, annotations }, spec } as Pod);
    await waitFor(
      `pod ${pod} to have ended`,
      async () => (await this.client.get<Pod>(pods, splitName(pod))).status?.phase === 'Succeeded',
      patience,
    );
  }

  async #labelPod(pod: PodName, labels: Labels): Promise<void> {
    await this.client.patch(pods, splitName(pod), { type: 'json', body: replaceLabels(labels) });
  }

  async deletePod(pod: PodName): Promise<void> {
    this.#forget(pod);
    await this.client.delete(pods, splitName(pod), { gracePeriodSeconds: 0 });
    await waitFor(
      `pod ${pod} to be gone`,
      async () => (await this.client.find(pods, splitName(pod))) === undefined,
      patience,
    );
  }

  #forget(pod: PodName): void {
    this.#pods.get(pod)?.prober[Symbol.dispose]();
    this.#pods.delete(pod);
  }

  #mustPod(pod: PodName): LabPod {
    const found = this.#pods.get(pod);
    if (found === undefined) throw new Error(`pod ${pod} is not in the lab`);
    return found;
  }
}

function replaceLabels(value: Labels): object[] {
  return [{ op: 'replace', path: '/metadata/labels', value }];
}

function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
}
