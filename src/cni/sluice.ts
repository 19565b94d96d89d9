/**
 * The chained plugin `sluice` (also called `cilium-cni`): turns a pod interface that an earlier plugin made into an
 * endpoint. It makes no interface and no address, and passes the previous result on whole.
 */
import {
  cniErrorCodes,
  type CniAttachment,
  type CniRequest,
  type CniResult,
  type PluginConfig,
  type PluginHandler,
} from '../api/cni.ts';
import { formatErrorChain } from '../core/error.ts';
import { parseIp, type IpAddress } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { netnsInode } from '../kernel/netns.ts';
import { settleAddresses } from './address-settling.ts';
import { announce } from './announcement.ts';
import { CniError } from './error.ts';
import { versionAtLeast } from './version.ts';

/** The name upstream's fork insists on; ours works with any, and says once that the manifest deviates. */
export const expectedNetworkName = 'spidernet-chainer';

export interface EndpointSpec {
  readonly containerId: string;
  readonly ifName: string;
  readonly networkName: string;
  readonly netns: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  /** Addresses of the interface, without prefix length. */
  readonly ips: readonly string[];
  readonly bandwidth: NonNullable<PluginConfig['runtimeConfig']>['bandwidth'];
}

/** What the plugin needs of the agent (src/agent/endpoint-lifecycle.ts). */
export interface EndpointLifecycle {
  /** Resolves when the pod's policy and limits are in the kernel; otherwise everything is undone and it rejects. Idempotent. */
  create(spec: EndpointSpec, signal: AbortSignal): Promise<void>;
  /** Succeeds when there is nothing to remove. */
  remove(containerId: string, ifName: string): Promise<void>;
  /** Removes the network's endpoints that are not in the list. */
  removeOthers(networkName: string, valid: readonly CniAttachment[]): Promise<void>;
  /** What is not as it should be, in sentences; empty when all is well. */
  check(containerId: string, ifName: string, netns: string): Promise<string[]>;
  /** Why ADD cannot be served now; empty when it can. */
  unavailable(): string[];
}

export interface SluicePluginDeps {
  readonly endpoints: EndpointLifecycle;
  readonly log: Logger;
}

export function createSluicePlugin(deps: SluicePluginDeps): PluginHandler {
  const warnedNetworks = new Set<string>();
  return async (request, signal) => {
    switch (request.command) {
      case 'ADD':
        warnOfNetworkName(request, deps.log, warnedNetworks);
        return add(request, deps, signal);
      case 'DEL':
        await deps.endpoints.remove(request.containerId, request.ifName);
        return undefined;
      case 'CHECK':
        return check(request, deps);
      case 'STATUS':
        return status(deps);
      case 'GC':
        await deps.endpoints.removeOthers(request.config.name, request.config['cni.dev/valid-attachments'] ?? []);
        return undefined;
    }
  };
}

async function add(request: CniRequest, deps: SluicePluginDeps, signal: AbortSignal): Promise<CniResult> {
  const previous = requirePrevResult(request);
  const netns = requireNetns(request);
  const interfaceIndex = findInterface(previous, request.ifName, netns);
  const spec: EndpointSpec = {
    containerId: request.containerId,
    ifName: request.ifName,
    networkName: request.config.name,
    netns,
    pod: podOf(request),
    ips: addressesOf(previous, interfaceIndex),
    bandwidth: request.config.runtimeConfig?.bandwidth,
  };
  await deps.endpoints.create(spec, signal);
  await settle(spec, deps.log, signal);
  announceAddresses(spec, deps.log);
  return previous;
}

/** After policy is in force, so that waiting opens nothing; before the addresses are announced, since they may turn out to be another's. Then policy stays until DEL. */
async function settle({ netns, ifName, ips }: EndpointSpec, log: Logger, signal: AbortSignal): Promise<void> {
  await settleAddresses({ netns, interfaceName: ifName }, parsed(ips), log, signal);
}

function parsed(ips: readonly string[]): IpAddress[] {
  return ips.map(parseIp).filter((address) => address !== undefined);
}

/** Neighbours find out without it too, only later: no reason to fail. */
function announceAddresses({ netns, ifName, ips, pod }: EndpointSpec, log: Logger): void {
  try {
    announce(netns, ifName, parsed(ips));
  } catch (error) {
    log.warn({ pod: `${pod.namespace}/${pod.name}`, error: formatErrorChain(error) }, 'addresses were not announced');
  }
}

async function check(request: CniRequest, deps: SluicePluginDeps): Promise<undefined> {
  const netns = requireNetns(request);
  if (versionAtLeast(request.config.cniVersion, '0.4.0'))
    findInterface(requirePrevResult(request), request.ifName, netns);
  const findings = await deps.endpoints.check(request.containerId, request.ifName, netns);
  if (findings.length === 0) return undefined;
  const what = `CHECK of ${request.ifName} in ${netns}: ${findings[0]}`;
  throw new CniError(cniErrorCodes.checkFailed, what, findings.join('; '));
}

function status(deps: SluicePluginDeps): undefined {
  const reasons = deps.endpoints.unavailable();
  if (reasons.length === 0) return undefined;
  throw new CniError(cniErrorCodes.notAvailable, `not ready: ${reasons[0]}`, reasons.join('; '));
}

function requirePrevResult(request: CniRequest): CniResult {
  if (request.config.prevResult !== undefined) return request.config.prevResult;
  throw new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `${request.plugin} must be called as a chained plugin: prevResult is missing`,
    `put {"type":"${request.plugin}"} after the plugin that makes the interface in the "plugins" list of network ${request.config.name}`,
  );
}

/** The path must be a namespace now: an interface cannot be found in one that is gone (code 3, "container does not exist"). */
function requireNetns(request: CniRequest): string {
  const netns = request.netns ?? '';
  if (netns !== '' && netnsInode(netns) !== undefined) return netns;
  throw new CniError(
    cniErrorCodes.unknownContainer,
    `network namespace ${JSON.stringify(netns)} of container ${request.containerId} does not exist`,
    'the sandbox ended while it was set up; the runtime makes a new one',
  );
}

/** By name and sandbox: the list may begin with host interfaces, or with those of another attachment. */
function findInterface(result: CniResult, ifName: string, netns: string): number {
  const inode = netnsInode(netns);
  const inPod = (sandbox: string | undefined): boolean =>
    sandbox !== undefined && sandbox !== '' && (sandbox === netns || netnsInode(sandbox) === inode);
  const index = result.interfaces.findIndex((candidate) => candidate.name === ifName && inPod(candidate.sandbox));
  if (index >= 0) return index;
  const names = result.interfaces.map((i) => `${i.name}${i.sandbox ? ` in ${i.sandbox}` : ' on the host'}`);
  throw new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `prevResult.interfaces has no ${ifName} in ${netns}`,
    `it has ${names.length === 0 ? 'none' : names.join(', ')}; the plugin before this one must make the pod's interface`,
  );
}

/** An address without index belongs to the one interface there is (results of plugins that predate the index). */
function addressesOf(result: CniResult, interfaceIndex: number): string[] {
  return result.ips
    .filter((ip) => (ip.interface ?? interfaceIndex) === interfaceIndex)
    .map((ip) => ip.address.split('/')[0] ?? ip.address);
}

function podOf(request: CniRequest): EndpointSpec['pod'] {
  const { K8S_POD_NAMESPACE: namespace = '', K8S_POD_NAME: name = '', K8S_POD_UID: uid = '' } = request.args;
  if (namespace !== '' && name !== '') return { namespace, name, uid };
  throw new CniError(
    cniErrorCodes.invalidEnvironment,
    'invalid environment variable CNI_ARGS: K8S_POD_NAMESPACE and K8S_POD_NAME are needed',
    'the container runtime must be run by Kubernetes, or pass these arguments itself',
  );
}

function warnOfNetworkName(request: CniRequest, log: Logger, warned: Set<string>): void {
  const network = request.config.name;
  if (network === expectedNetworkName || warned.has(network)) return;
  warned.add(network);
  log.warn(
    { network, plugin: request.plugin },
    `network name is not ${expectedNetworkName}; policy and limits apply all the same. For manifests shared with ` +
      `cilium-chaining set the annotation cni.spidernet.io/cniconfig-name: ${expectedNetworkName}`,
  );
}
