/** What connects a pod and its node, as a value: computed once from what the two namespaces have, then applied. */
import type { IpAddress, IpFamily, IpPrefix } from '../core/ip.ts';
import type { CoordinatorConfig } from './coordinator-config.ts';

/** Of the numbers in the published routing layout: 100 answers through veth0, 101 the pod's first policy table. */
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
  readonly device: 'veth0' | 'pod interface';
}

export interface Connection {
  readonly podIps: readonly IpAddress[];
  /** The node's addresses; the first of a family is the gateway for what goes through the node. */
  readonly hostIps: readonly IpAddress[];
}

export function podRoutes(connection: Connection, config: CoordinatorConfig): PlannedRoute[] {
  const source = connection.podIps.find((ip) => ip.family === 4);
  return [
    ...hostRoutes(connection, source),
    ...hijackRoutes(connection, config, source),
    ...replyRoutes(connection),
    ...policyRoutes(connection, config),
  ];
}

/** Each node address is next door, in the main table and in the pod's own. */
function hostRoutes(connection: Connection, source: IpAddress | undefined): PlannedRoute[] {
  return connection.hostIps.flatMap((ip) => {
    const dst = { address: ip, prefixLen: ip.family === 4 ? 32 : 128 };
    const route: PlannedRoute = {
      family: ip.family,
      dst,
      scope: 'link',
      device: 'veth0',
      ...(ip.family === 4 && source !== undefined ? { source } : {}),
    };
    return [route, { ...route, table: coordinatorTables.pod }];
  });
}

/** A family in which the node has no address has no way through the node: its routes are left out. */
function hijackRoutes(
  connection: Connection,
  config: CoordinatorConfig,
  source: IpAddress | undefined,
): PlannedRoute[] {
  return config.hijackPrefixes.flatMap((dst) => {
    const gateway = gatewayOf(connection, dst.address.family);
    if (gateway === undefined) return [];
    return [
      {
        family: dst.address.family,
        dst,
        gateway,
        device: 'veth0' as const,
        ...(dst.address.family === 4 && source !== undefined ? { source } : {}),
      },
    ];
  });
}

function replyRoutes(connection: Connection): PlannedRoute[] {
  return podFamilies(connection).flatMap((family) => {
    const gateway = gatewayOf(connection, family);
    return gateway === undefined
      ? []
      : [{ family, dst: undefined, gateway, table: coordinatorTables.replies, device: 'veth0' as const }];
  });
}

function policyRoutes(connection: Connection, config: CoordinatorConfig): PlannedRoute[] {
  const families = podFamilies(connection);
  return config.policyRoutes
    .filter((route) => families.includes(route.dst.address.family))
    .map((route) => ({
      family: route.dst.address.family,
      dst: route.dst,
      gateway: route.gateway,
      device: 'pod interface' as const,
    }));
}

export function podFamilies(connection: Connection): IpFamily[] {
  return ([4, 6] as const).filter((family) => connection.podIps.some((ip) => ip.family === family));
}

function gatewayOf(connection: Connection, family: IpFamily): IpAddress | undefined {
  return connection.hostIps.find((ip) => ip.family === family);
}

/** Links whose addresses are not the node's own: bridges, tunnels and pod ends of other network software. */
const foreignLink = /^(docker|cbr|dummy|virbr|lxcbr|veth|lo$|cali|flannel|kube-ipvs|cni|vx-submariner|cilium)/;

export function isNodeLink(name: string): boolean {
  return !foreignLink.test(name);
}
