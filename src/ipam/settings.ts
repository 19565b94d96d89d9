import { parse } from 'yaml';
import { z } from 'zod';
import { SluiceError } from '../core/error.ts';
import { environmentSettings, type EnvironmentSettings } from './settings-environment.ts';

/**
 * The configuration of agent and controller: the ConfigMap `spiderpool-conf` (its key conf.yml, mounted as a file) and
 * environment variables, by the names that Spiderpool's charts write. Read once, at start. What each key does, and
 * which are not honoured: docs/reference/configuration.md; a test compares it with the tables here.
 */

const flag = (fallback: boolean) => z.boolean().default(fallback);

const confShape = {
  ipamUnixSocketPath: z.string().min(1).default('/var/run/spidernet/spiderpool.sock'),
  enableIPv4: flag(true),
  enableIPv6: flag(true),
  /** Pods of a StatefulSet keep their addresses. */
  enableStatefulSet: flag(true),
  enableKubevirtStaticIP: flag(true),
  enableSpiderSubnet: flag(true),
  enableAutoPoolForApplication: flag(true),
  enableIPConflictDetection: flag(false),
  enableGatewayDetection: flag(false),
  enableCleanOutdatedEndpoint: flag(false),
  /** Refuse to delete pools with addresses in use and subnets with pools, instead of letting them wait. */
  enableValidatingResourcesDeletedWebhook: flag(false),
  /** Sysctls of the node. Off unless the file says so, as upstream's chart does: they open the whole node. */
  tuneSysctlConfig: flag(false),
  /** So many more addresses than replicas has a pool whose application does not say how many. */
  clusterSubnetDefaultFlexibleIPNumber: z.number().int().min(0).max(65_536).default(1),
} as const;

/** Known, and without effect here. */
export const ignoredKeys = ['podResourceInject', 'iaasNetworkProvider', 'agent'] as const;
export const honouredKeys = Object.keys(confShape) as readonly (keyof typeof confShape)[];

export type ConfSettings = Readonly<z.infer<z.ZodObject<typeof confShape>>>;
export type Settings = ConfSettings & EnvironmentSettings;

export interface ReadSettings {
  readonly settings: Settings;
  /** About keys that have no effect; to be logged. */
  readonly warnings: readonly string[];
}

/** `conf`: the text of conf.yml; undefined when there is no such file, and everything has its default. */
export function readSettings(
  conf: string | undefined,
  environment: Readonly<Record<string, string | undefined>> = {},
): ReadSettings {
  const document = parseYaml(conf ?? '');
  const parsed = z.looseObject(confShape).safeParse(document);
  if (!parsed.success) throw invalidKey(parsed.error.issues[0]);
  const { data } = parsed;
  if (!data.enableIPv4 && !data.enableIPv6) {
    throw invalidConf('enableIPv4 and enableIPv6 are both false', 'set one of the two to true');
  }
  const settings = Object.fromEntries(honouredKeys.map((key) => [key, data[key]])) as ConfSettings;
  return {
    settings: { ...settings, ...environmentSettings(environment) },
    warnings: Object.entries(document).flatMap(([key, value]) => warningsAbout(key, value)),
  };
}

/** Families that are switched off. */
export function disabledFamilies(settings: Pick<ConfSettings, 'enableIPv4' | 'enableIPv6'>): (4 | 6)[] {
  return [...(settings.enableIPv4 ? [] : [4 as const]), ...(settings.enableIPv6 ? [] : [6 as const])];
}

function parseYaml(text: string): Record<string, unknown> {
  let document: unknown;
  try {
    document = parse(text) ?? {};
  } catch (cause) {
    throw invalidConf('it is not YAML', 'write one "key: value" on each line', cause);
  }
  if (typeof document === 'object' && document !== null && !Array.isArray(document))
    return document as Record<string, unknown>;
  throw invalidConf('it is not a mapping of keys to values', 'write one "key: value" on each line');
}

function warningsAbout(key: string, value: unknown): string[] {
  if ((honouredKeys as readonly string[]).includes(key)) return [];
  if (!(ignoredKeys as readonly string[]).includes(key)) return [`conf.yml: there is no key ${key}; it has no effect`];
  const isOff = value === false || value === null || (value as { enabled?: unknown }).enabled === false;
  return isOff ? [] : [`conf.yml: ${key} is not honoured by Sluice (docs/reference/configuration.md)`];
}

function invalidKey(issue: z.core.$ZodIssue | undefined): SluiceError {
  const key = issue?.path.join('.') ?? '';
  const kind = /^(enable|tune)/.test(key) ? 'true or false' : key.endsWith('Number') ? 'a number from 0' : 'a text';
  return invalidConf(`${key}: ${issue?.message ?? 'is malformed'}`, `give ${key} ${kind}, or leave it out`);
}

function invalidConf(what: string, remedy: string, cause?: unknown): SluiceError {
  return new SluiceError({ code: 'invalid_config', operation: 'read', object: 'conf.yml', what, remedy, cause });
}
