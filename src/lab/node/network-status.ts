/**
 * The annotation `k8s.v1.cni.cncf.io/network-status`: what the plugins made, for people and programs (multi-net-spec,
 * "Network Attachment Status Annotation"). The text is laid out as Multus writes it. Pure.
 */
import type { CniResult } from '../../api/cni.ts';
import { defaultInterface } from '../../api/network-selection.ts';
import type { NetworkRecord } from './pod-record.ts';

export interface NetworkStatus {
  /** "namespace/name" of the attachment. */
  readonly name: string;
  readonly interface?: string;
  readonly ips?: readonly string[];
  readonly mac?: string;
  readonly mtu?: number;
  /** Only on the network that the pod's address is of. */
  readonly default?: true;
  readonly dns: Readonly<Record<string, unknown>>;
  readonly gateway?: readonly string[];
}

export function networkStatusText(networks: readonly NetworkRecord[]): string {
  return `[${networks.map((network) => JSON.stringify(networkStatus(network), undefined, 4)).join(',')}]`;
}

export function networkStatus(network: NetworkRecord): NetworkStatus {
  const result = (network.result ?? {}) as Partial<CniResult>;
  const made = (result.interfaces ?? []).filter(({ sandbox }) => sandbox !== undefined && sandbox !== '').at(-1);
  const ips = (result.ips ?? []).flatMap(({ address }) => address.split('/')[0] ?? []);
  const gateway = (result.routes ?? []).filter(isDefault).flatMap(({ gw }) => gw ?? []);
  return {
    name: network.attachment,
    interface: made?.name ?? network.interface,
    ...(ips.length > 0 ? { ips } : {}),
    ...(made?.mac === undefined || made.mac === '' ? {} : { mac: made.mac }),
    ...(made?.mtu === undefined || made.mtu === 0 ? {} : { mtu: made.mtu }),
    ...(network.interface === defaultInterface ? { default: true } : {}),
    dns: dnsOf(result),
    ...(gateway.length > 0 ? { gateway } : {}),
  };
}

export function isDefault({ dst }: { readonly dst: string }): boolean {
  return dst === '0.0.0.0/0' || dst === '::/0';
}

function dnsOf({ dns = {} }: Partial<CniResult>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(dns).filter(([, value]) => (Array.isArray(value) ? value.length > 0 : value)),
  );
}
