/**
 * A network configuration as the runtime reads it: a list of plugins, or one plugin that becomes a list of one
 * (CNI specification, "Section 1: Network configuration format"). Pure.
 */
import type { SelectedBandwidth } from '../../api/network-selection.ts';
import { SluiceError } from '../../core/error.ts';
import { parseQuantity } from '../../core/quantity.ts';

export interface PluginEntry {
  readonly type: string;
  readonly capabilities?: Readonly<Record<string, boolean>>;
  readonly [key: string]: unknown;
}

export interface NetworkList {
  readonly cniVersion: string;
  readonly name: string;
  readonly disableCheck: boolean;
  readonly plugins: readonly PluginEntry[];
}

/** What the `bandwidth` capability is filled with. */
export type BandwidthCapability = SelectedBandwidth;

/** What the runtime offers to plugins that declare the capability of that name. */
export interface RuntimeCapabilities {
  readonly bandwidth?: BandwidthCapability;
  readonly [capability: string]: unknown;
}

/** The specification's default for a configuration without cniVersion. */
const implicitVersion = '0.1.0';

/** Throws SluiceError 'invalid_config' naming `source` and the field. `defaultName` stands in for a missing name. */
export function parseNetworkList(text: string, source: string, defaultName: string): NetworkList {
  const config = parseObject(text, source);
  const rawPlugins = Array.isArray(config['plugins']) ? (config['plugins'] as unknown[]) : [config];
  if (rawPlugins.length === 0) throw invalidConfig(source, 'plugins is empty', 'name at least one plugin');
  return {
    cniVersion: textOr(config['cniVersion'], implicitVersion),
    name: textOr(config['name'], defaultName),
    disableCheck: config['disableCheck'] === true,
    plugins: rawPlugins.map((plugin, index) => parsePlugin(plugin, index, source)),
  };
}

function parseObject(text: string, source: string): Record<string, unknown> {
  if (text.trim() === '') {
    throw invalidConfig(source, 'the configuration is empty', 'write the CNI configuration into spec.config');
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw invalidConfig(source, 'the configuration is not JSON', 'correct spec.config', cause);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw invalidConfig(source, 'the configuration is not a JSON object', 'correct spec.config');
  }
  return parsed as Record<string, unknown>;
}

function parsePlugin(plugin: unknown, index: number, source: string): PluginEntry {
  const type = typeof plugin === 'object' && plugin !== null ? (plugin as { type?: unknown }).type : undefined;
  if (typeof type !== 'string' || type === '') {
    throw invalidConfig(source, `plugins[${index}].type is missing`, 'name the plugin executable in "type"');
  }
  if (type.includes('/')) {
    throw invalidConfig(source, `plugins[${index}].type is "${type}", a path`, 'name an executable inside CNI_PATH');
  }
  return plugin as PluginEntry;
}

/** The object for a plugin's stdin: its own entry, the list's name and version, and what the runtime adds. */
export function pluginInput(
  list: NetworkList,
  plugin: PluginEntry,
  added: { readonly prevResult?: unknown; readonly runtime?: RuntimeCapabilities },
): Record<string, unknown> {
  const runtimeConfig = Object.fromEntries(
    Object.entries(added.runtime ?? {}).filter(
      ([name, value]) => value !== undefined && plugin.capabilities?.[name] === true,
    ),
  );
  return {
    ...plugin,
    cniVersion: list.cniVersion,
    name: list.name,
    ...(Object.keys(runtimeConfig).length > 0 ? { runtimeConfig } : {}),
    ...(added.prevResult !== undefined ? { prevResult: added.prevResult } : {}),
  };
}

/** The `cni-args` of a network selection, where plugins look for them: `args.cni`, over what the configuration has there. */
export function withCniArgs(list: NetworkList, cniArgs: Readonly<Record<string, unknown>>): NetworkList {
  const plugins = list.plugins.map((plugin) => {
    const args = objectOr(plugin['args']);
    return { ...plugin, args: { ...args, cni: { ...objectOr(args['cni']), ...cniArgs } } };
  });
  return { ...list, plugins };
}

function objectOr(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** Whether DEL and CHECK get prevResult, and CHECK exists at all (CNI 0.4.0). */
export function versionHasCheck(cniVersion: string): boolean {
  const [major = 0, minor = 0] = cniVersion.split('.').map(Number);
  return major > 0 || minor >= 4;
}

export const ingressBandwidthAnnotation = 'kubernetes.io/ingress-bandwidth';
export const egressBandwidthAnnotation = 'kubernetes.io/egress-bandwidth';
/** containerd's go-cni asks for the largest burst that the plugins' 32-bit field holds. */
const unlimitedBurst = 0xffff_ffff;
/** kubelet's and containerd's bounds: 1k to 1P bit/s. */
const minRate = 1_000n;
const maxRate = 1_000_000_000_000_000n;

/** What containerd makes of the pod's bandwidth annotations; undefined without them. Throws for a malformed value. */
export function bandwidthCapability(annotations: Readonly<Record<string, string>>): BandwidthCapability | undefined {
  const ingress = bandwidthRate(annotations, ingressBandwidthAnnotation);
  const egress = bandwidthRate(annotations, egressBandwidthAnnotation);
  if (ingress === undefined && egress === undefined) return undefined;
  return {
    ...(ingress === undefined ? {} : { ingressRate: ingress, ingressBurst: unlimitedBurst }),
    ...(egress === undefined ? {} : { egressRate: egress, egressBurst: unlimitedBurst }),
  };
}

function bandwidthRate(annotations: Readonly<Record<string, string>>, key: string): number | undefined {
  const text = annotations[key];
  if (text === undefined) return undefined;
  const rate = parseQuantity(text);
  if (rate !== undefined && rate >= minRate && rate <= maxRate) return Number(rate);
  throw new SluiceError({
    code: 'invalid_resource',
    operation: 'read annotation',
    object: key,
    what: rate === undefined ? `"${text}" is not a quantity` : `${text} is not between 1k and 1P bit/s`,
    remedy: 'write a Kubernetes quantity in bit/s, as 100M',
  });
}

function textOr(value: unknown, fallback: string): string {
  return typeof value === 'string' && value !== '' ? value : fallback;
}

function invalidConfig(source: string, what: string, remedy: string, cause?: unknown): SluiceError {
  return new SluiceError({ code: 'invalid_config', operation: 'read network', object: source, what, remedy, cause });
}
