import { isRecordOf, type IpamState } from './ipam-state.ts';
import { releaseRecords } from './ipam-release.ts';

export interface PodRelease {
  readonly namespace: string;
  readonly name: string;
  /** Empty when the caller does not know it. */
  readonly uid: string;
  /** The addresses turned out to be somebody else's: only pods whose addresses do not stay give them back. */
  readonly isConflict: boolean;
}

export type PodReleaseOutcome = 'released' | 'static' | 'unknown pod';

/** Everything the pod has, on all interfaces. */
export async function releasePod(
  state: IpamState,
  { namespace, name, uid, isConflict }: PodRelease,
  signal: AbortSignal,
): Promise<PodReleaseOutcome> {
  const pod = await state.deps.pods.read(namespace, name, signal);
  const podUid = uid || pod?.metadata?.uid;
  if (podUid === undefined) return 'unknown pod';
  const ownership = pod && (await state.owners.of(pod, signal));
  if (isConflict && ownership?.staticKind !== undefined) return 'static';
  const endpointName = ownership?.recordName ?? name;
  const endpoint = await state.endpoints.read(namespace, endpointName, signal);
  for (const entry of endpoint?.status?.current.ips ?? [])
    await state.endpoints.forget(namespace, endpointName, podUid, entry.interface);
  const reference = { namespace, name, uid: podUid };
  await releaseRecords(state, (record) => isRecordOf(record, reference, record.interface), JSON.stringify(podUid));
  return 'released';
}
