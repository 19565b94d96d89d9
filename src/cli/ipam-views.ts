/** Pools, addresses and pods as the address commands show them, and as `--json` prints them. Pure. */
import type { Pod } from '../api/kubernetes.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatErrorChain } from '../core/error.ts';
import { formatIpRange, type IpRange } from '../core/ip-range.ts';
import { parseIp } from '../core/ip.ts';
import type { AddressInfo } from '../ipam/address-info.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import { poolFamily } from '../ipam/pool-addresses.ts';
import { poolUsage } from '../ipam/pool-usage.ts';
import type { SeenAddresses, WrittenAddresses } from './ipam-cluster.ts';

/** A count; text when a double does not hold it exactly. */
export type Count = number | string;

export interface PoolView {
  readonly name: string;
  readonly version: number | undefined;
  readonly subnet: string;
  readonly ranges: readonly string[];
  readonly total: Count;
  readonly allocated: number;
  readonly free: readonly string[];
  readonly freeCount: Count;
  readonly reservedCount: Count;
  readonly default: boolean;
  readonly disabled: boolean;
  readonly terminating: boolean;
  /** Why nothing is handed out, though something is free. */
  readonly note?: string;
}

export function poolView(pool: SpiderIPPool, reserved: readonly IpRange[]): PoolView {
  const { spec, metadata } = pool;
  const common = {
    name: metadata.name ?? '',
    version: poolFamily(spec),
    subnet: spec.subnet,
    default: spec.default === true,
    disabled: spec.disable === true,
    terminating: Boolean(metadata.deletionTimestamp),
  };
  const note = common.terminating ? 'terminating' : common.disabled ? 'disabled' : undefined;
  try {
    const usage = poolUsage(pool, reserved);
    return {
      ...common,
      ranges: usage.ranges.map(formatIpRange),
      total: countOf(usage.total),
      allocated: usage.allocated,
      free: usage.free.map(formatIpRange),
      freeCount: countOf(usage.freeCount),
      reservedCount: countOf(usage.reservedCount),
      ...(note !== undefined && { note }),
    };
  } catch (error) {
    const nothing = { ranges: [], total: 0, allocated: 0, free: [], freeCount: 0, reservedCount: 0 };
    return { ...common, ...nothing, note: formatErrorChain(error) };
  }
}

function countOf(value: bigint): Count {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString();
}

/** Where an address is on an interface. */
export interface AddressPlace {
  readonly node: string;
  readonly interface: string;
  readonly netns: string;
  /** namespace/name, as the node's agent knows it. */
  readonly pod?: string;
}

export function placesOf(address: string, { nodes }: SeenAddresses): AddressPlace[] {
  return nodes.flatMap(({ node, namespaces }) =>
    namespaces.flatMap(({ netns, pod, interfaces }) =>
      interfaces
        .filter(({ addresses }) => addresses.includes(address))
        .map(({ name }) => ({
          ...{ node, interface: name, netns },
          ...(pod && { pod: `${pod.namespace}/${pod.name}` }),
        })),
    ),
  );
}

export function placeText({ node, interface: name, netns, pod }: AddressPlace): string {
  return `${name} of ${pod === undefined ? netns : `pod ${pod}`} on ${node}`;
}

export interface AddressView extends AddressInfo {
  /** The recorded pod as the API has it now; absent when it is gone, or another pod has its name. */
  readonly podPhase?: string;
  readonly podNode?: string;
  /** namespace/name of the SpiderEndpoint that names the address. */
  readonly endpoint?: string;
  readonly onInterfaces: readonly AddressPlace[];
  readonly unanswered: SeenAddresses['unanswered'];
}

export function describeAddress(info: AddressInfo, written: WrittenAddresses, seen: SeenAddresses): AddressView {
  const pod = info.record && podOf(written.pods, info.record.pod);
  const isSame = pod !== undefined && pod.metadata?.uid === info.record?.podUid;
  const endpoint = written.endpoints.find(({ addresses }) => addresses.some((one) => one.address === info.address));
  return {
    ...info,
    ...(isSame && { podPhase: phaseOf(pod), ...(pod.spec?.nodeName !== undefined && { podNode: pod.spec.nodeName }) }),
    ...(endpoint && { endpoint: `${endpoint.namespace}/${endpoint.name}` }),
    onInterfaces: placesOf(info.address, seen),
    unanswered: seen.unanswered,
  };
}

export interface PodAddressesView {
  /** namespace/name */
  readonly pod: string;
  readonly uid?: string;
  /** Absent: no such pod now. */
  readonly phase?: string;
  readonly node?: string;
  readonly addresses: readonly PodAddressRow[];
  readonly unanswered: SeenAddresses['unanswered'];
}

export interface PodAddressRow {
  readonly interface: string;
  readonly address: string;
  readonly pool?: string;
  /** Whether the pool records it for this pod; `old`: for an earlier pod of the name. */
  readonly record: 'yes' | 'no' | 'old';
  readonly endpoint: boolean;
  readonly onInterface: boolean;
}

/** Everything that any of the three names for the pod; undefined when none knows it. */
export function describePod(
  namespace: string,
  name: string,
  written: WrittenAddresses,
  seen: SeenAddresses,
): PodAddressesView | undefined {
  const podName = `${namespace}/${name}`;
  const pod = podOf(written.pods, podName);
  const rows = new Map<string, PodAddressRow>();
  const note = (address: string, interfaceName: string, told: Partial<PodAddressRow>): void => {
    const known = rows.get(address);
    const empty = { address, interface: interfaceName, record: 'no', endpoint: false, onInterface: false } as const;
    rows.set(address, { ...empty, ...known, ...told });
  };
  for (const { pool, address, record } of recordsOfPod(written.pools, podName)) {
    note(address, record.interface, { pool, record: record.podUid === pod?.metadata?.uid ? 'yes' : 'old' });
  }
  for (const claim of written.endpoints) {
    if (claim.namespace !== namespace || claim.name !== name) continue;
    for (const { address, interface: own, pool } of claim.addresses) note(address, own, { endpoint: true, pool });
  }
  const own = seen.nodes.flatMap(({ namespaces }) => namespaces).filter((one) => one.pod?.uid === pod?.metadata?.uid);
  for (const { interfaces } of pod === undefined ? [] : own) {
    for (const { name: own, addresses } of interfaces)
      for (const one of addresses) note(one, own, { onInterface: true });
  }
  if (pod === undefined && rows.size === 0) return undefined;
  return {
    pod: podName,
    ...(pod?.metadata?.uid !== undefined && { uid: pod.metadata.uid }),
    ...(pod && { phase: phaseOf(pod) }),
    ...(pod?.spec?.nodeName !== undefined && { node: pod.spec.nodeName }),
    addresses: [...rows.values()].sort((a, b) => (rowKey(a) < rowKey(b) ? -1 : 1)),
    unanswered: seen.unanswered,
  };
}

function rowKey({ interface: name, address }: PodAddressRow): string {
  return `${name} ${parseIp(address)?.family ?? 0} ${address}`;
}

function recordsOfPod(pools: readonly SpiderIPPool[], pod: string) {
  return pools.flatMap((pool) => {
    const name = pool.metadata.name ?? '';
    const records = [...decodeAllocatedIps(pool.status?.allocatedIPs, name)];
    return records.flatMap(([address, record]) => (record.pod === pod ? [{ pool: name, address, record }] : []));
  });
}

function podOf(pods: readonly Pod[], name: string): Pod | undefined {
  return pods.find(({ metadata }) => `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}` === name);
}

function phaseOf({ metadata, status }: Pod): string {
  return metadata?.deletionTimestamp === undefined ? (status?.phase ?? 'Pending') : 'Terminating';
}
