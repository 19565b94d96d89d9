/**
 * The `coordinator` plugin: a veth pair between the pod and its node, because an ipvlan or macvlan pod cannot reach
 * its own node through the parent interface. Underlay mode, first interface.
 */
import { randomBytes } from 'node:crypto';
import { cniErrorCodes, type CniRequest, type CniResult, type PluginHandler } from '../api/cni.ts';
import type { IpAddress } from '../core/ip.ts';
import { formatIp, ipToBytes, ipToPrefix } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { type Link } from '../kernel/netlink/link.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { Netns, netnsInode } from '../kernel/netns.ts';
import { writeSysctl } from '../kernel/sysctl.ts';
import { type CoordinatorConfig, parseCoordinatorConfig } from './coordinator-config.ts';
import {
  type Connection,
  coordinatorTables,
  isNodeLink,
  podFamilies,
  podRoutes,
  replyMark,
  rulePriority,
} from './coordinator-plan.ts';
import { ensureReplyPath, hasReplyPath } from './coordinator-reply-path.ts';
import { CniError } from './error.ts';

export interface CoordinatorDeps {
  /** Called before veth0 is set up, so that policy is in force on it from its first packet. Must be idempotent. */
  readonly onInterface: (made: { containerId: string; netns: string; interfaceName: string }) => Promise<void>;
  readonly log: Logger;
}

export const podVethName = 'veth0';
/** RT_SCOPE_UNIVERSE: addresses that are valid everywhere. */
const globalScope = 0;

export function createCoordinatorPlugin(deps: CoordinatorDeps): PluginHandler {
  return async (request) => {
    switch (request.command) {
      case 'ADD':
        return add(request, deps);
      case 'DEL':
        remove(request);
        return undefined;
      case 'CHECK':
        check(request);
        return undefined;
      case 'STATUS':
      case 'GC': // the node's end of the pair goes with the pod's namespace
        return undefined;
    }
  };
}

/** `veth` and 11 characters of the container's id: 15, the longest name there is. */
export function hostVethName(containerId: string): string {
  return `veth${containerId.slice(0, 11)}`;
}

async function add(request: CniRequest, deps: CoordinatorDeps): Promise<CniResult> {
  const config = parseCoordinatorConfig(request.config);
  const previous = request.config.prevResult;
  if (previous === undefined) {
    throw new CniError(
      cniErrorCodes.invalidNetworkConfig,
      'coordinator must be called as a chained plugin: prevResult is missing',
      'put it after the plugin that makes the interface',
    );
  }
  if (config.mode === 'disabled') return previous;
  requireUnderlayFirst(config, request);
  const netnsPath = requireNetns(request);
  using netns = Netns.openPath(netnsPath);
  using pod = RtNetlink.open(netns);
  using host = RtNetlink.open();
  const connection = connectionOf(pod, host, request.ifName);
  tuneInterface(pod, netns, request.ifName, connection, config);
  const veth = ensureVeth(pod, host, netns, request.containerId, config);
  await deps.onInterface({ containerId: request.containerId, netns: netnsPath, interfaceName: podVethName });
  pod.setLink(veth.pod.ifindex, { up: true });
  host.setLink(veth.host.ifindex, { up: true });
  configurePod(pod, request.ifName, veth, connection, config);
  ensureReplyPath(pod, netns, veth.pod);
  configureHost(host, veth, connection, config);
  deps.log.debug(
    { containerId: request.containerId, hostInterface: veth.host.name, podIps: connection.podIps.map(formatIp) },
    'pod connected to its node',
  );
  return previous;
}

function requireUnderlayFirst(config: CoordinatorConfig, request: CniRequest): void {
  if (config.mode !== 'overlay' && request.ifName === config.podDefaultCniNic) return;
  throw new CniError(
    cniErrorCodes.unsupportedField,
    `coordinator mode ${config.mode} on ${request.ifName}: only underlay mode on the pod's first interface (${config.podDefaultCniNic}) is supported`,
    'set spec.enableCoordinator: false in the SpiderMultusConfig of additional interfaces',
  );
}

function requireNetns(request: CniRequest): string {
  if (request.netns !== undefined && netnsInode(request.netns) !== undefined) return request.netns;
  throw new CniError(
    cniErrorCodes.unknownContainer,
    `network namespace ${JSON.stringify(request.netns ?? '')} of container ${request.containerId} does not exist`,
  );
}

function connectionOf(pod: RtNetlink, host: RtNetlink, ifName: string): Connection {
  const podIps = globalAddresses(pod, pod.mustLink(ifName).ifindex);
  if (podIps.length === 0) {
    throw new CniError(
      cniErrorCodes.invalidNetworkConfig,
      `${ifName} has no address`,
      'the plugin before coordinator must configure one: is IPAM disabled?',
    );
  }
  // First the address the node itself would use to talk to the pod, then all its others.
  const preferred = podIps.map((ip) => host.routeTo(ip)?.source).filter((ip) => ip !== undefined);
  const others = host
    .links()
    .filter((link) => isNodeLink(link.name))
    .flatMap((link) => globalAddresses(host, link.ifindex));
  return { podIps, hostIps: distinct([...preferred, ...others]) };
}

function globalAddresses(rt: RtNetlink, ifindex: number): IpAddress[] {
  return rt
    .addresses(ifindex)
    .filter((address) => address.scope === globalScope)
    .map((address) => address.address);
}

function distinct(ips: readonly IpAddress[]): IpAddress[] {
  return [...new Map(ips.map((ip) => [formatIp(ip), ip])).values()];
}

function tuneInterface(
  pod: RtNetlink,
  netns: Netns,
  ifName: string,
  connection: Connection,
  config: CoordinatorConfig,
): void {
  const link = pod.mustLink(ifName);
  if (config.podMacPrefix !== undefined)
    pod.setLink(link.ifindex, { mac: macFor(config.podMacPrefix, link, connection) });
  if (config.txQueueLength > 0) pod.setLink(link.ifindex, { txQueueLength: config.txQueueLength });
  if (podFamilies(connection).includes(6)) writeSysctl(netns, 'net.ipv6.conf.all.disable_ipv6', '0');
  if (config.podRpFilter !== undefined) writeSysctl(netns, 'net.ipv4.conf.all.rp_filter', String(config.podRpFilter));
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

interface VethPair {
  readonly pod: Link;
  readonly host: Link;
}

/** Made once: a repeated ADD finds the pair it made; half of a pair, or another's, is replaced. */
function ensureVeth(
  pod: RtNetlink,
  host: RtNetlink,
  netns: Netns,
  containerId: string,
  config: CoordinatorConfig,
): VethPair {
  const name = hostVethName(containerId);
  const inPod = pod.linkByName(podVethName);
  const onHost = host.linkByName(name);
  if (inPod !== undefined && onHost !== undefined && inPod.parentIfindex === onHost.ifindex)
    return { pod: inPod, host: onHost };
  if (onHost !== undefined) host.deleteLink(onHost.ifindex);
  const left = pod.linkByName(podVethName);
  if (left !== undefined) pod.deleteLink(left.ifindex);
  // Explicit MAC addresses: udev would give others to links that come without, after the neighbour entries are set.
  const peer = { name: podVethName, mac: randomMac(), mtu: config.vethMtu, netnsFd: netns.fd };
  host.addLink({ kind: 'veth', name, mac: randomMac(), mtu: config.vethMtu, peer });
  return { pod: pod.mustLink(podVethName), host: host.mustLink(name) };
}

/** Locally administered, unicast. */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function configurePod(
  pod: RtNetlink,
  ifName: string,
  veth: VethPair,
  connection: Connection,
  config: CoordinatorConfig,
): void {
  const { ifindex } = veth.pod;
  if (config.vethLinkAddress !== undefined && podFamilies(connection).includes(4)) {
    pod.setAddress({
      ifindex,
      address: config.vethLinkAddress,
      prefixLen: ipToPrefix(config.vethLinkAddress).prefixLen,
    });
  }
  for (const address of connection.hostIps) pod.setNeighbour({ ifindex, address, mac: veth.host.mac });
  const nicIndex = pod.mustLink(ifName).ifindex;
  for (const { device, dst, ...route } of podRoutes(connection, config)) {
    pod.replaceRoute({
      ...route,
      ...(dst === undefined ? {} : { dst }),
      ifindex: device === 'veth0' ? ifindex : nicIndex,
    });
  }
  for (const family of podFamilies(connection))
    pod.ensureRule({ family, priority: rulePriority, fwmark: replyMark, table: coordinatorTables.replies });
}

function configureHost(host: RtNetlink, veth: VethPair, connection: Connection, config: CoordinatorConfig): void {
  const table = config.hostRuleTable;
  for (const family of podFamilies(connection)) host.ensureRule({ family, priority: rulePriority, table });
  removeLeftovers(host, veth, connection, table);
  for (const address of connection.podIps) {
    host.setNeighbour({ ifindex: veth.host.ifindex, address, mac: veth.pod.mac });
    host.replaceRoute({
      family: address.family,
      dst: ipToPrefix(address),
      ifindex: veth.host.ifindex,
      scope: 'link',
      table,
    });
  }
}

/** An earlier pod may have had the address: its entries would send this pod's packets elsewhere. */
function removeLeftovers(host: RtNetlink, veth: VethPair, connection: Connection, table: number): void {
  const ours = new Set(connection.podIps.map(formatIp));
  for (const neighbour of host.neighbours()) {
    if (ours.has(formatIp(neighbour.address)) && neighbour.ifindex !== veth.host.ifindex)
      host.deleteNeighbour({ ifindex: neighbour.ifindex, address: neighbour.address });
  }
  for (const route of host.routes()) {
    const isOurs =
      route.dst !== undefined &&
      ours.has(formatIp(route.dst.address)) &&
      route.dst.prefixLen === ipToPrefix(route.dst.address).prefixLen;
    if (!isOurs || route.table !== table || route.ifindex === veth.host.ifindex || route.dst === undefined) continue;
    host.deleteRoute({
      family: route.family,
      dst: route.dst,
      table,
      ...(route.ifindex === undefined ? {} : { ifindex: route.ifindex }),
    });
  }
}

/** Needs neither the agent's state nor the pod's namespace; routes and neighbours vanish with the link. */
function remove(request: CniRequest): void {
  using host = RtNetlink.open();
  const link = host.linkByName(hostVethName(request.containerId));
  if (link !== undefined) host.deleteLink(link.ifindex);
}

function check(request: CniRequest): void {
  const config = parseCoordinatorConfig(request.config);
  if (config.mode === 'disabled') return;
  using pod = RtNetlink.open(requireNetns(request));
  using host = RtNetlink.open();
  const inPod = pod.linkByName(podVethName);
  const onHost = host.linkByName(hostVethName(request.containerId));
  const findings: string[] = [];
  if (inPod === undefined || !inPod.up)
    findings.push(`${podVethName} is ${inPod === undefined ? 'missing' : 'down'} in the pod`);
  if (inPod !== undefined && !hasReplyPath(pod, inPod.ifindex))
    findings.push(`${podVethName} does not mark what comes in: answers to it leave by ${request.ifName}`);
  if (onHost === undefined || !onHost.up)
    findings.push(`${hostVethName(request.containerId)} is ${onHost === undefined ? 'missing' : 'down'} on the node`);
  const routed = new Set(
    host
      .routes()
      .filter((r) => r.table === config.hostRuleTable && r.ifindex === onHost?.ifindex && r.dst !== undefined)
      .map((r) => (r.dst === undefined ? '' : formatIp(r.dst.address))),
  );
  for (const ip of globalAddresses(pod, pod.mustLink(request.ifName).ifindex)) {
    if (!routed.has(formatIp(ip)))
      findings.push(`the node has no route to ${formatIp(ip)} in table ${config.hostRuleTable}`);
  }
  if (findings.length > 0)
    throw new CniError(
      cniErrorCodes.checkFailed,
      `CHECK of the pod's connection to its node: ${findings[0]}`,
      findings.join('; '),
    );
}
