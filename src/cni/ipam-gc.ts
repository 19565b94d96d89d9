import type { CniRequest } from '../api/cni.ts';
import { formatErrorChain } from '../core/error.ts';
import { decodeAllocatedIps, type AllocationRecord } from '../ipam/allocated-ips.ts';
import type { KnownAttachment } from './ipam-deps.ts';
import { releaseRecords } from './ipam-release.ts';
import { attachmentKey, type IpamState } from './ipam-state.ts';

/**
 * GC: this node's records whose attachment the runtime no longer has. The list names containers of one network,
 * records name pods of any; so a record goes only when it is known to be of that network and of a container not
 * listed, or when it is of no known attachment while every listed container is known.
 */
export async function collectGarbage(state: IpamState, request: CniRequest, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const valid = new Set(
    (request.config['cni.dev/valid-attachments'] ?? []).map(({ containerID, ifname }) => `${containerID}/${ifname}`),
  );
  const known = state.attachments();
  const listed = new Set([...known.values()].map(({ containerId, interface: name }) => `${containerId}/${name}`));
  const allListedKnown = [...valid].every((container) => listed.has(container));
  const localUids = new Set(state.deps.pods.ofThisNode().map((pod) => pod.metadata?.uid));

  const isStale = (record: AllocationRecord): boolean => {
    const attachment = known.get(attachmentKey(record.podUid, record.interface));
    if (attachment !== undefined) return attachment.network === request.config.name && !isListed(valid, attachment);
    return localUids.has(record.podUid) && allListedKnown;
  };
  const stale = staleRecords(state, isStale);
  if (stale.length === 0) return;
  await releaseRecords(state, isStale);
  for (const { podUid, interface: name } of stale) {
    const attachment = known.get(attachmentKey(podUid, name));
    if (attachment !== undefined) state.forget(podUid, name, attachment.containerId);
  }
}

function isListed(valid: ReadonlySet<string>, { containerId, interface: name }: KnownAttachment): boolean {
  return valid.has(`${containerId}/${name}`);
}

function staleRecords(state: IpamState, isStale: (record: AllocationRecord) => boolean): AllocationRecord[] {
  return state.writer.known().flatMap((pool) => {
    try {
      return [...decodeAllocatedIps(pool.status?.allocatedIPs, pool.metadata.name ?? '').values()].filter(isStale);
    } catch (error) {
      state.deps.log.warn({ error: formatErrorChain(error) }, 'pool left out of garbage collection');
      return [];
    }
  });
}
