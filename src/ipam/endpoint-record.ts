import { spiderFinalizer } from '../api/spider.ts';
import type { EndpointInterface, SpiderEndpoint } from '../api/spiderendpoint.ts';
import type { PoolRoute, SpiderIPPool } from '../api/spiderippool.ts';
import { formatIp, parseIp, parsePrefix, type IpAddress, type IpFamily } from '../core/ip.ts';
import { staticKindOf, type PodOwner, type StaticKinds } from './pod-owner.ts';

/** SpiderEndpoint: what a pod has, by interface, as Spiderpool writes it. */

export interface EndpointOwner {
  readonly namespace: string;
  /** Of the endpoint: the pod's, or the virtual machine's. */
  readonly name: string;
  readonly podName: string;
  readonly podUid: string;
  readonly node: string;
  readonly owner: PodOwner;
  readonly staticKinds: StaticKinds;
}

export interface RecordedAddress {
  readonly pool: string;
  readonly address: IpAddress;
}

/** An interface's entry; `cleanGateway` says that the default route was left out. */
export function interfaceEntry(
  name: string,
  addresses: readonly { readonly address: IpAddress; readonly pool: SpiderIPPool }[],
  options: { readonly cleanGateway: boolean; readonly routes: readonly PoolRoute[] },
): EndpointInterface {
  const entry: EndpointInterface = { interface: name, vlan: 0, cleanGateway: options.cleanGateway };
  for (const { address, pool } of addresses) {
    const poolName = pool.metadata.name ?? '';
    const { gateway } = pool.spec;
    if (address.family === 4) {
      Object.assign(
        entry,
        { ipv4: addressText(address, pool), ipv4Pool: poolName },
        gateway && { ipv4Gateway: gateway },
      );
    } else {
      Object.assign(
        entry,
        { ipv6: addressText(address, pool), ipv6Pool: poolName },
        gateway && { ipv6Gateway: gateway },
      );
    }
  }
  return options.routes.length === 0 ? entry : { ...entry, routes: options.routes.map(({ dst, gw }) => ({ dst, gw })) };
}

/** The address with the length of its pool's subnet. */
export function addressText(address: IpAddress, pool: SpiderIPPool): string {
  const prefixLen = parsePrefix(pool.spec.subnet)?.prefixLen ?? (address.family === 4 ? 32 : 128);
  return `${formatIp(address)}/${prefixLen}`;
}

/**
 * The endpoint with this entry. What an earlier pod left in it stays for static addresses only. There is an owner
 * reference to the pod, so that it goes with the pod; static ones must outlive it.
 */
export function withInterface(
  before: SpiderEndpoint | undefined,
  of: EndpointOwner,
  entry: EndpointInterface,
): SpiderEndpoint {
  const others = (before?.status?.current.ips ?? []).filter((other) => other.interface !== entry.interface);
  const isStatic = staticKindOf(of.owner, of.staticKinds) !== undefined;
  const pod = { apiVersion: 'v1', kind: 'Pod', name: of.podName, uid: of.podUid };
  const { ownerReferences: _, ...metadata } = before?.metadata ?? { namespace: of.namespace, name: of.name };
  return {
    ...before,
    metadata: {
      ...metadata,
      finalizers: [...new Set([...(metadata.finalizers ?? []), spiderFinalizer])],
      ...(isStatic ? {} : { ownerReferences: [pod] }),
    },
    status: {
      ...before?.status,
      current: { uid: of.podUid, node: of.node, ips: [...others, entry] },
      ownerControllerType: of.owner.kind,
      ownerControllerName: of.owner.name,
    },
  };
}

export function withoutInterface(endpoint: SpiderEndpoint, name: string): SpiderEndpoint {
  if (endpoint.status === undefined) return endpoint;
  const { current } = endpoint.status;
  const ips = current.ips.filter((entry) => entry.interface !== name);
  return { ...endpoint, status: { ...endpoint.status, current: { ...current, ips } } };
}

/** Without what the interface has from these pools, and without the interface when nothing is left of it. */
export function withoutPools(
  endpoint: SpiderEndpoint,
  interfaceName: string,
  pools: ReadonlySet<string>,
): SpiderEndpoint {
  const entry = endpoint.status?.current.ips.find((other) => other.interface === interfaceName);
  if (endpoint.status === undefined || entry === undefined) return endpoint;
  const { ipv4, ipv4Pool, ipv4Gateway, ipv6, ipv6Pool, ipv6Gateway, ...rest } = entry;
  const kept: EndpointInterface = {
    ...rest,
    ...(ipv4Pool !== undefined && !pools.has(ipv4Pool) && { ipv4, ipv4Pool, ipv4Gateway }),
    ...(ipv6Pool !== undefined && !pools.has(ipv6Pool) && { ipv6, ipv6Pool, ipv6Gateway }),
  };
  if (addressesOf(kept).length === 0) return withoutInterface(endpoint, interfaceName);
  const ips = endpoint.status.current.ips.map((other) => (other === entry ? kept : other));
  return { ...endpoint, status: { ...endpoint.status, current: { ...endpoint.status.current, ips } } };
}

/** What the endpoint has on record for the interface, if it is this pod's or a static one. */
export function recordedAddresses(endpoint: SpiderEndpoint | undefined, interfaceName: string): RecordedAddress[] {
  const entry = endpoint?.status?.current.ips.find((other) => other.interface === interfaceName);
  return entry === undefined ? [] : addressesOf(entry);
}

export function addressesOf(entry: EndpointInterface): RecordedAddress[] {
  const pairs = [
    [entry.ipv4, entry.ipv4Pool],
    [entry.ipv6, entry.ipv6Pool],
  ] as const;
  return pairs.flatMap(([text, pool]) => {
    const address = text === undefined ? undefined : parseIp(text.split('/')[0] ?? '');
    return address === undefined || !pool ? [] : [{ pool, address }];
  });
}

export function recordedOf(recorded: readonly RecordedAddress[], family: IpFamily): RecordedAddress | undefined {
  return recorded.find(({ address }) => address.family === family);
}
