/** The pod's half: its interface, and the routes and rules in its namespace. */
import { cniErrorCodes } from '../api/cni.ts';
import { formatIp, ipToBytes, ipToPrefix, makePrefix, prefixContainsIp, type IpAddress } from '../core/ip.ts';
import type { InterfaceAddress } from '../kernel/netlink/address.ts';
import type { Link } from '../kernel/netlink/link.ts';
import { routeTable, type Route, type RouteSpec } from '../kernel/netlink/route.ts';
import type { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import type { Netns } from '../kernel/netns.ts';
import { writeSysctl } from '../kernel/sysctl.ts';
import type { CoordinatorConfig } from './coordinator-config.ts';
import type { Door } from './coordinator-door.ts';
import {
  coordinatorTables,
  isNodeLink,
  podFamilies,
  podRoutes,
  replyMark,
  rulePriority,
  type Connection,
  type Placement,
} from './coordinator-plan.ts';
import { nextPriority, tableOf, type Role, type SourceRule } from './coordinator-role.ts';
import { isDefault, planTuning, type PodNic } from './coordinator-tune.ts';
import { CniError } from './error.ts';

/** RT_SCOPE_UNIVERSE: addresses that are valid everywhere. */
const globalScope = 0;

/** What the kernel has, so that addresses that no plugin announced (SLAAC) count too. */
export function connectionOf(pod: RtNetlink, host: RtNetlink, ifName: string, config: CoordinatorConfig): Connection {
  const addresses = globalAddresses(pod, pod.mustLink(ifName).ifindex);
  const podIps = addresses.map(({ address }) => address);
  if (podIps.length === 0) {
    throw new CniError(
      cniErrorCodes.invalidNetworkConfig,
      `${ifName} has no address`,
      'the plugin before coordinator must configure one: is IPAM disabled?',
    );
  }
  const all = host
    .links()
    .filter((link) => isNodeLink(link.name))
    .flatMap((link) => globalAddresses(host, link.ifindex));
  const preferred = podIps.flatMap((ip) => nearest(ip, all) ?? host.routeTo(ip)?.source ?? []);
  const others = all.map(({ address }) => address);
  return {
    podIps,
    podPrefixes: addresses.map(({ address, prefixLen }) => makePrefix(address, prefixLen)),
    hostIps: distinct([...preferred, ...others]),
    doorSource: addressesOf(pod, config.podDefaultCniNic).find((ip) => ip.family === 4),
  };
}

/** The node's own address in the pod's subnet: what it would use to talk to the pod, also once a route leads through the door. */
function nearest(ip: IpAddress, nodeAddresses: readonly InterfaceAddress[]): IpAddress | undefined {
  return nodeAddresses.find(({ address, prefixLen }) => prefixContainsIp(makePrefix(address, prefixLen), ip))?.address;
}

function globalAddresses(rt: RtNetlink, ifindex: number): InterfaceAddress[] {
  return rt.addresses(ifindex).filter(({ scope }) => scope === globalScope);
}

/** None when there is no such interface. */
export function addressesOf(rt: RtNetlink, name: string): IpAddress[] {
  const link = rt.linkByName(name);
  return link === undefined ? [] : globalAddresses(rt, link.ifindex).map(({ address }) => address);
}

function distinct(ips: readonly IpAddress[]): IpAddress[] {
  return [...new Map(ips.map((ip) => [formatIp(ip), ip])).values()];
}

/** Answers true when the interface's MAC address is another one now. */
export function tuneInterface(
  pod: RtNetlink,
  netns: Netns,
  ifName: string,
  connection: Connection,
  config: CoordinatorConfig,
): boolean {
  const link = pod.mustLink(ifName);
  const mac = config.podMacPrefix === undefined ? link.mac : macFor(config.podMacPrefix, link, connection);
  if (mac !== link.mac) pod.setLink(link.ifindex, { mac });
  if (config.txQueueLength > 0) pod.setLink(link.ifindex, { txQueueLength: config.txQueueLength });
  if (!link.up) pod.setLink(link.ifindex, { up: true });
  if (podFamilies(connection).includes(6)) writeSysctl(netns, 'net.ipv6.conf.all.disable_ipv6', '0');
  return mac !== link.mac;
}

/** The kernel takes the stricter of `all` and the interface's own, so both are set. */
export function setRpFilter(netns: Netns, names: readonly string[], config: CoordinatorConfig): void {
  if (config.podRpFilter === undefined) return;
  for (const name of ['all', ...names])
    writeSysctl(netns, `net/ipv4/conf/${name}/rp_filter`, String(config.podRpFilter));
}

/** The prefix and the last four bytes of the pod's address: unique wherever the address is. */
function macFor(prefix: string, link: Link, connection: Connection): string {
  if (link.kind === 'ipvlan') {
    throw new CniError(
      cniErrorCodes.unsupportedField,
      'podMACPrefix cannot be used with ipvlan: its interfaces share the MAC address of their parent',
      'remove spec.coordinator.podMACPrefix, or use macvlan',
    );
  }
  const ip = connection.podIps.find((candidate) => candidate.family === 4) ?? connection.podIps[0];
  const bytes = ip === undefined ? new Uint8Array(4) : ipToBytes(ip).slice(-4);
  return [prefix, ...Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'))].join(':');
}

export interface PodTarget {
  readonly pod: RtNetlink;
  readonly ifName: string;
  readonly role: Role;
  readonly door: Door;
  readonly connection: Connection;
  readonly config: CoordinatorConfig;
}

/** Idempotent. Answers what a reader of the log should know. */
export function configurePod(target: PodTarget): readonly string[] {
  const { pod, ifName, role, door, connection, config } = target;
  const { ifindex } = door.pod;
  if (role.mode === 'underlay' && role.isFirst && config.vethLinkAddress !== undefined) {
    const { vethLinkAddress: address } = config;
    if (podFamilies(connection).includes(4))
      pod.setAddress({ ifindex, address, prefixLen: ipToPrefix(address).prefixLen });
  }
  for (const address of connection.hostIps) pod.setNeighbour({ ifindex, address, mac: door.host.mac });
  const table = ownTable(pod, role, connection);
  const { keeper, warnings } = tuneRoutes(target, table);
  const hasMainTable = Object.values(keeper).includes(ifName);
  applyRoutes(target, { mode: role.mode, isFirst: role.isFirst, table, hasMainTable });
  if (role.mode === 'underlay') {
    for (const family of podFamilies(connection))
      pod.ensureRule({ family, priority: rulePriority, fwmark: replyMark, table: coordinatorTables.replies });
  }
  return warnings;
}

function ownTable(pod: RtNetlink, role: Role, { podIps }: Connection): number {
  if (role.mode === 'underlay' && role.isFirst) return coordinatorTables.pod;
  const rules: SourceRule[] = pod.rules().flatMap(({ from, table }) => {
    return from === undefined ? [] : [{ from: formatIp(from.address), table }];
  });
  return tableOf(podIps.map(formatIp), rules);
}

function applyRoutes({ pod, ifName, door, connection, config }: PodTarget, placement: Placement): void {
  const own = pod.mustLink(ifName).ifindex;
  const answered = pod.routes().filter(({ table }) => table === coordinatorTables.replies);
  for (const { device, dst, ...route } of podRoutes(connection, config, placement)) {
    // The first interface's gateway stays; a later one only adds a family that the first does not have.
    const isReply = route.table === coordinatorTables.replies && !placement.isFirst;
    if (isReply && answered.some(({ family }) => family === route.family)) continue;
    const ifindex = device === 'door' ? door.pod.ifindex : own;
    pod.replaceRoute({ ...route, ...(dst === undefined ? {} : { dst }), ifindex });
  }
}

function tuneRoutes(
  { pod, ifName, role, config }: PodTarget,
  table: number,
): Pick<ReturnType<typeof planTuning>, 'keeper' | 'warnings'> {
  const isTuned = config.tunePodRoutes && (!role.isFirst || role.mode === 'overlay');
  if (!isTuned) return { keeper: {}, warnings: [] };
  const nics = pod
    .links()
    .filter(({ name, up }) => up && name !== 'lo')
    .map((link): PodNic => {
      const ips = globalAddresses(pod, link.ifindex).map(({ address }) => address);
      return { name: link.name, ifindex: link.ifindex, ips };
    });
  const current = nics.find(({ name }) => name === ifName);
  if (current === undefined) return { keeper: {}, warnings: [] };
  if (role.mode === 'overlay' && role.isFirst) keepDefaultNetwork(pod, nics, config.podDefaultCniNic);
  const routes = pod.routes();
  const plan = planTuning({ current, nics, routes, table, defaultRouteNic: config.podDefaultRouteNic });
  for (const route of byGateway(plan.copies)) pod.replaceRoute(specOf(route));
  for (const { from, table: lookup } of plan.rules) ensureSourceRule(pod, from, lookup);
  for (const route of plan.removals) pod.deleteRoute(specOf(route));
  return plan;
}

/** What the default network's own addresses send keeps its way, whichever interface gets the default route (spiderpool#3683). */
function keepDefaultNetwork(pod: RtNetlink, nics: readonly PodNic[], name: string): void {
  const nic = nics.find((each) => each.name === name);
  if (nic === undefined) return;
  for (const route of pod.routes()) {
    if (route.table !== routeTable.main || route.ifindex !== nic.ifindex || !isDefault(route)) continue;
    pod.replaceRoute(specOf({ ...route, table: coordinatorTables.replies }));
    for (const ip of nic.ips.filter((each) => each.family === route.family))
      ensureSourceRule(pod, ip, coordinatorTables.replies);
  }
}

/** Routes on the link first: gateways must be reachable when their routes are added. */
function byGateway(routes: readonly Route[]): Route[] {
  return [...routes.filter(({ gateway }) => gateway === undefined), ...routes.filter(({ gateway }) => gateway)];
}

function specOf(route: Route): RouteSpec {
  const { family, dst, gateway, ifindex, source, table, metric, scope } = route;
  return {
    family,
    table,
    ...(isDefault(route) || dst === undefined ? {} : { dst }),
    ...(gateway === undefined ? {} : { gateway }),
    ...(ifindex === undefined ? {} : { ifindex }),
    ...(source === undefined ? {} : { source }),
    ...(metric === undefined ? {} : { metric }),
    ...(scope === linkScope ? { scope: 'link' as const } : {}),
  };
}

const linkScope = 253;

function ensureSourceRule(pod: RtNetlink, from: IpAddress, table: number): void {
  const rules = pod.rules();
  const text = formatIp(from);
  if (rules.some((rule) => rule.table === table && rule.from !== undefined && formatIp(rule.from.address) === text))
    return;
  const { family } = from;
  pod.ensureRule({ family, from: ipToPrefix(from), table, priority: nextPriority(rules, family) });
}
