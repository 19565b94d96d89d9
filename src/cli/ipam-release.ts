/** `sluice ipam release`: one record out of its pool, unless somebody still has the address. */
import type { KubeObject, Pod } from '../api/kubernetes.ts';
import { pods, spiderIPPools } from '../api/resources.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { hasErrorCode, SluiceError } from '../core/error.ts';
import { decodeAllocatedIps, type AllocationRecord } from '../ipam/allocated-ips.ts';
import { releaseObjection } from '../ipam/address-info.ts';
import { PoolBook } from '../ipam/pool-book.ts';
import type { KubeClient } from '../kube/client.ts';
import { unlessNotFound } from '../kube/error.ts';
import { askNodes, readWritten, type IpamCluster } from './ipam-cluster.ts';
import { placesOf, placeText } from './ipam-views.ts';

export interface Released {
  readonly address: string;
  readonly pool: string;
  readonly pod: string;
  /** What --force overrode. */
  readonly objection?: string;
}

/** Agents write pools all the time; one of a few attempts is between two of their writes. */
const attempts = 20;

/** Throws not_found when no pool records the address, already_exists when somebody has it. */
export async function releaseAddress(cluster: IpamCluster, address: string, force: boolean): Promise<Released> {
  const { client } = cluster;
  const written = await readWritten(client);
  const found = findRecord(written.pools, address);
  if (found === undefined) throw notRecorded(address);
  const { pool, record } = found;
  const seen = await askNodes(cluster, written.nodes);
  const objection = releaseObjection(address, record, {
    pod: await readPod(client, record.pod),
    endpoints: written.endpoints,
    onInterfaces: placesOf(address, seen).map(placeText),
  });
  if (objection !== undefined && !force) throw refused(address, record, objection);
  await removeRecord(client, pool, address, record);
  return { address, pool, pod: record.pod, ...(objection !== undefined && { objection }) };
}

function findRecord(
  pools: readonly SpiderIPPool[],
  address: string,
): { readonly pool: string; readonly record: AllocationRecord } | undefined {
  for (const pool of pools) {
    const name = pool.metadata.name ?? '';
    const record = decodeAllocatedIps(pool.status?.allocatedIPs, name).get(address);
    if (record !== undefined) return { pool: name, record };
  }
  return undefined;
}

/** Only the record that was judged: an address that found a new owner meanwhile stays his. */
async function removeRecord(
  client: KubeClient,
  poolName: string,
  address: string,
  judged: AllocationRecord,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const pool = (await client.get(spiderIPPools, { name: poolName })) as SpiderIPPool;
    const book = new PoolBook(pool);
    const removed = book.release((record, text) => text === address && record.podUid === judged.podUid);
    if (removed.length === 0) return;
    const { allocatedIPs: _, ...rest } = pool.status ?? {};
    const next = { ...pool, status: { ...rest, ...book.status() } };
    try {
      await client.replaceStatus(spiderIPPools, next as KubeObject);
      return;
    } catch (error) {
      if (attempt === attempts || !hasErrorCode(error, 'kube_conflict')) throw error;
    }
  }
}

/** Asked again, and not taken from the list: what is decided here cannot be undone. */
function readPod(client: KubeClient, path: string): Promise<Pod | undefined> {
  const [namespace = '', name = ''] = path.split('/');
  return unlessNotFound(client.get<Pod>(pods, { namespace, name }));
}

function notRecorded(address: string): SluiceError {
  return new SluiceError({
    ...{ code: 'not_found', operation: 'release', object: address, what: 'no pool records it for anybody' },
    remedy: `sluice ipam show ${address} tells what it is`,
  });
}

function refused(address: string, { pod }: AllocationRecord, objection: string): SluiceError {
  const [namespace = '', name = ''] = pod.split('/');
  return new SluiceError({
    ...{ code: 'already_exists', operation: 'release', object: address, what: objection },
    remedy:
      `delete the pod (kubectl delete pod -n ${namespace} ${name}) and the address comes back by itself; ` +
      '--force gives it away all the same, and two pods may then have it',
  });
}
