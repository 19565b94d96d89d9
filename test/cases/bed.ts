/** One lab for many cases: each has a namespace, subnets and pools of its own, so they run side by side. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import type { Event, KubeObject, Pod } from '../../src/api/kubernetes.ts';
import {
  events,
  namespaces,
  networkAttachmentDefinitions,
  pods,
  spiderIPPools,
  spiderMultusConfigs,
  type GroupVersionResource,
} from '../../src/api/resources.ts';
import type { PoolSpec, SpiderIPPool } from '../../src/api/spiderippool.ts';
import { decodeAllocatedIps } from '../../src/ipam/allocated-ips.ts';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import { loadKubeConfig } from '../../src/kube/config.ts';
import { isNotFound } from '../../src/kube/error.ts';
import { labLayout, nodePaths, type LabLayout } from '../../src/lab/layout.ts';
import { labDown } from '../../src/lab/lifecycle/down.ts';
import { cliCommand } from '../../src/lab/lifecycle/entry.ts';
import { readLabState } from '../../src/lab/lifecycle/state.ts';
import { labUp } from '../../src/lab/lifecycle/up.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { apiCluster } from '../../src/lab/walkthrough/api-cluster.ts';
import type { Cluster, ExecResult } from '../../src/lab/walkthrough/cluster.ts';

const patience = { timeoutMs: 120_000 };

export interface Bed {
  readonly dir: string;
  readonly kubeconfig: string;
  readonly kube: KubeClient;
  readonly cluster: Cluster;
  down(): Promise<void>;
}

/** SLUICE_TEST_LAB=DIR: in a lab that is up, and stays. `vmCacheDir`: in the virtual machine, where the kernel has no such link. */
export async function bedUp(link: 'macvlan' | 'ipvlan' = 'macvlan', vmCacheDir?: string): Promise<Bed> {
  const own = process.env['SLUICE_TEST_LAB'];
  if (own !== undefined) return bedIn(own, join(own, 'kubeconfig'), () => Promise.resolve());
  const home = mkdtempSync(join(tmpdir(), 'sluice-cases-'));
  const dir = join(home, 'lab');
  const options = {
    ...{ dir, nodes: 2, link, apiHost: '127.0.0.1', apiPort: 0, path: process.env['PATH'] ?? '' },
    ...{ vmCacheDir: vmCacheDir ?? join(dir, 'no-vm'), uid: process.getuid?.(), onProgress: () => undefined },
  };
  const kubeconfig = await labUp(options);
  return bedIn(dir, kubeconfig, async () => {
    await labDown(options);
    rmSync(home, { recursive: true, force: true });
  });
}

function bedIn(dir: string, kubeconfig: string, down: () => Promise<void>): Bed {
  const kube = createKubeClient(loadKubeConfig({ path: kubeconfig }));
  const close = async (): Promise<void> => {
    kube.close();
    await down();
  };
  return { dir, kubeconfig, kube, cluster: apiCluster(kubeconfig), down: close };
}

/** A node's, or any other's that goes with the lab. */
export function netnsOf(bed: Bed, name: string): string {
  return nodePaths(layoutOf(bed), name).netns;
}

/** What the command prints in the node's network namespace. */
export function onNode(bed: Bed, node: string, ...command: readonly string[]): Promise<string> {
  return printed('nsenter', [`--net=${netnsOf(bed, node)}`, ...command]);
}

/** The underlay's switch is its gateway too. */
export function onSwitch(bed: Bed, ...command: readonly string[]): Promise<string> {
  return printed('nsenter', [`--net=${layoutOf(bed).switchNetns}`, ...command]);
}

/** What `sluice … --json` says about the lab. */
export async function sluiceJson(bed: Bed, ...args: readonly string[]): Promise<unknown> {
  const { code, stdout, stderr } = await runSluice(bed, ...args, '--json');
  assert.equal(code, 0, `sluice ${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** `sluice …` about the lab, as somebody types it: the built program where there is one, `make test` builds it. */
export function runSluice(bed: Bed, ...args: readonly string[]): Promise<Ran> {
  const [file = '', ...command] = cliCommand({ preferBundle: true });
  return new Promise((resolve) =>
    execFile(file, [...command, ...args, '--lab', bed.dir], { timeout: 120_000 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    ),
  );
}

function layoutOf({ dir }: Bed): LabLayout {
  return labLayout(readLabState(dir) ?? assert.fail(`no lab in ${dir}`));
}

async function printed(file: string, args: readonly string[]): Promise<string> {
  return (await promisify(execFile)(file, args, { timeout: 120_000 })).stdout;
}

/** A test of the catalogue's case `id`; what it made is removed whatever happens. */
export function caseOf(id: string, what: string, bed: () => Bed, run: (space: CaseSpace) => Promise<void>): void {
  it(`${id} ${what}`, async () => {
    const space = await CaseSpace.make(bed(), id);
    try {
      await run(space);
    } finally {
      await space.clear();
    }
  });
}

let subnetsTaken = 0;

export interface PodOptions {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly node?: string;
  readonly namespace?: string;
  readonly spec?: Pod['spec'];
}

export const ippool = 'ipam.spidernet.io/ippool';
export const ippools = 'ipam.spidernet.io/ippools';
export const defaultNetwork = 'v1.multus-cni.io/default-network';
export const networks = 'k8s.v1.cni.cncf.io/networks';

export class CaseSpace {
  readonly bed: Bed;
  readonly namespace: string;
  readonly #id: string;
  readonly #namespaces: string[] = [];
  readonly #made: { readonly gvr: GroupVersionResource; readonly name: string }[] = [];

  static async make(bed: Bed, id: string): Promise<CaseSpace> {
    const space = new CaseSpace(bed, id.toLowerCase());
    await space.addNamespace(space.namespace);
    return space;
  }

  private constructor(bed: Bed, id: string) {
    this.bed = bed;
    this.#id = id;
    this.namespace = `case-${id}`;
  }

  get kube(): KubeClient {
    return this.bed.kube;
  }

  async addNamespace(name: string, metadata: KubeObject['metadata'] = {}): Promise<string> {
    await this.kube.create(namespaces, { metadata: { ...metadata, name } });
    this.#namespaces.push(name);
    return name;
  }

  /** "10.9.N": a /24 that no other case has. */
  subnet(): string {
    subnetsTaken += 1;
    return `10.${Math.floor(subnetsTaken / 250) + 9}.${subnetsTaken % 250}`;
  }

  /** "fd09:N": a /64 that no other case has. */
  subnet6(): string {
    subnetsTaken += 1;
    return `fd09:${subnetsTaken.toString(16)}`;
  }

  /** A pool of this case with addresses .10 to .9+count of a subnet of its own; its name. */
  async pool(name: string, count = 5, spec: Partial<PoolSpec> = {}): Promise<string> {
    const net = this.subnet();
    return this.poolOf(name, { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.${9 + count}`], ...spec });
  }

  async pool6(name: string, count = 5, spec: Partial<PoolSpec> = {}): Promise<string> {
    const net = this.subnet6();
    return this.poolOf(name, {
      subnet: `${net}::/64`,
      ips: [`${net}::10-${net}::${(15 + count).toString(16)}`],
      ...spec,
    });
  }

  async poolOf(name: string, spec: PoolSpec): Promise<string> {
    const full = `${this.#id}-${name}`;
    await this.kube.create(spiderIPPools, { metadata: { name: full }, spec } as KubeObject);
    this.willRemove(spiderIPPools, full);
    return full;
  }

  /** A macvlan attachment on ens192 with the policy plugin and the coordinator; its "namespace/name". */
  async attachment(
    name: string,
    spec: object = {},
    annotations: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const { namespace } = this;
    const base = { cniType: 'macvlan', macvlan: { master: ['ens192'] }, chainCNIJsonData: ['{"type":"sluice"}'] };
    const object = { metadata: { namespace, name, annotations }, spec: { ...base, ...spec } };
    await this.kube.create(spiderMultusConfigs, object);
    await waitFor(
      `attachment ${name}`,
      async () => (await this.kube.find(networkAttachmentDefinitions, { namespace, name })) !== undefined,
      patience,
    );
    return `${namespace}/${name}`;
  }

  willRemove(gvr: GroupVersionResource, name: string): void {
    this.#made.push({ gvr, name });
  }

  createPod(name: string, options: PodOptions = {}): Promise<Pod> {
    const { annotations, labels, namespace = this.namespace, node } = options;
    const spec = {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'c', image: 'none', command: ['sleep', '100000'] }],
      ...(node !== undefined && { nodeName: node }),
      ...options.spec,
    };
    const metadata = { namespace, name, labels: { app: name, ...labels }, ...(annotations && { annotations }) };
    return this.kube.create<Pod>(pods, { metadata, spec });
  }

  /** Created, and running with addresses. */
  async pod(name: string, options: PodOptions = {}): Promise<Pod> {
    await this.createPod(name, options);
    return this.ready(name, options.namespace);
  }

  async ready(name: string, namespace = this.namespace): Promise<Pod> {
    let pod: Pod | undefined;
    await waitFor(
      `pod ${namespace}/${name}${await this.#lastEvent(name, namespace)}`,
      async () => {
        pod = await this.kube.find<Pod>(pods, { namespace, name });
        return pod?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;
      },
      patience,
    );
    return pod ?? assert.fail();
  }

  /** Until `count` pods with the label app=`app` are ready. */
  async readyPods(app: string, count: number): Promise<Pod[]> {
    let found: Pod[] = [];
    await waitFor(
      `${count} pods of ${app} in ${this.namespace}`,
      async () => {
        const { items } = await this.kube.list<Pod>(pods, { namespace: this.namespace, labelSelector: `app=${app}` });
        found = items.filter(
          ({ metadata, status }) =>
            metadata?.deletionTimestamp === undefined &&
            status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'),
        );
        return found.length === count && items.length === count;
      },
      patience,
    );
    return found;
  }

  /** Created, and refused by the network with a message that matches. */
  async refused(name: string, message: RegExp, options: PodOptions = {}): Promise<void> {
    await this.createPod(name, options);
    await this.failsWith(name, message);
  }

  async failsWith(name: string, message: RegExp): Promise<void> {
    let last = '';
    await waitFor(
      `pod ${name} to fail with ${message}`,
      async () => {
        last = (await this.#sandboxFailures(name)).join('\n');
        return message.test(last);
      },
      { ...patience, failed: () => (last !== '' && !message.test(last) ? `it failed with: ${last}` : undefined) },
    );
    const pod = await this.kube.get<Pod>(pods, { namespace: this.namespace, name });
    assert.notEqual(pod.status?.phase, 'Running');
  }

  async remove(name: string, namespace = this.namespace): Promise<void> {
    await this.kube.delete(pods, { namespace, name }, { gracePeriodSeconds: 0 });
    await this.gone(pods, name, namespace);
  }

  async gone(gvr: GroupVersionResource, name: string, namespace?: string): Promise<void> {
    const ref = { name, ...(namespace !== undefined && { namespace }) };
    await waitFor(`${gvr.kind} ${name} to go`, async () => (await this.kube.find(gvr, ref)) === undefined, patience);
  }

  async readPool(name: string): Promise<SpiderIPPool> {
    return (await this.kube.get(spiderIPPools, { name })) as SpiderIPPool;
  }

  /** "namespace/pod" by address. */
  async records(pool: string): Promise<Map<string, string>> {
    const { status } = await this.readPool(pool);
    return new Map([...decodeAllocatedIps(status?.allocatedIPs, pool)].map(([address, { pod }]) => [address, pod]));
  }

  async recordsBecome(pool: string, count: number): Promise<void> {
    let found: Map<string, string> = new Map();
    const done = async (): Promise<boolean> => (found = await this.records(pool)).size === count;
    await waitFor(`${count} records in ${pool}`, done, patience).catch((error: unknown) => {
      assert.fail(`${String(error)}: ${JSON.stringify([...found])}`);
    });
  }

  exec(name: string, ...command: readonly string[]): Promise<ExecResult> {
    return this.bed.cluster.exec({ namespace: this.namespace, name }, command, 60_000);
  }

  /** What the command prints. */
  async output(name: string, ...command: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.exec(name, ...command);
    assert.equal(exitCode, 0, `${command.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** Addresses of an interface of the pod, as the kernel has them. */
  async addressesOn(name: string, interfaceName = 'eth0'): Promise<string[]> {
    const text = await this.output(name, 'ip', '-o', 'addr', 'show', 'dev', interfaceName, 'scope', 'global');
    return [...text.matchAll(/inet6? ([^/ ]+)/g)].map(([, address = '']) => address);
  }

  async clear(): Promise<void> {
    const { kube } = this;
    for (const namespace of this.#namespaces) {
      const { items } = await kube.list<Pod>(pods, { namespace });
      for (const { metadata } of items) {
        const ref = { namespace, name: metadata?.name ?? '' };
        await kube.delete(pods, ref, { gracePeriodSeconds: 0 }).catch(ignoreMissing);
      }
      await kube.delete(namespaces, { name: namespace }).catch(ignoreMissing);
    }
    for (const { gvr, name } of this.#made.reverse()) await kube.delete(gvr, { name }).catch(ignoreMissing);
  }

  async #sandboxFailures(name: string): Promise<string[]> {
    const { items } = await this.kube.list<Event>(events, { namespace: this.namespace });
    return items
      .filter(({ involvedObject, reason }) => involvedObject?.name === name && reason === 'FailedCreatePodSandBox')
      .map(({ message }) => message ?? '');
  }

  async #lastEvent(name: string, namespace: string): Promise<string> {
    const { items } = await this.kube.list<Event>(events, { namespace });
    const own = items.filter(({ involvedObject, type }) => involvedObject?.name === name && type === 'Warning');
    return own.map(({ message }) => `, ${message ?? ''}`).join('');
  }
}

function ignoreMissing(error: unknown): void {
  if (!isNotFound(error)) throw error;
}

export function ipsOf(pod: Pod): string[] {
  return (pod.status?.podIPs ?? []).map(({ ip }) => ip);
}

/** `{"ipv4":[…],"ipv6":[…]}` */
export function fromPools(ipv4: readonly string[], ipv6: readonly string[] = []): Record<string, string> {
  const value = { ...(ipv4.length > 0 && { ipv4 }), ...(ipv6.length > 0 && { ipv6 }) };
  return { [ippool]: JSON.stringify(value) };
}
