/**
 * The `coordinator` plugin: joins a pod's interface and its node, because an ipvlan or macvlan pod cannot reach its own node
 * through the parent interface, and keeps the routes of a pod's several interfaces apart.
 *
 *   underlay  the first interface gets a veth pair to the node; further ones use it too
 *   overlay   the default network's own veth leads to the node; underlay interfaces beside it use that
 */
import { cniErrorCodes, type CniRequest, type CniResult, type PluginHandler } from '../api/cni.ts';
import { defaultInterface } from '../api/network-selection.ts';
import { formatIp, parseIp, type IpAddress } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { routeTable } from '../kernel/netlink/route.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { Netns, netnsInode } from '../kernel/netns.ts';
import { settleAddresses } from './address-settling.ts';
import { announce } from './announcement.ts';
import type { ClusterCoordinatorConfig } from './coordinator-cluster.ts';
import { parseCoordinatorConfig, type CoordinatorConfig } from './coordinator-config.ts';
import { ensureDoor, findDoor, hostVethName, type Door } from './coordinator-door.ts';
import { configureNode, isRouted, loosenBridge, removeAddresses } from './coordinator-node.ts';
import { addressesOf, configurePod, connectionOf, setRpFilter, tuneInterface } from './coordinator-pod.ts';
import { ensureReplyPath, hasReplyPath } from './coordinator-reply-path.ts';
import { decideRole, podVethName, type Role } from './coordinator-role.ts';
import { CniError } from './error.ts';

export interface PodCoordination {
  readonly config: ClusterCoordinatorConfig;
  /** Every interface the pod asks for: one that is not there yet may still come. */
  readonly interfaces: readonly string[];
}

export interface CoordinatorDeps {
  /** Called before veth0 is set up, so that policy is in force on it from its first packet. Must be idempotent. */
  readonly onInterface: (made: MadeInterface) => Promise<void>;
  /** What the cluster says about the pod; undefined where nobody knows. Rejects while it cannot be told. */
  readonly coordination?: (pod: PodReference, signal: AbortSignal) => Promise<PodCoordination | undefined>;
  readonly log: Logger;
}

export interface MadeInterface {
  readonly containerId: string;
  readonly netns: string;
  /** The interface that the call was for. */
  readonly ifName: string;
  readonly interfaceName: string;
}

export interface PodReference {
  readonly namespace: string;
  readonly name: string;
}

export function createCoordinatorPlugin(deps: CoordinatorDeps): PluginHandler {
  return async (request, signal) => {
    switch (request.command) {
      case 'ADD':
        return add(request, deps, signal);
      case 'DEL':
        remove(request);
        return undefined;
      case 'CHECK':
        await check(request, deps, signal);
        return undefined;
      case 'STATUS':
      case 'GC': // the node's end of the pair goes with the pod's namespace
        return undefined;
    }
  };
}

async function add(request: CniRequest, deps: CoordinatorDeps, signal: AbortSignal): Promise<CniResult> {
  const previous = requirePrevResult(request);
  if (isDisabled(request)) return previous;
  // Before the first await: they are of the thread's namespace now.
  using hostNetns = Netns.current();
  using host = RtNetlink.open();
  const coordination = await clusterConfig(request, deps, signal);
  const config = parseCoordinatorConfig(request.config, coordination?.config);
  if (config.mode === 'disabled') return previous;
  const netnsPath = requireNetns(request);
  const { ifName, containerId } = request;
  using netns = Netns.openPath(netnsPath);
  using pod = RtNetlink.open(netns);
  const role = decideRole(config, ifName, pod.links());
  requireDefaultRouteNic(config, pod, coordination?.interfaces ?? []);
  const connection = connectionOf(pod, host, ifName, config);
  const door = ensureDoor(role, { pod, host, netns, containerId }, config);
  if (role.mode === 'underlay' && role.isFirst) await openVeth(request, deps, { netns, pod, host, door });
  const hasNewMac = tuneInterface(pod, netns, ifName, connection, config);
  setRpFilter(netns, [ifName, role.door], config);
  const warnings = configurePod({ pod, ifName, role, door, connection, config });
  configureNode(host, door, connection, { mode: role.mode, table: config.hostRuleTable });
  if (role.mode === 'overlay') loosenBridge(hostNetns, host, door);
  await settleAddresses({ netns: netnsPath, interfaceName: ifName }, connection.podIps, deps.log, signal);
  if (hasNewMac) announce(netnsPath, ifName, connection.podIps);
  const log = { containerId, interface: ifName, ...role, podIps: connection.podIps.map(formatIp) };
  deps.log.debug({ ...log, hostInterface: door.host.name }, 'pod connected to its node');
  for (const warning of warnings) deps.log.warn(log, warning);
  return withMac(previous, request, pod.mustLink(ifName).mac);
}

async function openVeth(
  { containerId, ifName }: CniRequest,
  deps: CoordinatorDeps,
  { netns, pod, host, door }: { netns: Netns; pod: RtNetlink; host: RtNetlink; door: Door },
): Promise<void> {
  await deps.onInterface({ containerId, netns: netns.path, ifName, interfaceName: podVethName });
  pod.setLink(door.pod.ifindex, { up: true });
  host.setLink(door.host.ifindex, { up: true });
  ensureReplyPath(pod, netns, door.pod);
}

function isDisabled({ config }: CniRequest): boolean {
  return config['mode'] === 'disable' || config['mode'] === 'disabled';
}

async function clusterConfig(
  { args }: CniRequest,
  { coordination }: CoordinatorDeps,
  signal: AbortSignal,
): Promise<PodCoordination | undefined> {
  const { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name } = args;
  return namespace && name ? coordination?.({ namespace, name }, signal) : undefined;
}

function requirePrevResult({ config }: CniRequest): CniResult {
  if (config.prevResult !== undefined) return config.prevResult;
  throw new CniError(
    cniErrorCodes.invalidNetworkConfig,
    'coordinator must be called as a chained plugin: prevResult is missing',
    'put it after the plugin that makes the interface',
  );
}

function requireNetns(request: CniRequest): string {
  if (request.netns !== undefined && netnsInode(request.netns) !== undefined) return request.netns;
  throw new CniError(
    cniErrorCodes.unknownContainer,
    `network namespace ${JSON.stringify(request.netns ?? '')} of container ${request.containerId} does not exist`,
  );
}

/** Upstream refuses every interface that is not there yet, so that only the first could be named. */
function requireDefaultRouteNic(
  { podDefaultRouteNic: name }: CoordinatorConfig,
  pod: RtNetlink,
  coming: readonly string[],
): void {
  if (name === undefined || coming.includes(name) || pod.linkByName(name) !== undefined) return;
  throw new CniError(
    cniErrorCodes.invalidPod,
    `podDefaultRouteNIC: ${name} don't exist in pod`,
    'name an interface of the pod in the annotation ipam.spidernet.io/default-route-nic, or in spec.coordinator.podDefaultRouteNIC',
  );
}

function withMac(result: CniResult, { ifName, netns }: CniRequest, mac: string): CniResult {
  const interfaces = result.interfaces.map((each) =>
    each.name === ifName && each.sandbox === netns ? { ...each, mac } : each,
  );
  return { ...result, interfaces };
}

/**
 * Needs neither the pod's namespace nor the cluster's configuration: what the node has for the pod vanishes with the veth pair.
 * For a further interface that goes alone, its addresses are taken away by name.
 */
function remove(request: CniRequest): void {
  const { containerId, config, ifName } = request;
  const named = config['podDefaultCniNic'];
  const defaultNic = typeof named === 'string' && named !== '' ? named : defaultInterface;
  const isDefault = ifName === defaultNic;
  const isGone = request.netns === undefined || netnsInode(request.netns) === undefined;
  using host = RtNetlink.open();
  if (isDefault || isGone) {
    const link = host.linkByName(hostVethName(containerId));
    if (link !== undefined) host.deleteLink(link.ifindex);
  }
  if (isDefault || isGone) return;
  using pod = RtNetlink.open(request.netns);
  const door = [podVethName, defaultNic]
    .map((name) => findDoor({ door: name }, { pod, host }))
    .find((found) => found !== undefined);
  if (door === undefined) return;
  const inPod = addressesOf(pod, ifName);
  const addresses = inPod.length > 0 ? inPod : addressesIn(config.prevResult, ifName);
  for (const table of tablesWith(host, door, addresses)) removeAddresses(host, addresses, table);
}

function addressesIn(result: CniResult | undefined, ifName: string): IpAddress[] {
  if (result === undefined) return [];
  const index = result.interfaces.findIndex(({ name, sandbox }) => name === ifName && Boolean(sandbox));
  return result.ips
    .filter((ip) => ip.interface === undefined || ip.interface === index)
    .flatMap(({ address }) => parseIp(address.split('/')[0] ?? '') ?? []);
}

/** hostRuleTable as it was at ADD, which the cluster may have changed since. */
function tablesWith(host: RtNetlink, door: Door, addresses: readonly IpAddress[]): Set<number> {
  const ours = new Set(addresses.map(formatIp));
  const { main, local } = routeTable;
  const routes = host.routes().filter(({ ifindex, table }) => ifindex === door.host.ifindex && table !== local);
  const found = routes.filter(
    ({ dst, table }) => table !== main && dst !== undefined && ours.has(formatIp(dst.address)),
  );
  return new Set(found.map(({ table }) => table));
}

async function check(request: CniRequest, deps: CoordinatorDeps, signal: AbortSignal): Promise<void> {
  if (isDisabled(request)) return;
  using host = RtNetlink.open();
  const coordination = await clusterConfig(request, deps, signal);
  const config = parseCoordinatorConfig(request.config, coordination?.config);
  if (config.mode === 'disabled') return;
  using pod = RtNetlink.open(requireNetns(request));
  const findings = findingsOf(request, config, pod, host);
  if (findings.length === 0) return;
  const what = `CHECK of the pod's connection to its node: ${findings[0]}`;
  throw new CniError(cniErrorCodes.checkFailed, what, findings.join('; '));
}

function findingsOf(request: CniRequest, config: CoordinatorConfig, pod: RtNetlink, host: RtNetlink): string[] {
  const role = checkedRole(request, config, pod);
  const door = findDoor(role, { pod, host });
  if (door === undefined) return [`${role.door} is missing in the pod, or does not lead to the node`];
  const findings: string[] = [];
  if (!door.pod.up) findings.push(`${role.door} is down in the pod`);
  if (!door.host.up) findings.push(`${door.host.name} is down on the node`);
  if (role.mode === 'underlay' && !hasReplyPath(pod, door.pod.ifindex))
    findings.push(`${role.door} does not mark what comes in: answers to it leave by ${request.ifName}`);
  for (const ip of addressesOf(pod, request.ifName)) {
    if (!isRouted(host, ip, door, config.hostRuleTable))
      findings.push(`the node has no route to ${formatIp(ip)} in table ${config.hostRuleTable}`);
  }
  return findings;
}

/** A veth0 that is missing must not make it another mode. */
function checkedRole({ ifName }: CniRequest, config: CoordinatorConfig, pod: RtNetlink): Pick<Role, 'mode' | 'door'> {
  if (ifName === config.podDefaultCniNic) return { mode: 'underlay', door: podVethName };
  return decideRole(config, ifName, pod.links());
}
