/**
 * The Container Network Interface, as the specification's result, configuration and error objects
 * (https://www.cni.dev/docs/spec/, versions 0.3.0 to 1.1.0). Inside Sluice a result always has the 1.1.0 shape;
 * src/cni/result.ts converts at the edge. Keys we do not know are kept: a chained plugin passes on what it was given.
 */

/** Every version of the specification we speak, oldest first. 0.1.0 and 0.2.0 have another result shape and no chaining. */
export const cniVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof cniVersions)[number];

export const cniCommands = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'] as const;
export type CniCommand = (typeof cniCommands)[number];

/** Codes 1–99 are the specification's ("Error"); 100 and up are ours, 999 is what the reference library uses for "internal". */
export const cniErrorCodes = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  ioFailure: 5,
  decodingFailure: 6,
  invalidNetworkConfig: 7,
  tryAgainLater: 11,
  /** STATUS: ADD cannot be served now. */
  notAvailable: 50,
  /** STATUS: ADD cannot be served, and running containers may have limited connectivity. */
  limitedConnectivity: 51,
  /** The pod's own objects are wrong (a malformed annotation, a missing pool): trying again without a change is pointless. */
  invalidPod: 100,
  /** The kernel lacks something or refused it. */
  kernel: 101,
  /** CHECK found the container's network other than it should be. */
  checkFailed: 102,
  internal: 999,
} as const;
export type CniErrorCode = (typeof cniErrorCodes)[keyof typeof cniErrorCodes];

export interface CniInterface {
  readonly name: string;
  readonly mac?: string;
  /** Bytes; 1.1.0. */
  readonly mtu?: number;
  /** The netns path for an interface in the container; absent or empty for one on the host. */
  readonly sandbox?: string;
  readonly [key: string]: unknown;
}

export interface CniIp {
  /** CIDR notation, the host bits kept: "172.51.0.102/16". */
  readonly address: string;
  readonly gateway?: string;
  /** Index into `interfaces`. IPAM plugins leave it out. */
  readonly interface?: number;
  readonly [key: string]: unknown;
}

export interface CniRoute {
  readonly dst: string;
  readonly gw?: string;
  readonly [key: string]: unknown;
}

export interface CniDns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
  readonly [key: string]: unknown;
}

/** A result in the 1.1.0 shape; `cniVersion` says which version it came in (prevResult) or is informative (a handler's result). */
export interface CniResult {
  readonly cniVersion: CniVersion;
  readonly interfaces: readonly CniInterface[];
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
  readonly [key: string]: unknown;
}

/** runtimeConfig.bandwidth, as the `bandwidth` capability fills it. Rates in bits per second, bursts in bits. */
export interface CniBandwidth {
  readonly ingressRate?: number;
  readonly ingressBurst?: number;
  readonly egressRate?: number;
  readonly egressBurst?: number;
}

export interface CniAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

/** The plugin's configuration object from stdin: its own keys beside those the runtime adds. */
export interface PluginConfig {
  readonly cniVersion: CniVersion;
  /** The network's name. */
  readonly name: string;
  /** The plugin's type; for an IPAM request still the main plugin's type. */
  readonly type: string;
  /** Set in chained ADD, and in CHECK and DEL from 0.4.0 on. */
  readonly prevResult?: CniResult;
  readonly runtimeConfig?: { readonly bandwidth?: CniBandwidth; readonly [capability: string]: unknown };
  /** Present when the request is for an IPAM plugin. */
  readonly ipam?: { readonly type: string; readonly [key: string]: unknown };
  /** GC: attachments that still exist; everything else may be removed. */
  readonly 'cni.dev/valid-attachments'?: readonly CniAttachment[];
  readonly [key: string]: unknown;
}

export interface CniRequest {
  /** The executable's name: sluice, cilium-cni, spiderpool, coordinator, ifacer. */
  readonly plugin: string;
  readonly command: CniCommand;
  /** Empty for STATUS and GC. */
  readonly containerId: string;
  /** Path of the network namespace; may be missing in DEL, where the container may be gone. */
  readonly netns?: string;
  /** Empty for STATUS and GC. */
  readonly ifName: string;
  /** CNI_ARGS taken apart: K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID, K8S_POD_INFRA_CONTAINER_ID … */
  readonly args: Readonly<Record<string, string>>;
  /** CNI_PATH; empty when not given. */
  readonly path: string;
  readonly config: PluginConfig;
}

/** A plugin: ADD answers a result, the other commands undefined. Failures are thrown as CniError (src/cni/error.ts). */
export type PluginHandler = (request: CniRequest, signal: AbortSignal) => Promise<CniResult | undefined>;
