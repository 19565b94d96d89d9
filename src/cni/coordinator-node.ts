/** The node's half: how it reaches the addresses of a pod's interface. */
import { formatIp, ipToPrefix, type IpAddress, type IpPrefix } from '../core/ip.ts';
import type { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { rulePriority, podFamilies } from './coordinator-plan.ts';
import type { Door } from './coordinator-door.ts';

/** Idempotent. What earlier pods left for these addresses goes first: it would send this pod's packets elsewhere. */
export function configureNode(host: RtNetlink, door: Door, podIps: readonly IpAddress[], table: number): void {
  for (const family of podFamilies({ podIps })) host.ensureRule({ family, priority: rulePriority, table });
  removeAddresses(host, podIps, table, door.host.ifindex);
  for (const address of podIps) {
    host.setNeighbour({ ifindex: door.host.ifindex, address, mac: door.pod.mac });
    host.replaceRoute({
      family: address.family,
      dst: ipToPrefix(address),
      ifindex: door.host.ifindex,
      scope: 'link',
      table,
    });
  }
}

/** Neighbours, routes of the table and rules `to` the addresses; those on `exceptIfindex` stay. */
export function removeAddresses(
  host: RtNetlink,
  podIps: readonly IpAddress[],
  table: number,
  exceptIfindex?: number,
): void {
  const ours = new Set(podIps.map(formatIp));
  const isOurs = (prefix: IpPrefix | undefined): prefix is IpPrefix =>
    prefix !== undefined &&
    ours.has(formatIp(prefix.address)) &&
    prefix.prefixLen === ipToPrefix(prefix.address).prefixLen;
  for (const { address, ifindex } of host.neighbours()) {
    if (ours.has(formatIp(address)) && ifindex !== exceptIfindex) host.deleteNeighbour({ ifindex, address });
  }
  for (const { dst, table: routeTable, ifindex, family } of host.routes()) {
    if (!isOurs(dst) || routeTable !== table || ifindex === exceptIfindex) continue;
    host.deleteRoute({ family, dst, table, ...(ifindex === undefined ? {} : { ifindex }) });
  }
  // Older releases of Spiderpool made one for each address.
  for (const rule of host.rules()) if (isOurs(rule.to) && rule.table === table) host.deleteRule(rule);
}

export function isRouted(host: RtNetlink, address: IpAddress, door: Door, table: number): boolean {
  return host
    .routes()
    .some(
      ({ dst, table: routeTable, ifindex }) =>
        routeTable === table &&
        ifindex === door.host.ifindex &&
        dst !== undefined &&
        formatIp(dst.address) === formatIp(address),
    );
}
