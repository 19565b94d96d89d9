import { z } from 'zod';
import type { KubeObject } from '../api/kubernetes.ts';
import { pods, type GroupVersionResource } from '../api/resources.ts';
import { spiderLabels } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { formatErrorChain } from '../core/error.ts';
import type { Logger } from '../core/log.ts';
import { labelValue } from '../ipam/application.ts';
import type { KubeClient } from '../kube/client.ts';
import { KubeError, unlessNotFound } from '../kube/error.ts';
import { isWatched } from './applications.ts';

/**
 * Whether the application of a pool, of which no pod is left, is still there, so that its pool stays: a CloneSet that is
 * scaled to nothing, or between two pods. Only for kinds that are not watched; the others are known.
 */
export async function unwatchedOwnerLives(
  client: Pick<KubeClient, 'get' | 'raw'>,
  pool: SpiderIPPool,
  log: Logger,
): Promise<boolean> {
  const labels = pool.metadata.labels ?? {};
  const apiVersion = (labels[spiderLabels.ownerGroupVersion] ?? '').replace('_', '/');
  const kind = labels[spiderLabels.ownerKind] ?? '';
  const name = labels[spiderLabels.ownerName] ?? '';
  if (isWatched({ apiVersion, kind }) || (apiVersion === 'v1' && kind === pods.kind) || isDigest(name)) return false;
  try {
    const gvr = await resourceOf(client, apiVersion, kind);
    if (gvr === undefined) return false;
    const at = gvr.namespaced ? { namespace: labels[spiderLabels.ownerNamespace], name } : { name };
    const owner = await unlessNotFound(client.get<KubeObject>(gvr, at));
    return owner !== undefined && !owner.metadata?.deletionTimestamp;
  } catch (error) {
    // Addresses that nobody uses are worth more than a pool that comes again with the next pod.
    if (!(error instanceof KubeError) || error.httpStatus !== 403) throw error;
    const fields = { pool: pool.metadata.name, kind, name, error: formatErrorChain(error) };
    log.warn(fields, 'the owner of a pool may not be read, and it has no pods: taken as gone');
    return false;
  }
}

/** APIResourceList; subresources have a slash in their name. */
const discoverySchema = z.looseObject({
  resources: z.array(z.looseObject({ name: z.string(), kind: z.string(), namespaced: z.boolean() })).default([]),
});

async function resourceOf(
  client: Pick<KubeClient, 'raw'>,
  apiVersion: string,
  kind: string,
): Promise<GroupVersionResource | undefined> {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  const path = group === '' ? `/api/${version}` : `/apis/${group}/${version}`;
  const served = discoverySchema.parse((await unlessNotFound(client.raw(path))) ?? {}).resources;
  const found = served.find((each) => each.kind === kind && !each.name.includes('/'));
  return found && { group, version, plural: found.name, kind, namespaced: found.namespaced };
}

/** A name too long for a label is not there to be read. */
function isDigest(name: string): boolean {
  return name.length >= labelValue('x'.repeat(64)).length && /-[0-9a-f]{10}$/.test(name);
}
