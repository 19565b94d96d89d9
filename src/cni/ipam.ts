import type { CniRequest, CniResult, PluginHandler } from '../api/cni.ts';
import { formatErrorChain, SluiceError, type ErrorCode } from '../core/error.ts';
import { addAddresses } from './ipam-add.ts';
import { checkAddresses } from './ipam-check.ts';
import type { IpamDeps } from './ipam-deps.ts';
import { collectGarbage } from './ipam-gc.ts';
import { releaseAddresses } from './ipam-release.ts';
import { IpamState } from './ipam-state.ts';
import { CniError } from './error.ts';

/**
 * The `spiderpool` IPAM plugin. All its state is in the pools' own records, so any agent, started at any time, gives
 * the same answers; what it remembers beside that only saves questions.
 */
export function createIpamPlugin(deps: IpamDeps, state = new IpamState(deps)): PluginHandler {
  return async (request, signal) => {
    try {
      return await handle(state, request, signal);
    } catch (error) {
      throw asCniError(request, error);
    }
  };
}

async function handle(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<CniResult | undefined> {
  switch (request.command) {
    case 'ADD':
      return addAddresses(state, request, signal);
    case 'DEL':
      await releaseAddresses(state, request, signal);
      return undefined;
    case 'CHECK':
      await checkAddresses(state, request, signal);
      return undefined;
    case 'STATUS':
      reportStatus(state);
      return undefined;
    case 'GC':
      await collectGarbage(state, request, signal);
      return undefined;
  }
}

function reportStatus({ deps }: IpamState): void {
  const reason = deps.notReady();
  if (reason !== undefined) throw new CniError(50, `spiderpool cannot allocate addresses: ${reason}`);
}

/** kubelet shows the message and not the details, so the message holds the whole chain with the remedy. */
function asCniError(request: CniRequest, error: unknown): CniError {
  if (error instanceof CniError) return error;
  const prefix = request.command === 'ADD' ? 'spiderpool IP allocation error' : `spiderpool ${request.command} error`;
  const remedy = error instanceof SluiceError ? (error.remedy ?? '') : '';
  return new CniError(codeOf(error), `${prefix}: ${formatErrorChain(error)}`, remedy, { cause: error });
}

const lasting: readonly ErrorCode[] = ['invalid_resource', 'invalid_argument', 'ipam_no_pool'];

/** 100: the objects are wrong, and stay so until somebody changes them. 11: it may work the next time. */
function codeOf(error: unknown): 100 | 11 | 999 {
  if (!(error instanceof SluiceError)) return 999;
  return lasting.includes(error.code) ? 100 : 11;
}
