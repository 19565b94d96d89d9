/** A limit made of TBF, over fq_codel where the kernel has it: for kernels without HTB or cls_bpf. Whatever waits delays all flows. */
import { type RtNetlink, tcHandle, tcMakeHandle } from '../kernel/index.ts';
import type { Link } from '../kernel/netlink/link.ts';
import type { Qdisc } from '../kernel/netlink/qdisc.ts';
import { shaperSizes } from './shaper-sizes.ts';

const handles = {
  root: tcMakeHandle(0x51c, 0),
  queue: tcMakeHandle(0x51d, 0),
  /** Takes the root's place for a moment, so that the interface is limited all the while. */
  spare: tcMakeHandle(0x51e, 0),
} as const;
/** Of segmentation offload, with its headers. */
const maxPacketBytes = 65_536 + 256;
/** Two packets of segmentation offload, which TBF does not cut here. */
const minQueueBytes = 2 * 65_536;

export function installTbf(netlink: RtNetlink, link: Link, rateBps: number, leaf: 'fq_codel' | 'fifo'): void {
  const { rateBytes, burstBytes, bulkQueueBytes, codel } = shaperSizes(rateBps, link.mtu);
  const options = { kind: 'tbf', rateBytes, burstBytes, limitBytes: Math.max(bulkQueueBytes, minQueueBytes) } as const;
  const root = { ifindex: link.ifindex, parent: tcHandle.root, handle: handles.root };
  const before = netlink.qdiscs(link.ifindex).find(({ handle }) => handle === handles.root)?.tbf;
  // A queued packet that the new bucket cannot hold would wait for ever, and everything behind it: measured, a flow stands
  // still from 100 to 20 Mbit/s. TBF cuts packets that are too large only when they come, so the queue is given up.
  if (before !== undefined && shrinksBelowPacket(before, burstBytes))
    netlink.replaceQdisc({ ...root, handle: handles.spare, options });
  netlink.replaceQdisc({ ...root, options });
  if (leaf === 'fifo') return;
  try {
    netlink.replaceQdisc({
      ...{ ifindex: link.ifindex, parent: tcMakeHandle(0x51c, 1), handle: handles.queue },
      options: { kind: 'fq_codel', ...codel },
    });
  } catch (error) {
    if (before === undefined) netlink.deleteQdisc(link.ifindex, tcHandle.root);
    throw error;
  }
}

function shrinksBelowPacket(before: NonNullable<Qdisc['tbf']>, burstBytes: number): boolean {
  const burstBefore = (before.burstNs * before.rateBytes) / 1e9;
  return burstBytes < maxPacketBytes && burstBytes < Math.floor(burstBefore);
}

export function readTbf(
  qdiscs: readonly Qdisc[],
): { root: Qdisc; rateBytes: number; leaf: 'fq_codel' | 'fifo' } | undefined {
  const root = qdiscs.find(({ handle }) => handle === handles.root);
  if (root?.tbf === undefined) return undefined;
  const hasFlows = qdiscs.some(({ handle, kind }) => handle === handles.queue && kind === 'fq_codel');
  return { root, rateBytes: root.tbf.rateBytes, leaf: hasFlows ? 'fq_codel' : 'fifo' };
}

/** Ours, also one that an earlier version made of cake. */
export function hasTbf(qdiscs: readonly Qdisc[]): boolean {
  return qdiscs.some(({ handle }) => handle === handles.root || handle === handles.spare);
}
