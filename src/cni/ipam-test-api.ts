/**
 * Pools, pods, endpoints and owners as an API server holds them, and agents on it: conflicts on old resourceVersions,
 * answers that take a turn of the loop, and steps at which a test may hold an agent up or kill it. For tests and benches.
 */
import type { CniCommand, CniRequest, CniResult } from '../api/cni.ts';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { PoolSpec, SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderReservedIP } from '../api/spiderreservedip.ts';
import { systemClock } from '../core/clock.ts';
import { SluiceError, type ErrorCode } from '../core/error.ts';
import { silentLogger } from '../core/log.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import type { OwnerObject } from '../ipam/pod-owner.ts';
import type { IpamPod } from '../ipam/pod.ts';
import type { IpamDeps, KnownAttachment, LabelledObject } from './ipam-deps.ts';
import { IpamState } from './ipam-state.ts';
import { createIpamPlugin } from './ipam.ts';

export type ApiStep =
  | 'read pod'
  | 'read pool'
  | 'write pool'
  | 'read endpoint'
  | 'create endpoint'
  | 'replace endpoint'
  | 'remove endpoint'
  | 'read owner';

/** Awaited before a step takes effect, and after it did; what it throws the agent sees. */
export type StepHook = (step: ApiStep, when: 'before' | 'after') => Promise<void> | void;

export interface TestAgentOptions {
  readonly node?: string;
  /** The pools that its cache holds; by default it has the newest. */
  readonly cached?: readonly SpiderIPPool[] | (() => readonly SpiderIPPool[]);
  readonly attachments?: readonly KnownAttachment[];
  readonly onStep?: StepHook;
  readonly deps?: Partial<IpamDeps>;
}

export interface AskOptions extends Partial<CniRequest> {
  readonly pools4?: readonly string[];
  readonly pools6?: readonly string[];
  readonly cleanGateway?: boolean;
  readonly matchMasterSubnet?: boolean;
}

export interface TestAgent {
  (command: CniCommand, pod: string, more?: AskOptions): Promise<CniResult | undefined>;
  readonly state: IpamState;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class IpamTestApi {
  readonly pools = new Map<string, SpiderIPPool>();
  readonly pods = new Map<string, IpamPod>();
  readonly endpoints = new Map<string, SpiderEndpoint>();
  /** "Kind namespace/name" */
  readonly owners = new Map<string, OwnerObject>();
  readonly reserved: SpiderReservedIP[] = [];
  readonly namespaces = new Map<string, LabelledObject>();
  conflicts = 0;
  writes = 0;
  #version = 1;

  addPool(name: string, spec: PoolSpec): void {
    this.pools.set(name, {
      metadata: { name, resourceVersion: this.#next(), creationTimestamp: '2026-01-01T00:00:00Z' },
      spec,
    });
  }

  changePool(name: string, spec: Partial<PoolSpec>): void {
    const pool = this.pools.get(name);
    if (pool === undefined) throw new RangeError(`no pool ${name}`);
    this.pools.set(name, {
      ...pool,
      metadata: { ...pool.metadata, resourceVersion: this.#next() },
      spec: { ...pool.spec, ...spec },
    });
  }

  addPod(name: string, metadata: Partial<IpamPod['metadata']> = {}, more: Omit<IpamPod, 'metadata'> = {}): void {
    this.pods.set(`default/${name}`, {
      metadata: { name, namespace: 'default', uid: `uid-${name}`, labels: {}, ...metadata },
      spec: { nodeName: 'node1' },
      ...more,
    });
  }

  /** "namespace/pod interface" by address. */
  records(pool: string): Record<string, string> {
    const records = decodeAllocatedIps(this.pools.get(pool)?.status?.allocatedIPs, pool);
    return Object.fromEntries([...records].map(([address, record]) => [address, `${record.pod} ${record.interface}`]));
  }

  agent(options: TestAgentOptions = {}): TestAgent {
    const deps = { ...this.#deps(options), ...options.deps };
    const state = new IpamState(deps);
    const plugin = createIpamPlugin(deps, state);
    const call = (command: CniCommand, pod: string, more: AskOptions = {}): Promise<CniResult | undefined> =>
      plugin(requestOf(this.pods.get(`default/${pod}`), command, pod, more), AbortSignal.timeout(60_000));
    return Object.assign(call, { state });
  }

  #next(): string {
    return String(this.#version++);
  }

  #deps(options: TestAgentOptions): IpamDeps {
    const step = async <T>(name: ApiStep, effect: () => T): Promise<T> => {
      await options.onStep?.(name, 'before');
      await turn();
      const result = effect();
      await options.onStep?.(name, 'after');
      return result;
    };
    return {
      pools: {
        cached: () => cachedPools(options) ?? [...this.pools.values()],
        read: (name) => step('read pool', () => this.pools.get(name)),
        readAll: () => step('read pool', () => [...this.pools.values()]),
        writeStatus: (pool) => step('write pool', () => this.replaceStatus(pool)),
      },
      pods: {
        cached: (namespace, name) => this.pods.get(`${namespace}/${name}`),
        read: (namespace, name) => step('read pod', () => this.pods.get(`${namespace}/${name}`)),
        ofThisNode: () => [...this.pods.values()],
      },
      endpoints: {
        read: (namespace, name) => step('read endpoint', () => this.endpoints.get(`${namespace}/${name}`)),
        create: (endpoint) => step('create endpoint', () => this.#createEndpoint(endpoint)),
        replace: (endpoint) => step('replace endpoint', () => this.#replaceEndpoint(endpoint)),
        remove: (endpoint) => step('remove endpoint', () => this.removeEndpoint(endpoint)),
      },
      reservedIps: async () => this.reserved,
      readOwner: ({ kind, namespace, name }) =>
        step('read owner', () => this.owners.get(`${kind} ${namespace}/${name}`)),
      readNamespace: async (name) => this.namespaces.get(name) ?? { labels: {}, annotations: {} },
      readNode: async () => ({ labels: {}, annotations: {} }),
      nodeName: options.node ?? 'node1',
      attachmentNamespace: 'kube-system',
      physicalFunctionOf: () => ({ name: 'none', addresses: [] }),
      attachments: () => options.attachments ?? [],
      notReady: () => undefined,
      clock: systemClock,
      log: silentLogger,
      random: () => 0.5,
    };
  }

  replaceStatus(pool: SpiderIPPool): SpiderIPPool {
    const name = pool.metadata.name ?? '';
    const actual = this.pools.get(name);
    if (actual?.metadata.resourceVersion !== pool.metadata.resourceVersion) {
      this.conflicts++;
      throw apiError('kube_conflict', name);
    }
    this.writes++;
    const written = { ...pool, metadata: { ...pool.metadata, resourceVersion: this.#next() } };
    this.pools.set(name, written);
    return written;
  }

  #createEndpoint(endpoint: SpiderEndpoint): SpiderEndpoint {
    const key = endpointKey(endpoint);
    if (this.endpoints.has(key)) throw apiError('kube_conflict', key);
    return this.#putEndpoint({ ...endpoint, metadata: { ...endpoint.metadata, uid: `endpoint-${this.#next()}` } });
  }

  #replaceEndpoint(endpoint: SpiderEndpoint): SpiderEndpoint {
    const actual = this.endpoints.get(endpointKey(endpoint));
    if (actual === undefined) throw apiError('kube_not_found', endpointKey(endpoint));
    if (actual.metadata.resourceVersion !== endpoint.metadata.resourceVersion)
      throw apiError('kube_conflict', endpointKey(endpoint));
    return this.#putEndpoint(endpoint);
  }

  removeEndpoint(endpoint: SpiderEndpoint): void {
    const key = endpointKey(endpoint);
    if (this.endpoints.get(key)?.metadata.uid === endpoint.metadata.uid) this.endpoints.delete(key);
  }

  #putEndpoint(endpoint: SpiderEndpoint): SpiderEndpoint {
    const stored = { ...endpoint, metadata: { ...endpoint.metadata, resourceVersion: this.#next() } };
    this.endpoints.set(endpointKey(stored), stored);
    return stored;
  }
}

function cachedPools({ cached }: TestAgentOptions): readonly SpiderIPPool[] | undefined {
  return typeof cached === 'function' ? cached() : cached;
}

function endpointKey({ metadata }: SpiderEndpoint): string {
  return `${metadata.namespace ?? ''}/${metadata.name ?? ''}`;
}

function apiError(code: ErrorCode, object: string): SluiceError {
  return new SluiceError({ code, operation: 'write', object, what: code });
}

function requestOf(pod: IpamPod | undefined, command: CniCommand, name: string, more: AskOptions): CniRequest {
  const { pools4, pools6, cleanGateway, matchMasterSubnet, ...rest } = more;
  const ipam = {
    type: 'spiderpool',
    default_ipv4_ippool: pools4,
    default_ipv6_ippool: pools6,
    ...(cleanGateway === undefined ? {} : { clean_gateway: cleanGateway }),
    ...(matchMasterSubnet === undefined ? {} : { match_master_subnet: matchMasterSubnet }),
  };
  return {
    plugin: 'spiderpool',
    command,
    containerId: `c-${name}`,
    ifName: 'eth0',
    args: {
      K8S_POD_NAMESPACE: 'default',
      K8S_POD_NAME: name,
      K8S_POD_UID: pod?.metadata?.uid ?? `uid-${name}`,
    },
    path: '',
    config: { cniVersion: '1.0.0', name: 'spidernet-chainer', type: 'ipvlan', ipam },
    ...rest,
  };
}
