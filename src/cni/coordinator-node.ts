/** The node's half: how it reaches the addresses of a pod's interface. */
import { formatIp, ipToPrefix, type IpAddress, type IpPrefix } from '../core/ip.ts';
import type { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import type { Netns } from '../kernel/netns.ts';
import { readSysctl, writeSysctl } from '../kernel/sysctl.ts';
import { podFamilies, rulePriority, type Connection } from './coordinator-plan.ts';
import type { Door } from './coordinator-door.ts';
import type { Role } from './coordinator-role.ts';

/**
 * Idempotent. What earlier pods left for these addresses goes first: it would send this pod's packets elsewhere.
 * In overlay mode the node's end of the door may have an address of its own (`ptp` gives it one), which the kernel would send
 * from; the pod's interfaces know the way back to the node's own addresses only.
 */
export function configureNode(
  host: RtNetlink,
  door: Door,
  { podIps, hostIps }: Pick<Connection, 'podIps' | 'hostIps'>,
  { mode, table }: { readonly mode: Role['mode']; readonly table: number },
): void {
  for (const family of podFamilies({ podIps })) host.ensureRule({ family, priority: rulePriority, table });
  removeAddresses(host, podIps, table, door.host.ifindex);
  for (const address of podIps) {
    const source = mode === 'overlay' ? hostIps.find(({ family }) => family === address.family) : undefined;
    host.setNeighbour({ ifindex: door.host.ifindex, address, mac: door.pod.mac });
    host.replaceRoute({
      family: address.family,
      dst: ipToPrefix(address),
      ifindex: door.host.ifindex,
      scope: 'link',
      table,
      ...(source === undefined ? {} : { source }),
    });
  }
}

/**
 * What a pod sends through a port of a bridge counts as the bridge's, and the way to its underlay addresses leads to the port:
 * a strict reverse-path check (`rp_filter` 1, as on RHEL) would drop it all. The bridge alone gets the loose one, which the
 * kernel prefers (Documentation/networking/ip-sysctl: the maximum of `all` and the interface's counts).
 */
export function loosenBridge(netns: Netns, host: RtNetlink, { host: end }: Door): void {
  const bridge = end.masterIfindex === undefined ? undefined : host.linkByIndex(end.masterIfindex);
  if (bridge?.kind !== 'bridge') return;
  const checks = ['all', bridge.name].map((name) => readSysctl(netns, rpFilterOf(name)));
  if (checks.includes('1') && !checks.includes('2')) writeSysctl(netns, rpFilterOf(bridge.name), '2');
}

function rpFilterOf(name: string): string {
  return `net/ipv4/conf/${name}/rp_filter`;
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
