/**
 * The same against a real kube-apiserver and etcd: ten nodes' address plugins, each with a client and watches of its own. All of it on
 * this machine and etcd without fsync: it says what real conflicts and real watches cost, not what a cluster's API server can do.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { CniRequest, PluginHandler } from '../src/api/cni.ts';
import type { KubeObject, Namespace, Node, Pod } from '../src/api/kubernetes.ts';
import { customResourceDefinitions, namespaces, nodes, pods, spiderIPPools } from '../src/api/resources.ts';
import { createKubeIpamDeps } from '../src/cni/ipam-kube.ts';
import { IpamState } from '../src/cni/ipam-state.ts';
import { createIpamPlugin } from '../src/cni/ipam.ts';
import { silentLogger } from '../src/core/log.ts';
import { createKubeClient, type KubeClient } from '../src/kube/client.ts';
import { KubeConfig } from '../src/kube/config.ts';
import { isConflict } from '../src/kube/error.ts';
import { Informer } from '../src/kube/informer.ts';
import { packageRoot } from '../src/kernel/package-root.ts';
import { formatKubeconfig } from '../src/lab/api/credentials.ts';
import { startRealApiServer, type RealApiServer } from '../test/real-apiserver/start.ts';
import { pause } from './ipam-api.ts';
import type { Allocate } from './ipam-writers.ts';

const namespace = 'default';

interface RealAgent {
  readonly plugin: PluginHandler;
  readonly pools: Informer<KubeObject>;
}

export class RealCluster {
  readonly #server: RealApiServer;
  readonly #admin: KubeClient;
  readonly #clients: KubeClient[] = [];
  readonly #agents: RealAgent[] = [];
  readonly #ending = new AbortController();
  readonly #uids = new Map<string, string>();
  /** Writes of a pool that the server refused since the last round began. */
  conflicts = 0;

  private constructor(server: RealApiServer) {
    this.#server = server;
    this.#admin = this.#client();
  }

  static async start(agents: number): Promise<RealCluster> {
    const cluster = new RealCluster(await startRealApiServer());
    const directory = join(packageRoot(), 'deploy/crds');
    for (const file of readdirSync(directory)) {
      const definition = parse(readFileSync(join(directory, file), 'utf8')) as KubeObject;
      await cluster.#admin.create(customResourceDefinitions, definition);
    }
    for (let index = 0; index < agents; index++) cluster.#agents.push(await cluster.#agent(index));
    return cluster;
  }

  /** A pool of 1,000 addresses and pods that are new, and each agent's way to an address for one of them. */
  async round(number: number, count: number): Promise<Allocate[]> {
    const name = `p${number}`;
    const spec = { ipVersion: 4, subnet: `10.${number}.0.0/16`, ips: [`10.${number}.0.1-10.${number}.3.232`] };
    const pool = { metadata: { name }, spec };
    await this.#admin.create(spiderIPPools, pool);
    for (let n = 0; n < count; n += 50)
      await Promise.all(Array.from({ length: Math.min(50, count - n) }, (_, at) => this.#addPod(name, n + at)));
    for (const { pools } of this.#agents) while (pools.get(undefined, name) === undefined) await pause(5);
    this.conflicts = 0;
    return this.#agents.map(
      ({ plugin }): Allocate =>
        async (pod) =>
          (await plugin(this.#request(name, `${name}-${pod}`), AbortSignal.timeout(80_000)))?.ips[0]?.address ?? '',
    );
  }

  async stop(): Promise<void> {
    this.#ending.abort(new Error('measured'));
    for (const client of this.#clients) client.close();
    await this.#server.stop();
  }

  #client(): KubeClient {
    const { url, caCert, token } = this.#server;
    const config = new KubeConfig();
    config.loadFromString(formatKubeconfig({ server: url, caCert, token }));
    const client = createKubeClient(config);
    this.#clients.push(client);
    return client;
  }

  async #addPod(pool: string, number: number): Promise<void> {
    const name = `${pool}-pod-${number}`;
    const spec = { nodeName: 'node', containers: [{ name: 'c', image: 'none' }] };
    const pod = await this.#admin.create<Pod>(pods, { metadata: { namespace, name }, spec });
    this.#uids.set(name, pod.metadata?.uid ?? '');
  }

  async #agent(index: number): Promise<RealAgent> {
    const client = this.#client();
    const common = { client, log: silentLogger };
    const copies = {
      pools: new Informer<KubeObject>({ ...common, gvr: spiderIPPools }),
      pods: new Informer<Pod>({ ...common, gvr: pods }),
      namespaces: new Informer<Namespace>({ ...common, gvr: namespaces }),
      nodes: new Informer<Node>({ ...common, gvr: nodes }),
    };
    for (const copy of Object.values(copies)) {
      void copy.start(this.#ending.signal).catch(() => undefined);
      await copy.synced;
    }
    const kube = createKubeIpamDeps({ ...common, ...copies, nodeName: `node${index}` });
    const writeStatus: typeof kube.pools.writeStatus = (pool) =>
      kube.pools.writeStatus(pool).catch((error: unknown) => {
        if (isConflict(error)) this.conflicts++;
        throw error;
      });
    const deps = { ...kube, pools: { ...kube.pools, writeStatus } };
    return { plugin: createIpamPlugin(deps, new IpamState(deps)), pools: copies.pools };
  }

  #request(pool: string, name: string): CniRequest {
    const ipam = { type: 'spiderpool', default_ipv4_ippool: [pool] };
    return {
      ...{ plugin: 'spiderpool', command: 'ADD', containerId: `c-${name}`, ifName: 'eth0', path: '' },
      args: { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name, K8S_POD_UID: this.#uids.get(name) ?? '' },
      config: { cniVersion: '1.0.0', name: 'bench', type: 'ipvlan', ipam },
    };
  }
}
