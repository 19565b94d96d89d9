import { cniErrorCodes, type CniCommand, type CniErrorCode, type CniRequest, type PluginHandler } from '../api/cni.ts';
import { formatErrorChain, SluiceError, type ErrorCode } from '../core/error.ts';
import { CniError } from './error.ts';
import { configVersionOf, parseCniRequest } from './request.ts';
import { formatResult } from './result.ts';
import { versionAnswer } from './version.ts';
import type { WireAnswer, WireRequest } from './wire.ts';

/** Plugin name → its logic. */
export type PluginTable = Readonly<Record<string, PluginHandler>>;

/** What one call came to, for logs, metrics and events. */
export interface Invocation {
  readonly answer: WireAnswer;
  readonly request?: CniRequest;
  readonly error?: CniError;
}

/** Parses, runs the plugin, answers. Never rejects: every failure is an answer with the specification's error object. */
export async function invokePlugin(wire: WireRequest, plugins: PluginTable, signal: AbortSignal): Promise<Invocation> {
  const version = configVersionOf(wire.stdin);
  let request: CniRequest | undefined;
  try {
    if (wire.environment['CNI_COMMAND'] === 'VERSION') return { answer: success(versionAnswer(version)) };
    const handler = pluginOf(plugins, wire.plugin);
    request = parseCniRequest(wire);
    const result = await handler(request, signal);
    if (request.command !== 'ADD') return { request, answer: { exitStatus: 0, stdout: '' } };
    if (result === undefined) throw new CniError(cniErrorCodes.internal, `${wire.plugin} ADD made no result`);
    return { request, answer: success(formatResult(result, request.config.cniVersion)) };
  } catch (error) {
    const failure = toCniError(error, request?.command);
    return { request, error: failure, answer: errorAnswer(failure, version) };
  }
}

/** The specification's error object; cniVersion is the configuration's, or the newest we speak if that is unknown. */
export function errorAnswer(error: CniError, version: string | undefined): WireAnswer {
  const object = {
    cniVersion: version ?? '1.1.0',
    code: error.code,
    msg: error.message,
    ...(error.details === '' ? {} : { details: error.details }),
  };
  return { exitStatus: 1, stdout: JSON.stringify(object) };
}

/** Gives any failure a code: an unreachable API is worth trying again, a bad object is not. */
export function toCniError(error: unknown, command?: CniCommand): CniError {
  if (error instanceof CniError) return error;
  const message = formatErrorChain(error instanceof SluiceError ? withoutRemedy(error) : error);
  const details = error instanceof SluiceError ? (error.remedy ?? '') : '';
  return new CniError(codeOf(error), command === undefined ? message : `${command}: ${message}`, details, {
    cause: error,
  });
}

/** Where the specification or ours has a code that tells the runtime more than "internal". */
const codes: Partial<Record<ErrorCode, CniErrorCode>> = {
  kube_unreachable: cniErrorCodes.tryAgainLater,
  kube_conflict: cniErrorCodes.tryAgainLater,
  kube_expired: cniErrorCodes.tryAgainLater,
  kube_throttled: cniErrorCodes.tryAgainLater,
  kube_server_error: cniErrorCodes.tryAgainLater,
  ipam_address_in_use: cniErrorCodes.tryAgainLater,
  ipam_conflict: cniErrorCodes.tryAgainLater,
  agent_unavailable: cniErrorCodes.tryAgainLater,
  timeout: cniErrorCodes.tryAgainLater,
  cancelled: cniErrorCodes.tryAgainLater,
  invalid_resource: cniErrorCodes.invalidPod,
  ipam_exhausted: cniErrorCodes.invalidPod,
  ipam_no_pool: cniErrorCodes.invalidPod,
  invalid_config: cniErrorCodes.invalidNetworkConfig,
  syscall_failed: cniErrorCodes.kernel,
  unsupported_kernel: cniErrorCodes.kernel,
  permission_denied: cniErrorCodes.kernel,
  verifier_rejected: cniErrorCodes.kernel,
  netlink_failed: cniErrorCodes.kernel,
  datapath_incomplete: cniErrorCodes.kernel,
};

function codeOf(error: unknown): CniErrorCode {
  const code = error instanceof SluiceError ? codes[error.code] : undefined;
  return code ?? cniErrorCodes.internal;
}

/** The remedy goes to `details`; the message must not say it twice. */
function withoutRemedy(error: SluiceError): SluiceError {
  const { code, operation, object, cause } = error;
  return new SluiceError({
    code,
    operation,
    object,
    what: error.message.slice(operation.length + object.length + 3),
    cause,
  });
}

function pluginOf(plugins: PluginTable, name: string): PluginHandler {
  const handler = Object.hasOwn(plugins, name) ? plugins[name] : undefined;
  if (handler !== undefined) return handler;
  throw new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `unknown plugin ${JSON.stringify(name)}`,
    `the agent serves ${Object.keys(plugins).join(', ')}; install the CNI executables under these names`,
  );
}

function success(object: unknown): WireAnswer {
  return { exitStatus: 0, stdout: JSON.stringify(object) };
}
