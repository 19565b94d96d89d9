/**
 * The `coordinator` plugin's configuration object: the keys and defaults of Spiderpool's chain plugin
 * (https://spidernet-io.github.io/spiderpool, "coordinator"). Lists: empty is the same as absent.
 */
import { z } from 'zod';
import { cniErrorCodes, type PluginConfig } from '../api/cni.ts';
import { ipToPrefix, parseIp, parsePrefix, type IpAddress, type IpPrefix } from '../core/ip.ts';
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
  txQueueLen: z.number().int().min(0).nullish(),
});

/** Throws CniError 7 that names the key, its value and what it must be. */
export function parseCoordinatorConfig(config: PluginConfig): CoordinatorConfig {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const key = (issue?.path ?? []).map(String).join('.');
    throw invalid(key, issue?.message ?? 'malformed', 'correct it in the SpiderMultusConfig');
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
    hostRuleTable: raw.hostRuleTable ?? defaultHostRuleTable,
    podRpFilter:
      raw.podRPFilter === undefined || raw.podRPFilter === null || raw.podRPFilter < 0 ? undefined : raw.podRPFilter,
    txQueueLength: raw.txQueueLen ?? 0,
  };
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
