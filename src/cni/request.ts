import { z } from 'zod';
import {
  cniCommands,
  cniErrorCodes,
  type CniCommand,
  type CniRequest,
  type CniVersion,
  type PluginConfig,
} from '../api/cni.ts';
import { interfaceNamePattern } from '../core/interface-name.ts';
import { CniError } from './error.ts';
import { parseResult } from './result.ts';
import { negotiateVersion, requireCommand } from './version.ts';
import type { WireRequest } from './wire.ts';

/** Names of network and container: "Must start with an alphanumeric character" ("Parameters", "Configuration format"). */
const identifier = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

const attachment = z.looseObject({ containerID: z.string(), ifname: z.string() });
const rate = z.number().nonnegative().optional();
const configSchema = z.looseObject({
  name: z.string(),
  type: z.string().default(''),
  runtimeConfig: z
    .looseObject({
      bandwidth: z
        .looseObject({ ingressRate: rate, ingressBurst: rate, egressRate: rate, egressBurst: rate })
        .nullish()
        .transform((value) => value ?? undefined),
    })
    .nullish()
    .transform((value) => value ?? undefined),
  ipam: z.looseObject({ type: z.string().default('') }).optional(),
  'cni.dev/valid-attachments': z.array(attachment).nullish(),
  // The name before 1.1.0 was final; libcni sends both.
  'cni.dev/attachments': z.array(attachment).nullish(),
});

/** Checks environment and configuration as the specification asks; throws CniError 1, 4, 6 or 7 naming what is wrong. */
export function parseCniRequest(wire: WireRequest): CniRequest {
  const env = wire.environment;
  const command = parseCommand(env['CNI_COMMAND']);
  const ofContainer = command === 'ADD' || command === 'DEL' || command === 'CHECK';
  const containerId = ofContainer ? required(env, 'CNI_CONTAINERID', identifier) : '';
  const ifName = ofContainer ? required(env, 'CNI_IFNAME', interfaceNamePattern) : '';
  const netns = ofContainer && command !== 'DEL' ? required(env, 'CNI_NETNS', /./) : env['CNI_NETNS'];
  return {
    plugin: wire.plugin,
    command,
    containerId,
    ifName,
    ...(netns === undefined || netns === '' ? {} : { netns }),
    args: parseArgs(env['CNI_ARGS'] ?? ''),
    path: env['CNI_PATH'] ?? '',
    config: parseConfig(wire.stdin, command),
  };
}

/** The configuration's version as far as it can be told, for answering a request that could not be parsed. */
export function configVersionOf(stdin: string): string | undefined {
  try {
    const value: unknown = JSON.parse(stdin);
    if (typeof value !== 'object' || value === null || !('cniVersion' in value)) return undefined;
    return typeof value.cniVersion === 'string' ? value.cniVersion : undefined;
  } catch {
    return undefined;
  }
}

function parseConfig(stdin: string, command: CniCommand): PluginConfig {
  const raw = parseJson(stdin);
  const cniVersion = negotiateVersion(raw['cniVersion']);
  requireCommand(command, cniVersion);
  const parsed = configSchema.safeParse(raw);
  if (!parsed.success) throw invalidConfig(parsed.error);
  const {
    prevResult,
    'cni.dev/attachments': early,
    ...config
  } = parsed.data as typeof parsed.data & { prevResult?: unknown };
  if (!identifier.test(config.name)) {
    throw new CniError(
      cniErrorCodes.invalidNetworkConfig,
      `invalid name: ${JSON.stringify(config.name)} is not a network name`,
      'a network name starts with a letter or digit and goes on with letters, digits, "_", "." and "-"',
    );
  }
  const attachments = config['cni.dev/valid-attachments'] ?? early ?? undefined;
  const parsedPrevious = parsePrevResult(prevResult, command, cniVersion);
  return {
    ...config,
    cniVersion,
    ...(parsedPrevious === undefined ? {} : { prevResult: parsedPrevious }),
    'cni.dev/valid-attachments': attachments,
  };
}

/**
 * "DEL … prevResult MAY be missing"; a DEL must work with a previous result it cannot read ("Plugins should generally
 * complete a DEL action without error even if some resources are missing").
 */
function parsePrevResult(value: unknown, command: CniCommand, version: CniVersion): PluginConfig['prevResult'] {
  if (value === undefined || value === null) return undefined;
  try {
    return parseResult(value, version);
  } catch (error) {
    if (command === 'DEL') return undefined;
    throw error;
  }
}

function parseJson(stdin: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(stdin);
  } catch (error) {
    throw new CniError(
      cniErrorCodes.decodingFailure,
      `failed to decode the network configuration: ${error instanceof Error ? error.message : 'not JSON'}`,
      'stdin must be the plugin configuration as one JSON object',
      { cause: error },
    );
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new CniError(
    cniErrorCodes.decodingFailure,
    'failed to decode the network configuration: not a JSON object',
    'stdin must be the plugin configuration as one JSON object',
  );
}

function parseCommand(text: string | undefined): CniCommand {
  const command = cniCommands.find((known) => known === text);
  if (command !== undefined) return command;
  throw invalidEnvironment('CNI_COMMAND', text, `one of ${cniCommands.join(', ')}, VERSION`);
}

function required(env: Readonly<Record<string, string>>, name: string, pattern: RegExp): string {
  const value = env[name];
  if (value !== undefined && pattern.test(value)) return value;
  throw invalidEnvironment(name, value, 'a value as the CNI specification describes it under "Parameters"');
}

/** "Alphanumeric key-value pairs separated by semicolons"; a value may hold "=". */
function parseArgs(text: string): Record<string, string> {
  const args: Record<string, string> = {};
  for (const pair of text.split(';').filter((part) => part !== '')) {
    const equals = pair.indexOf('=');
    if (equals <= 0) throw invalidEnvironment('CNI_ARGS', text, 'KEY=value pairs separated by ";"');
    args[pair.slice(0, equals)] = pair.slice(equals + 1);
  }
  return args;
}

function invalidEnvironment(name: string, value: string | undefined, expected: string): CniError {
  const what = value === undefined || value === '' ? 'is missing' : `is ${JSON.stringify(value)}`;
  return new CniError(
    cniErrorCodes.invalidEnvironment,
    `invalid environment variable ${name}: it ${what}`,
    `the container runtime must set ${name} to ${expected}`,
  );
}

function invalidConfig(error: z.ZodError): CniError {
  const issue = error.issues[0];
  const key = (issue?.path ?? []).map(String).join('.');
  return new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `invalid network configuration: ${key}: ${issue?.message ?? 'malformed'}`,
    `correct the key ${key} in the NetworkAttachmentDefinition or the CNI configuration file`,
  );
}
