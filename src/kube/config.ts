/** The one place that loads @kubernetes/client-node. Only its kubeconfig and credential part is imported: the generated API would triple the memory. */

import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { SluiceError } from '../core/error.ts';

export { KubeConfig };

/**
 * A kubeconfig from a file; without a path, the pod's service account, or what $KUBECONFIG and ~/.kube/config say.
 * Throws `kube_config`.
 */
export function loadKubeConfig(source: {
  readonly path?: string | undefined;
  readonly context?: string | undefined;
}): KubeConfig {
  const config = new KubeConfig();
  const object = source.path ?? 'kubeconfig';
  try {
    if (source.path === undefined) config.loadFromDefault();
    else config.loadFromFile(source.path);
  } catch (cause) {
    throw configError(object, 'it cannot be read', cause);
  }
  if (source.context !== undefined) config.setCurrentContext(source.context);
  if (config.getCurrentCluster() === null) {
    throw configError(object, `its context "${config.getCurrentContext()}" names no cluster`);
  }
  return config;
}

function configError(object: string, what: string, cause?: unknown): SluiceError {
  const remedy = 'pass --kubeconfig FILE with a current-context that names a cluster';
  return new SluiceError({ code: 'kube_config', operation: 'load', object, what, remedy, cause });
}
