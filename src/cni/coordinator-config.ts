/**
 * The `coordinator` plugin's configuration object: the keys and defaults of Spiderpool's chain plugin
 * (https://spidernet-io.github.io/spiderpool, "coordinator"). What the object does not say, the cluster says
 * (SpiderCoordinator). Empty lists and texts are the same as absent ones. Further keys are ignored, as upstream's own
 * leftovers are: multusNicPrefix, hostRPFilter, logOptions, detectIPConflict, detectGateway, detectOptions.
 */
import { z } from 'zod';
import { cniErrorCodes, type PluginConfig } from '../api/cni.ts';
import { ipToPrefix, parseIp, parsePrefix, type IpAddress, type IpPrefix } from '../core/ip.ts';
import type { ClusterCoordinatorConfig } from './coordinator-cluster.ts';
import { CniError } from './error.ts';

export interface PolicyRoute {
  readonly dst: IpPrefix;
  readonly gateway: IpAddress;
}

export interface CoordinatorConfig {
  readonly mode: 'auto' | 'underlay' | 'overlay' | 'disabled';
  /** The interface that the default network makes. */
  readonly podDefaultCniNic: string;
  readonly vethLinkAddress: IpAddress | undefined;
  readonly vethMtu: number;
  /** "aa:bb"; undefined leaves the MAC address alone. */
  readonly podMacPrefix: string | undefined;
  /** Destinations that go through the node: pod and service CIDRs and what the user adds. */
  readonly hijackPrefixes: readonly IpPrefix[];
  readonly policyRoutes: readonly PolicyRoute[];
  /** Further interfaces get a routing table of their own, so that what comes in by one goes out by it. */
  readonly tunePodRoutes: boolean;
  /** The interface that keeps the default route; undefined: the one that has it. */
  readonly podDefaultRouteNic: string | undefined;
  readonly hostRuleTable: number;
  /** Undefined leaves the sysctl alone. */
  readonly podRpFilter: number | undefined;
  /** 0 leaves the queue length alone. */
  readonly txQueueLength: number;
}

const defaultHostRuleTable = 500;
const defaultVethMtu = 1500;
const text = z.string().nullish();
const texts = z.array(z.string()).nullish();

const schema = z.looseObject({
  // Upstream's CRD says `disabled`, its plugin only knows `disable`: both are understood.
  mode: z.enum(['auto', 'underlay', 'overlay', 'disable', 'disabled']).nullish(),
  podDefaultCniNic: text,
  vethLinkAddress: text,
  vethMTU: z.number().int().min(1).max(65_535).nullish(),
  podMACPrefix: text,
  overlayPodCIDR: texts,
  serviceCIDR: texts,
  hijackCIDR: texts,
  policyRoutes: z.array(z.looseObject({ dst: z.string(), gw: z.string() })).nullish(),
  hostRuleTable: z.number().int().min(1).max(4_294_967_295).nullish(),
  podRPFilter: z.number().int().max(2).nullish(),
  tunePodRoutes: z.boolean().nullish(),
  podDefaultRouteNic: text,
  txQueueLen: z.number().int().min(0).nullish(),
});

/** Throws CniError 7 that names the key, its value and what it must be. */
export function parseCoordinatorConfig(config: PluginConfig, cluster?: ClusterCoordinatorConfig): CoordinatorConfig {
  const parsed = schema.safeParse(merged(config, cluster));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const key = (issue?.path ?? []).map(String).join('.');
    throw invalid(key, issue?.message ?? 'malformed', 'correct it in the SpiderMultusConfig or the SpiderCoordinator');
  }
  const raw = parsed.data;
  return {
    mode: raw.mode === 'disable' ? 'disabled' : (raw.mode ?? 'auto'),
    podDefaultCniNic: raw.podDefaultCniNic || 'eth0',
    vethLinkAddress: raw.vethLinkAddress ? address('vethLinkAddress', raw.vethLinkAddress) : undefined,
    vethMtu: raw.vethMTU ?? defaultVethMtu,
    podMacPrefix: raw.podMACPrefix ? macPrefix(raw.podMACPrefix) : undefined,
    hijackPrefixes: (['overlayPodCIDR', 'serviceCIDR', 'hijackCIDR'] as const).flatMap((key) =>
      (raw[key] ?? []).map((value) => prefix(key, value)),
    ),
    policyRoutes: (raw.policyRoutes ?? []).map(policyRoute),
    tunePodRoutes: raw.tunePodRoutes ?? true,
    podDefaultRouteNic: raw.podDefaultRouteNic || undefined,
    hostRuleTable: raw.hostRuleTable ?? defaultHostRuleTable,
    podRpFilter:
      raw.podRPFilter === undefined || raw.podRPFilter === null || raw.podRPFilter < 0 ? undefined : raw.podRPFilter,
    txQueueLength: raw.txQueueLen ?? 0,
  };
}

/** A key that is present in the plugin's object wins, key by key. */
function merged(config: PluginConfig, cluster: ClusterCoordinatorConfig | undefined): Record<string, unknown> {
  if (cluster === undefined) return config;
  const { podDefaultRouteNIC, ...others } = cluster;
  const own = Object.entries(config).filter(([, value]) => !isEmpty(value));
  return { ...others, podDefaultRouteNic: podDefaultRouteNIC, ...Object.fromEntries(own) };
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);
}

function policyRoute(raw: { dst: string; gw: string }, index: number): PolicyRoute {
  const dst = prefix(`policyRoutes[${index}].dst`, raw.dst);
  const gateway = address(`policyRoutes[${index}].gw`, raw.gw);
  if (dst.address.family !== gateway.family)
    throw invalid(
      `policyRoutes[${index}]`,
      'dst and gw must use the same IP family',
      'give a gateway of the same family',
    );
  return { dst, gateway };
}

function prefix(key: string, value: string): IpPrefix {
  const ip = parseIp(value);
  const parsed = ip === undefined ? parsePrefix(value) : ipToPrefix(ip);
  if (parsed !== undefined) return parsed;
  throw invalid(key, `${JSON.stringify(value)} is neither an IP address nor a CIDR`, 'write it like 10.96.0.0/12');
}

function address(key: string, value: string): IpAddress {
  const ip = parseIp(value);
  if (ip !== undefined) return ip;
  throw invalid(key, `${JSON.stringify(value)} is not an IP address`, 'write it like 169.254.100.1');
}

/** Two bytes in hexadecimal; the first is even, or the address would be a multicast one. */
function macPrefix(value: string): string {
  const match = /^([0-9a-fA-F][02468aceACE])[:-]([0-9a-fA-F]{2})$/.exec(value);
  if (match?.[1] !== undefined && match[2] !== undefined) return `${match[1]}:${match[2]}`.toLowerCase();
  throw invalid(
    'podMACPrefix',
    `${JSON.stringify(value)} is not a unicast MAC prefix`,
    "two bytes, the first one even, like '0a:1b'",
  );
}

function invalid(key: string, reason: string, remedy: string): CniError {
  return new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `invalid coordinator configuration: ${key}: ${reason}`,
    remedy,
  );
}
