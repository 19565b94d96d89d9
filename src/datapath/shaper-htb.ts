/**
 * A limit made of HTB, the best that was found (docs/decisions/0007-how-to-limit-bandwidth.md):
 *
 *   htb ─ limit (the rate) ─┬─ sparse  goes first, may always send half of the rate ─ bfifo
 *                           └─ bulk    the rest, or all of it ─ tbf, which only cuts ─ fq_codel, or a fifo
 *
 * A classifier (bpf/shaper.bpf.c) tells flows that send little from those that would fill the limit. A packet of 64 KiB of
 * segmentation offload puts the limit into debt; sparse has tokens of its own and passes all the same, so that packets need not
 * be cut for its sake, which costs a timer for each frame. Only at low rates they are cut, for the rate's own sake.
 */
import { Errno, isErrno, type RtNetlink, tcHandle, tcMakeHandle } from '../kernel/index.ts';
import type { Link } from '../kernel/netlink/link.ts';
import type { HtbClass, Qdisc } from '../kernel/netlink/qdisc.ts';
import { ensureClassifier, findClassifier } from './flow-classifier.ts';
import { type ShaperSizes, shaperSizes } from './shaper-sizes.ts';

export type HtbLeaf = 'fq_codel' | 'fifo';

const handles = {
  root: tcMakeHandle(0x520, 0),
  sparseQueue: tcMakeHandle(0x521, 0),
  cutter: tcMakeHandle(0x522, 0),
  bulkQueue: tcMakeHandle(0x523, 0),
} as const;
const classes = {
  limit: tcMakeHandle(0x520, 1),
  sparse: tcMakeHandle(0x520, 0x10),
  bulk: tcMakeHandle(0x520, 0x20),
} as const;
const bulkMinor = 0x20;
/** At 10^15 bytes per second no packet takes a nanosecond: TBF never holds one back, also none that is larger than its bucket. */
const cutterRateBytes = 1e15;

/**
 * Makes it, or changes it in place, where no packet is lost. `replaces`: something that limits has the root now; then packets are
 * dropped, rather than let through, in the instant in which there are no classes.
 */
export function installHtb(
  netlink: RtNetlink,
  link: Link,
  rateBps: number,
  options: { readonly leaf: HtbLeaf; readonly replaces: boolean },
): void {
  const sizes = shaperSizes(rateBps, link.mtu);
  const hadRoot = hasHtb(netlink.qdiscs(link.ifindex));
  try {
    if (!hadRoot) {
      netlink.replaceQdisc({
        ...{ ifindex: link.ifindex, parent: tcHandle.root, handle: handles.root },
        options: {
          ...{ kind: 'htb', defaultClass: bulkMinor },
          ...(options.replaces ? { directQueueLength: 0 } : {}),
        },
      });
    }
    setClasses(netlink, link.ifindex, sizes);
    setQueues(netlink, link.ifindex, sizes, options.leaf);
    ensureClassifier(netlink, link.ifindex, handles.root, {
      ...{ nsPerKilobyte: sizes.nsPerKilobyte, allowanceBytes: sizes.allowanceBytes },
      ...{ sparseClass: classes.sparse, bulkClass: classes.bulk },
    });
  } catch (error) {
    if (!hadRoot) removeHtb(netlink, link);
    throw error;
  }
}

/** The limit first: whatever the others are in between, it holds. */
function setClasses(netlink: RtNetlink, ifindex: number, sizes: ShaperSizes): void {
  const { rateBytes, burstBytes, frameBytes } = sizes;
  const limit = { ifindex, ceilBytes: rateBytes, ceilBurstBytes: burstBytes, quantumBytes: Math.max(frameBytes, 1000) };
  netlink.setHtbClass({ ...limit, parent: handles.root, handle: classes.limit, rateBytes, burstBytes });
  const half = { ...limit, parent: classes.limit, rateBytes: Math.ceil(rateBytes / 2), burstBytes: 2 * frameBytes };
  netlink.setHtbClass({ ...half, handle: classes.sparse, priority: 0 });
  netlink.setHtbClass({ ...half, handle: classes.bulk, priority: 1 });
}

function setQueues(netlink: RtNetlink, ifindex: number, sizes: ShaperSizes, leaf: HtbLeaf): void {
  const { sparseQueueBytes, bulkQueueBytes, cutBytes, codel } = sizes;
  const put = (parent: number, handle: number, options: Parameters<RtNetlink['replaceQdisc']>[0]['options']): void =>
    netlink.replaceQdisc({ ifindex, parent, handle, options });
  put(classes.sparse, handles.sparseQueue, { kind: 'bfifo', limit: sparseQueueBytes });
  const cutter = { rateBytes: cutterRateBytes, burstBytes: cutBytes, limitBytes: bulkQueueBytes };
  put(classes.bulk, handles.cutter, { kind: 'tbf', ...cutter });
  const below = tcMakeHandle(handles.cutter >>> 16, 1);
  if (leaf === 'fq_codel') put(below, handles.bulkQueue, { kind: 'fq_codel', ...codel });
}

/** Undefined when it is not there as a whole. */
export function readHtb(
  netlink: RtNetlink,
  link: Link,
  qdiscs: readonly Qdisc[],
): { root: Qdisc; rateBytes: number; leaf: HtbLeaf } | undefined {
  const root = qdiscs.find(({ handle, kind }) => handle === handles.root && kind === 'htb');
  if (root === undefined) return undefined;
  const found = new Map(netlink.htbClasses(link.ifindex).map((each): [number, HtbClass] => [each.handle, each]));
  const limit = found.get(classes.limit);
  const isWhole =
    found.has(classes.sparse) &&
    found.has(classes.bulk) &&
    [handles.sparseQueue, handles.cutter].every((handle) => qdiscs.some((qdisc) => qdisc.handle === handle)) &&
    findClassifier(netlink, link.ifindex, handles.root) !== undefined;
  if (limit === undefined || !isWhole) return undefined;
  const hasFlows = qdiscs.some(({ handle, kind }) => handle === handles.bulkQueue && kind === 'fq_codel');
  return { root, rateBytes: limit.rateBytes, leaf: hasFlows ? 'fq_codel' : 'fifo' };
}

export function hasHtb(qdiscs: readonly Qdisc[]): boolean {
  return qdiscs.some(({ handle, kind }) => handle === handles.root && kind === 'htb');
}

export function removeHtb(netlink: RtNetlink, link: Link): void {
  if (hasHtb(netlink.qdiscs(link.ifindex))) netlink.deleteQdisc(link.ifindex, tcHandle.root);
}

/** Lets what waits go at once, since a qdisc that is deleted drops it. */
export function openHtb(netlink: RtNetlink, link: Link): void {
  try {
    setClasses(netlink, link.ifindex, { ...shaperSizes(openRateBps, link.mtu) });
  } catch (error) {
    // Somebody took the root away.
    if (!isErrno(error, Errno.ENOENT, Errno.EINVAL, Errno.EOPNOTSUPP)) throw error;
  }
}

const openRateBps = 1e13;
