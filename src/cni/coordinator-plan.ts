/** What connects a pod's interface and its node, as a value: computed once from what the two namespaces have, then applied. */
import { prefixContainsIp, type IpAddress, type IpFamily, type IpPrefix } from '../core/ip.ts';
import type { CoordinatorConfig, PolicyRoute } from './coordinator-config.ts';

/** Of the numbers in the published routing layout: 100 answers through the door, 101 the pod's first interface beside eth0. */
export const coordinatorTables = { replies: 100, pod: 101 } as const;
export const rulePriority = 1000;
export const replyMark = 1;

export interface PlannedRoute {
  readonly family: IpFamily;
  readonly dst: IpPrefix | undefined;
  readonly gateway?: IpAddress;
  readonly table?: number;
  readonly scope?: 'link';
  readonly source?: IpAddress;
  /** The door leads to the node: veth0, or in overlay mode the default network's interface. */
  readonly device: 'door' | 'interface';
}

export interface Connection {
  readonly podIps: readonly IpAddress[];
  /** On-link prefixes of the interface. */
  readonly podPrefixes: readonly IpPrefix[];
  /** The node's addresses; the first of a family is the gateway for what goes through the node. */
  readonly hostIps: readonly IpAddress[];
  /** Source of what goes through the door: the IPv4 address of the default network. */
  readonly doorSource: IpAddress | undefined;
}

export interface Placement {
  readonly mode: 'underlay' | 'overlay';
  readonly isFirst: boolean;
  /** Of the interface; the first one's own packets are routed by the main table, and its copy serves those that come later. */
  readonly table: number;
  /** The interface has the pod's default route. */
  readonly hasMainTable: boolean;
}

export function podRoutes(connection: Connection, config: CoordinatorConfig, placement: Placement): PlannedRoute[] {
  return [
    ...hostRoutes(connection, placement),
    ...hijackRoutes(connection, config, placement),
    ...(placement.mode === 'underlay' ? replyRoutes(connection) : []),
    ...policyRoutes(connection, config, placement),
  ];
}

/** Each node address is next door: in the main table once, and in the table of every interface. */
function hostRoutes({ hostIps, doorSource }: Connection, { isFirst, table }: Placement): PlannedRoute[] {
  return hostIps.flatMap((ip) => {
    const dst = { address: ip, prefixLen: ip.family === 4 ? 32 : 128 };
    const route: PlannedRoute = { family: ip.family, dst, scope: 'link', device: 'door' };
    const inMain = { ...route, ...sourceOf(ip.family, doorSource) };
    return isFirst ? [inMain, { ...inMain, table }] : [{ ...route, table }];
  });
}

/** A family in which the node has no address has no way through the node: its routes are left out. */
function hijackRoutes(
  connection: Connection,
  config: CoordinatorConfig,
  { isFirst, table }: Placement,
): PlannedRoute[] {
  return config.hijackPrefixes.flatMap((dst) => {
    const { family } = dst.address;
    const gateway = gatewayOf(connection, family);
    if (gateway === undefined) return [];
    const route: PlannedRoute = { family, dst, gateway, device: 'door' };
    return [isFirst ? { ...route, ...sourceOf(family, connection.doorSource) } : { ...route, table }];
  });
}

/** The main table's routes choose the source; for IPv6 the kernel's own choice is the right one. */
function sourceOf(family: IpFamily, source: IpAddress | undefined): { source?: IpAddress } {
  return family === 4 && source !== undefined ? { source } : {};
}

/** Of each family its own gateway: upstream's dual-stack default route has none, and the kernel then asks the link for everyone. */
function replyRoutes(connection: Connection): PlannedRoute[] {
  return podFamilies(connection).flatMap((family) => {
    const gateway = gatewayOf(connection, family);
    return gateway === undefined
      ? []
      : [{ family, dst: undefined, gateway, table: coordinatorTables.replies, device: 'door' as const }];
  });
}

/**
 * In the table by which the interface's packets are routed. (Upstream's documentation shows table 101 for the first
 * interface too, where nothing looks: its code writes main.)
 */
function policyRoutes(connection: Connection, config: CoordinatorConfig, placement: Placement): PlannedRoute[] {
  const table = placement.isFirst || placement.hasMainTable ? {} : { table: placement.table };
  return config.policyRoutes
    .filter((route) => isReachable(route, connection))
    .map(({ dst, gateway }) => ({ family: gateway.family, dst, gateway, ...table, device: 'interface' as const }));
}

/** A cluster-wide route is for the interfaces in its gateway's subnet; on the others the kernel refuses it. */
export function isReachable({ gateway }: PolicyRoute, { podPrefixes }: Connection): boolean {
  return podPrefixes.some((prefix) => prefixContainsIp(prefix, gateway));
}

export function podFamilies({ podIps }: Pick<Connection, 'podIps'>): IpFamily[] {
  return ([4, 6] as const).filter((family) => podIps.some((ip) => ip.family === family));
}

function gatewayOf({ hostIps }: Connection, family: IpFamily): IpAddress | undefined {
  return hostIps.find((ip) => ip.family === family);
}

/** Links whose addresses are not the node's own: bridges, tunnels and pod ends of other network software. */
const foreignLink = /^(docker|cbr|dummy|virbr|lxcbr|veth|lo$|cali|flannel|kube-ipvs|cni|vx-submariner|cilium)/;

export function isNodeLink(name: string): boolean {
  return !foreignLink.test(name);
}
