import type { PluginHandler } from '../api/cni.ts';
import { SluiceError } from '../core/error.ts';
import { KeyedQueue } from './keyed-queue.ts';
import { agentLimits } from './limits.ts';

export type PodTurns = <T>(pod: string, task: (signal: AbortSignal) => Promise<T>) => Promise<T>;

/**
 * Calls for one pod come after one another. A client that lost patience with its ADD sends DEL while the agent still adds:
 * side by side DEL finds nothing, and ADD leaves an address that nobody returns.
 */
export function podTurns(): PodTurns {
  const queue = new KeyedQueue({ concurrency: agentLimits.cniConcurrency, waiting: agentLimits.cniQueue });
  return (pod, task) => {
    const signal = AbortSignal.timeout(agentLimits.cniOperationMs);
    const run = queue.run(pod, async () => {
      signal.throwIfAborted();
      return task(signal);
    });
    if (run !== undefined) return run;
    throw new SluiceError({
      code: 'limit_exceeded',
      operation: 'serve addresses for',
      object: `Pod ${pod}`,
      what: `more than ${agentLimits.cniQueue} calls wait`,
      remedy: 'the runtime tries again',
    });
  };
}

/** The plugin, whose ADD and DEL take the turns of the pod too: the other socket's callers have the same pods. */
export function takingTurns(plugin: PluginHandler, inTurn: PodTurns): PluginHandler {
  return async (request, signal) => {
    const { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name } = request.args;
    const changes = request.command === 'ADD' || request.command === 'DEL';
    if (!changes || namespace === undefined || name === undefined) return plugin(request, signal);
    return inTurn(`${namespace}/${name}`, async (turn) => {
      signal.throwIfAborted();
      return plugin(request, AbortSignal.any([signal, turn]));
    });
  };
}
