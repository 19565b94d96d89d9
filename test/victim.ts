/** A pod that a test kills the agent for, what it has in its pools, and what its runtime asks. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { KubeObject, ObjectMeta, Pod } from '../src/api/kubernetes.ts';
import {
  deployments,
  namespaces,
  pods,
  replicaSets,
  spiderEndpoints,
  spiderIPPools,
  spiderReservedIPs,
  spiderSubnets,
  statefulSets,
  type GroupVersionResource,
} from '../src/api/resources.ts';
import type { SpiderEndpoint } from '../src/api/spiderendpoint.ts';
import type { SpiderIPPool } from '../src/api/spiderippool.ts';
import type { SpiderReservedIP } from '../src/api/spiderreservedip.ts';
import type { SpiderSubnet } from '../src/api/spidersubnet.ts';
import { AutoPoolReconciler, applicationKey, type ApplicationState } from '../src/controller/auto-pool-reconciler.ts';
import { kubeAccess } from '../src/controller/kube-access.ts';
import { decodeAllocatedIps, type AllocationRecord } from '../src/ipam/allocated-ips.ts';
import { unlessNotFound } from '../src/kube/error.ts';
import { type AgentBed, node } from './agent-bed.ts';
import { callShim } from './cni-shim.ts';

export type Interface = 'eth0' | 'net1';
type PoolSet = 'first' | 'second';

export interface Answer {
  readonly status: number | null;
  readonly addresses: readonly string[];
}

/** A pod in a namespace of its own, with pools of its own that hold exactly what it needs. */
export class Victim {
  readonly name = 'web-0';
  readonly namespace: string;
  readonly #bed: AgentBed;
  readonly #index: number;
  readonly #pools: string[] = [];
  uid = '';
  /** Which pools its CNI configuration names. */
  draws: PoolSet = 'first';
  readonly #netns: string;

  constructor(bed: AgentBed, index: number, netns = '/proc/1/ns/net') {
    [this.#bed, this.#index, this.#netns] = [bed, index, netns];
    this.namespace = `victim-${index}`;
  }

  /** The first of each family in the pools that `createPools` makes. */
  get firstAddresses(): readonly [string, string] {
    const [net4, net6] = this.#nets('first');
    return [`${net4}1`, `${net6}1`];
  }

  #nets(set: PoolSet): readonly [string, string] {
    const [high, low] = [Math.floor(this.#index / 250), this.#index % 250];
    const first = set === 'first';
    return [`10.${(first ? 80 : 90) + high}.${low}.`, `fd${first ? 80 : 90}:${this.#index}::`];
  }

  async create(): Promise<void> {
    await this.#bed.kube.create(namespaces, { metadata: { name: this.namespace } });
    await this.createPod();
  }

  async createPod(metadata: KubeObject['metadata'] = {}): Promise<void> {
    const { namespace, name } = this;
    const spec = { nodeName: node, containers: [{ name: 'c', image: 'none' }] };
    const pod = await this.#bed.kube.create<Pod>(pods, { metadata: { ...metadata, namespace, name }, spec });
    this.uid = pod.metadata?.uid ?? '';
  }

  /** `count` addresses per family; IPv6 as many as `count6`. */
  async createPools(count: number, count6 = count, set: PoolSet = 'first'): Promise<void> {
    const range = (prefix: string, many: number): string[] => (many === 0 ? [] : [`${prefix}1-${prefix}${many}`]);
    const [net4, net6] = this.#nets(set);
    const specs = [
      { ipVersion: 4, subnet: `${net4}0/24`, ips: range(net4, count) },
      { ipVersion: 6, subnet: `${net6}/64`, ips: range(net6, count6) },
    ];
    for (const spec of specs) {
      const metadata = { name: poolName(this.namespace, set, spec.ipVersion) };
      this.#pools.push(metadata.name);
      await this.#bed.kube.create(spiderIPPools, { metadata, spec } as KubeObject);
    }
  }

  /** The pod becomes one of a StatefulSet's; answers what its successors are made with. */
  async joinStatefulSet(): Promise<KubeObject['metadata']> {
    const { namespace } = this;
    const labels = { app: 'web' };
    const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'none' }] } };
    const spec = { serviceName: 'web', replicas: 1, selector: { matchLabels: labels }, template };
    const set = await this.#bed.kube.create<KubeObject>(statefulSets, {
      ...{ metadata: { namespace, name: 'web' }, spec },
    });
    const metadata = ownedBy('StatefulSet', set);
    await this.replacePod(metadata);
    return metadata;
  }

  /** The pod becomes one of a Deployment's whose pods name subnets; its pools are made as the controller makes them. */
  async joinDeployment(): Promise<void> {
    const { namespace } = this;
    const { kube } = this.#bed;
    const [net4, net6] = this.#nets('first');
    const subnets = [
      { ipVersion: 4, subnet: `${net4}0/24`, ips: [`${net4}1-${net4}9`] },
      { ipVersion: 6, subnet: `${net6}/64`, ips: [`${net6}1-${net6}9`] },
    ];
    for (const spec of subnets)
      await kube.create(spiderSubnets, { metadata: { name: `${namespace}-v${spec.ipVersion}` }, spec } as KubeObject);
    const named = { ipv4: [`${namespace}-v4`], ipv6: [`${namespace}-v6`] };
    const annotations = {
      'ipam.spidernet.io/subnet': JSON.stringify(named),
      'ipam.spidernet.io/ippool-ip-number': '1',
    };
    const labels = { app: 'web' };
    const template = { metadata: { labels, annotations }, spec: { containers: [{ name: 'c', image: 'none' }] } };
    const spec = { selector: { matchLabels: labels }, template };
    const top = await kube.create<KubeObject>(deployments, {
      ...{ metadata: { namespace, name: namespace }, spec },
    });
    const ofTop = ownedBy('Deployment', top);
    const set = await kube.create<KubeObject>(replicaSets, {
      ...{ metadata: { namespace, name: 'web', ...ofTop }, spec },
    });
    const application = {
      ...{ apiVersion: 'apps/v1', kind: 'Deployment', namespace, name: namespace, uid: top.metadata?.uid ?? '' },
      ...{ annotations, podCount: 1, object: top },
    };
    this.#pools.push(...(await poolsOf(this.#bed, application)));
    await this.replacePod({ ...ownedBy('ReplicaSet', set), annotations });
  }

  async replacePod(metadata: KubeObject['metadata'] = {}): Promise<void> {
    await this.remove(pods, this.name);
    await this.createPod(metadata);
  }

  /** With what would make another. */
  async removePod(): Promise<void> {
    await this.remove(statefulSets, 'web');
    await this.remove(deployments, this.namespace);
    await this.remove(replicaSets, 'web');
    await this.remove(pods, this.name);
  }

  async remove(gvr: GroupVersionResource, name: string): Promise<void> {
    const ref = { namespace: this.namespace, name };
    await unlessNotFound(this.#bed.kube.delete(gvr, ref, { gracePeriodSeconds: 0 }));
  }

  /** The real executable, as a main plugin calls it. */
  async cni(command: 'ADD' | 'DEL', ifName: Interface = 'eth0'): Promise<Answer> {
    const { namespace, name, uid, draws } = this;
    const [v4, v6] = ([4, 6] as const).map((family) => [poolName(namespace, draws, family)]);
    const ipam = { type: 'spiderpool', default_ipv4_ippool: v4, default_ipv6_ippool: v6 };
    const env = {
      ...{ CNI_COMMAND: command, CNI_CONTAINERID: `c-${uid}`, CNI_NETNS: this.#netns, CNI_IFNAME: ifName },
      CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
      SLUICE_CNI_SOCKET: join(this.#bed.dir, 'cni.sock'),
    };
    const config = { cniVersion: '1.0.0', name: 'net', type: 'macvlan', ipam };
    const { status, body } = await callShim('spiderpool', env, config);
    const { ips = [] } = body as { readonly ips?: readonly { readonly address: string }[] };
    return { status, addresses: ips.map(({ address }) => address.split('/')[0] ?? '') };
  }

  async mustCni(command: 'ADD' | 'DEL', ifName: Interface = 'eth0'): Promise<Answer> {
    const answer = await this.cni(command, ifName);
    assert.equal(answer.status, 0, `${command} of ${this.namespace}/${ifName}`);
    return answer;
  }

  /** Of all its pools: address → record. */
  async records(): Promise<Map<string, AllocationRecord>> {
    const found = await Promise.all(this.#pools.map((name) => this.#bed.kube.get(spiderIPPools, { name })));
    return new Map(
      (found as SpiderIPPool[]).flatMap(({ metadata, status }) => [
        ...decodeAllocatedIps(status?.allocatedIPs, metadata.name ?? ''),
      ]),
    );
  }

  async endpoint(): Promise<SpiderEndpoint | undefined> {
    const ref = { namespace: this.namespace, name: this.name };
    return (await this.#bed.kube.find(spiderEndpoints, ref)) as SpiderEndpoint | undefined;
  }

  async nothingIsLeft(where: string): Promise<void> {
    assert.deepEqual([...(await this.records())], [], `${where}: leaked`);
    assert.equal(await this.endpoint(), undefined, `${where}: its endpoint is left`);
  }
}

function ownedBy(kind: string, { metadata }: KubeObject): Pick<ObjectMeta, 'ownerReferences'> {
  const owner = { apiVersion: 'apps/v1', kind, name: metadata?.name ?? '', uid: metadata?.uid ?? '' };
  return { ownerReferences: [{ ...owner, controller: true }] };
}

/** Names of those that the controller's own reconciler makes for the application. */
async function poolsOf({ kube }: AgentBed, application: ApplicationState): Promise<string[]> {
  const access = kubeAccess<SpiderIPPool>(kube, spiderIPPools);
  const made: string[] = [];
  const create = (pool: SpiderIPPool): Promise<SpiderIPPool> => {
    made.push(pool.metadata.name ?? '');
    return access.create(pool);
  };
  const reconciler = new AutoPoolReconciler({
    find: () => application,
    ownerLives: () => Promise.resolve(true),
    pools: {
      list: () => access.list(),
      create,
      replace: (pool) => access.replace(pool),
      remove: () => Promise.resolve(),
    },
    subnets: kubeAccess<SpiderSubnet>(kube, spiderSubnets),
    reserved: kubeAccess<SpiderReservedIP>(kube, spiderReservedIPs),
    defaultExtra: 1,
    disabledFamilies: [],
    writeEvent: (_application, type, reason, message) => {
      if (type === 'Warning') assert.fail(`${reason}: ${message}`);
    },
  });
  await reconciler.reconcile(applicationKey(application));
  return made;
}

function poolName(namespace: string, set: PoolSet, family: number): string {
  return `${namespace}-${set}-v${family}`;
}

function subjectOfPool(name: string): string | undefined {
  return /^(?:auto[46]-)?(victim-\d+)-(?:(?:first|second)-v[46]|eth0-\w+)$/.exec(name)?.[1];
}

/** Whose addresses a path is about. */
export function subjectOf(path: string): string | undefined {
  const pool = /\/spiderippools\/([^/]+)\/status$/.exec(path)?.[1];
  return pool === undefined ? /\/namespaces\/([^/]+)\/spiderendpoints/.exec(path)?.[1] : subjectOfPool(pool);
}
