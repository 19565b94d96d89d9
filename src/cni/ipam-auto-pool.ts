import { spiderAnnotations } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { SluiceError } from '../core/error.ts';
import { decodeAllocatedIps } from '../ipam/allocated-ips.ts';
import { autoPoolOf, type AutoPoolSlot } from '../ipam/auto-pool.ts';
import { parseAutoPoolRequest } from '../ipam/auto-pool-request.ts';
import type { PodOwner } from '../ipam/pod-owner.ts';
import type { IpamPod } from '../ipam/pod.ts';
import { totalAddressCount } from '../ipam/pool-addresses.ts';
import type { Selection } from '../ipam/pool-selection.ts';
import type { IpamState } from './ipam-state.ts';

/**
 * The pools that the controller makes for the pod's application, because the pod names a SpiderSubnet. They may be a
 * moment away, or a moment too small while the application grows; the cache is looked at until they are there.
 */

const lookAgainMs = 50;
/** Spiderpool's 25 times 2 s. */
const defaultWaitMs = 50_000;

/** Undefined when the pod names no subnet for the interface. */
export async function autoPoolSelection(
  state: IpamState,
  pod: IpamPod,
  owner: PodOwner,
  interfaceName: string,
  signal: AbortSignal,
): Promise<Selection | undefined> {
  const request = parseAutoPoolRequest(pod.metadata?.annotations ?? {}, 1);
  if (request === undefined) return undefined;
  const podName = `Pod ${owner.namespace}/${pod.metadata?.name ?? ''}`;
  if (state.deps.autoPools === false) throw disabled(podName);
  const slots = request.slots.filter((slot) => slot.interface === interfaceName);
  const families = state.deps.families ?? [4, 6];
  const wanted = slots.filter(({ family }) => families.includes(family));
  if (wanted.length === 0) return undefined;
  const names = new Map<4 | 6, string[]>();
  for (const slot of wanted) {
    const pool = await waitForPool(state, owner, slot, pod.metadata?.uid ?? '', signal);
    names.set(slot.family, [pool.metadata.name ?? '']);
  }
  const [ipv4, ipv6] = [names.get(4), names.get(6)];
  return { source: 'subnet annotation', ...(ipv4 && { ipv4 }), ...(ipv6 && { ipv6 }), cleanGateway: false };
}

async function waitForPool(
  { deps, writer }: IpamState,
  owner: PodOwner,
  slot: AutoPoolSlot & { readonly subnet: string },
  podUid: string,
  signal: AbortSignal,
): Promise<SpiderIPPool> {
  const untilMs = deps.clock.monotonicMs() + (deps.autoPoolWaitMs ?? defaultWaitMs);
  for (let isFirstLook = true; ; isFirstLook = false) {
    const pool = autoPoolOf(writer.known(), owner, slot);
    if (pool !== undefined && hasRoom(pool, podUid)) return pool;
    if (isFirstLook) deps.observe?.autoPoolAwaited();
    if (deps.clock.monotonicMs() >= untilMs) {
      // A full pool says so itself, in the words for full pools.
      if (pool !== undefined) return pool;
      throw noPool(owner, slot);
    }
    await deps.clock.sleep(lookAgainMs, signal);
  }
}

function hasRoom({ metadata, spec, status }: SpiderIPPool, podUid: string): boolean {
  const records = decodeAllocatedIps(status?.allocatedIPs, metadata.name ?? '');
  return records.size < totalAddressCount(spec) || [...records.values()].some((record) => record.podUid === podUid);
}

function disabled(object: string): SluiceError {
  const { subnets, subnet } = spiderAnnotations;
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'select pools for',
    object,
    what: `it's invalid to use '${subnets}' or '${subnet}' annotation when Auto-Pool feature is disabled`,
    remedy: 'name pools instead, or set enableSpiderSubnet and enableAutoPoolForApplication',
  });
}

function noPool(owner: PodOwner, { subnet, interface: name, family }: AutoPoolSlot & { subnet: string }): SluiceError {
  return new SluiceError({
    code: 'ipam_no_pool',
    operation: 'select pools for',
    object: `${owner.kind} ${owner.namespace}/${owner.name}`,
    what: `no matching auto-created IPPool candidate of SpiderSubnet ${subnet} for IPv${family} of ${name}`,
    remedy: `see the events of SpiderSubnet ${subnet} and of the workload; is the controller running?`,
  });
}
