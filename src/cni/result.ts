import { z } from 'zod';
import {
  cniErrorCodes,
  type CniDns,
  type CniInterface,
  type CniIp,
  type CniResult,
  type CniRoute,
  type CniVersion,
} from '../api/cni.ts';
import { CniError } from './error.ts';
import { isCniVersion, versionAtLeast } from './version.ts';

/** Keys that came with 1.1.0; an older result must not carry them ("Success", spec 1.1.0 change list). */
const interfaceKeysOf110 = ['mtu', 'socketPath', 'pciID'];
const routeKeysOf110 = ['mtu', 'advmss', 'priority', 'table', 'scope'];

const strings = z.array(z.string());
const resultSchema = z.looseObject({
  interfaces: z
    .array(z.looseObject({ name: z.string(), mac: z.string().optional(), sandbox: z.string().optional() }))
    .nullish(),
  ips: z
    .array(
      z.looseObject({
        address: z.string(),
        gateway: z.string().optional(),
        interface: z.number().int().nonnegative().optional(),
      }),
    )
    .nullish(),
  routes: z.array(z.looseObject({ dst: z.string(), gw: z.string().optional() })).nullish(),
  dns: z
    .looseObject({
      nameservers: strings.optional(),
      domain: z.string().optional(),
      search: strings.optional(),
      options: strings.optional(),
    })
    .nullish(),
});

/**
 * Reads a result of any supported version into the 1.1.0 shape. A result that names no version has the configuration's
 * ("prevResult … in the version of the network configuration"). Throws CniError 7 naming the key that is wrong.
 */
export function parseResult(value: unknown, configVersion: CniVersion): CniResult {
  const parsed = resultSchema.safeParse(value);
  if (!parsed.success) throw invalidResult(parsed.error);
  const raw = parsed.data as Record<string, unknown>;
  const ips = (raw['ips'] ?? []) as CniIp[];
  return {
    ...raw,
    cniVersion: isCniVersion(raw['cniVersion']) ? raw['cniVersion'] : configVersion,
    interfaces: (raw['interfaces'] ?? []) as CniInterface[],
    ips: ips.map((ip) => without(ip, ['version'])),
    routes: (raw['routes'] ?? []) as CniRoute[],
    dns: (raw['dns'] ?? {}) as CniDns,
  };
}

/** Writes a result in the shape of `version`, ready for JSON. Unknown keys are kept; empty lists are left out. */
export function formatResult(result: CniResult, version: CniVersion): Record<string, unknown> {
  const { cniVersion: _, interfaces, ips, routes, dns, ...unknown } = result;
  const before110 = !versionAtLeast(version, '1.1.0');
  const narrow = result.cniVersion === '1.1.0' && before110;
  return {
    cniVersion: version,
    ...nonEmpty('interfaces', narrow ? interfaces.map((i) => without(i, interfaceKeysOf110)) : interfaces),
    ...nonEmpty('ips', versionAtLeast(version, '1.0.0') ? ips : ips.map(withVersion)),
    ...nonEmpty('routes', narrow ? routes.map((r) => without(r, routeKeysOf110)) : routes),
    dns,
    ...unknown,
  };
}

/** Before 1.0.0 every address said its family. */
function withVersion(ip: CniIp): CniIp {
  return { version: ip.address.includes(':') ? '6' : '4', ...ip };
}

function nonEmpty(key: string, list: readonly unknown[]): Record<string, unknown> {
  return list.length > 0 ? { [key]: list } : {};
}

function without<T extends Record<string, unknown>>(object: T, keys: readonly string[]): T {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key))) as T;
}

function invalidResult(error: z.ZodError): CniError {
  const issue = error.issues[0];
  const path = ['prevResult', ...(issue?.path ?? [])].map(String).join('.');
  return new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `invalid ${path}: ${issue?.message ?? 'not a CNI result'}`,
    'the plugin before this one in the chain printed a result that does not follow the CNI specification',
  );
}
