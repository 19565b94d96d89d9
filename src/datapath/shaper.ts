/**
 * Bandwidth limits, shaped on devices inside the pod's netns:
 *
 *   egress   a root qdisc on the interface
 *   ingress  clsact on the interface redirects everything that our program passed to an ifb, whose root qdisc shapes it;
 *            the ifb hands it back, marked to skip classification, so that to_endpoint sees each packet once
 *
 * The qdisc is the first that the kernel has of: cake; TBF over fq_codel; TBF alone. Flow queues keep other flows
 * quick while one fills the limit. A limit counts link layer frames: at 100 Mbit/s and MTU 1500, TCP carries
 * 100 × 1448/1514 = 95.6 Mbit/s of payload.
 */
import { SluiceError } from '../core/error.ts';
import { Errno, isErrno, Netns, RtNetlink, tcHandle, tcMakeHandle, withNetns } from '../kernel/index.ts';
import type { Qdisc, QdiscStatistics } from '../kernel/netlink/qdisc.ts';
import type { Link } from '../kernel/netlink/link.ts';
import { ensureClsact } from './hooks.ts';

export type Shaper = 'cake' | 'tbf+fq_codel' | 'tbf';

export interface Bandwidth {
  /** Bits per second; undefined is unlimited. The kernel counts whole bytes: rounded up to a multiple of 8. */
  readonly egressBps?: number | undefined;
  readonly ingressBps?: number | undefined;
}

/** One direction's limit as it is in the kernel. */
export interface LimitState {
  readonly rateBps: number;
  readonly mechanism: Shaper;
  /** Counts frames as the limit does, since the limit was made: a change of its rate keeps them. */
  readonly statistics: QdiscStatistics;
}

/** What is in the kernel; an undefined direction is unlimited. */
export interface AppliedBandwidth extends Bandwidth {
  readonly egress: LimitState | undefined;
  readonly ingress: LimitState | undefined;
}

export interface BandwidthTarget extends Bandwidth {
  /** Path. */
  readonly netns: string;
  readonly interfaceName: string;
  /** Default: all that this module knows, best first. Those that the kernel lacks are passed over. */
  readonly ladder?: readonly Shaper[];
}

/** The least that Kubernetes accepts in a bandwidth annotation. */
export const MIN_RATE_BPS = 1000;
/**
 * The bucket holds this much time at the rate. A timer that fires later than that loses rate for good: on a machine with
 * eight runnable tasks per CPU, 5 ms gave 90 of 95 Mbit/s. It is also what a flow may send at once after a pause: 2 % of
 * the first second.
 */
export const BURST_MS = 20;
/** A waiting packet of plain TBF waits at most this long, or until the queue has its minimum. */
export const QUEUE_MS = 25;
/** A queue shorter than this many frames makes TCP lose more than it sends. */
export const MIN_QUEUE_FRAMES = 10;
/** Two packets of segmentation offload: with room for one, each drop is a whole window (13 of 19 Mbit/s at 20 Mbit/s). */
const minQueueBytes = 2 * 65_536;

export const shapersBestFirst: readonly Shaper[] = ['cake', 'tbf+fq_codel', 'tbf'];
/** After our program (priority 1). */
const redirectPriority = 0xc000;
const redirectHandle = 1;
const u32Handle = 0x8000_0800;
const rootHandle = tcMakeHandle(0x51c, 0);
const childHandle = tcMakeHandle(0x51d, 0);
/** Takes the root's place for a moment, so that the interface is limited all the while. */
const spareHandle = tcMakeHandle(0x51e, 0);
/** Of segmentation offload, with its headers. */
const maxPacketBytes = 65_536 + 256;
const ethernetHeaderBytes = 14;
/** Bucket and queue are 32-bit numbers. */
const maxBytes = 0xffff_ffff;

/** TBF's parameters. The burst is ours: runtimes pass 4 GiB there, which would leave the first seconds unlimited. */
export function tbfParameters(
  rateBps: number,
  mtu: number,
): { rateBytes: number; burstBytes: number; limitBytes: number } {
  const rateBytes = Math.ceil(rateBps / 8);
  const frameBytes = mtu + ethernetHeaderBytes;
  const burstBytes = Math.max(Math.ceil((rateBytes * BURST_MS) / 1000), 2 * frameBytes);
  const queueBytes = Math.max(Math.ceil((rateBytes * QUEUE_MS) / 1000), MIN_QUEUE_FRAMES * frameBytes, minQueueBytes);
  return {
    rateBytes,
    burstBytes: Math.min(burstBytes, maxBytes),
    limitBytes: Math.min(queueBytes + burstBytes, maxBytes),
  };
}

/** Makes the limits of the interface exactly these: adds, changes live, removes. Idempotent. */
export function applyBandwidth(target: BandwidthTarget): AppliedBandwidth {
  for (const rate of [target.egressBps, target.ingressBps]) checkRate(rate, target.interfaceName);
  using netns = Netns.openPath(target.netns);
  using netlink = RtNetlink.open(netns);
  const link = netlink.mustLink(target.interfaceName);
  const ladder = target.ladder ?? shapersBestFirst;
  if (target.egressBps === undefined) removeRoot(netlink, link);
  else shape(netlink, link, target.egressBps, ladder, 'egress');
  if (target.ingressBps === undefined) removeIngress(netlink, link);
  else shapeIngress(netns, netlink, link, target.ingressBps, ladder);
  return read(netlink, link);
}

/** The limits in the kernel, whoever set them. */
export function readBandwidth(target: { netns: string; interfaceName: string }): AppliedBandwidth {
  using netlink = RtNetlink.open(target.netns);
  return read(netlink, netlink.mustLink(target.interfaceName));
}

/** Unique in the netns, and within the 15 characters of an interface name. */
export function ifbName(ifindex: number): string {
  return `sluice-ifb${ifindex}`;
}

function inWholeBytes(rateBps: number): number {
  return Math.ceil(rateBps / 8) * 8;
}

function checkRate(rateBps: number | undefined, interfaceName: string): void {
  if (rateBps === undefined || (Number.isFinite(rateBps) && rateBps >= MIN_RATE_BPS)) return;
  throw new SluiceError({
    code: 'invalid_argument',
    operation: 'limit bandwidth of',
    object: interfaceName,
    what: `${rateBps} bit/s is less than the minimum, ${MIN_RATE_BPS} bit/s`,
  });
}

/** Tries the ladder from the top; a change of rate keeps what is there. */
function shape(
  netlink: RtNetlink,
  link: Link,
  rateBps: number,
  ladder: readonly Shaper[],
  direction: 'ingress' | 'egress',
): void {
  const current = readShaper(netlink.qdiscs(link.ifindex));
  if (current?.rateBps === inWholeBytes(rateBps) && ladder.includes(current.mechanism)) return;
  const candidates = current === undefined || !ladder.includes(current.mechanism) ? ladder : [current.mechanism];
  let missing: unknown;
  for (const shaper of candidates) {
    try {
      installRoot(netlink, link, rateBps, shaper, direction);
      return;
    } catch (error) {
      // ENOENT: the kernel has no such qdisc, as a module or built in.
      if (!isErrno(error, Errno.ENOENT)) throw error;
      missing = error;
    }
  }
  throw new SluiceError({
    code: 'unsupported_kernel',
    operation: `limit ${direction} bandwidth of`,
    object: link.name,
    what: `the kernel has none of the qdiscs ${candidates.join(', ')}`,
    remedy: 'load the module sch_tbf',
    cause: missing,
  });
}

function installRoot(
  netlink: RtNetlink,
  link: Link,
  rateBps: number,
  shaper: Shaper,
  direction: 'ingress' | 'egress',
): void {
  const root = { ifindex: link.ifindex, parent: tcHandle.root, handle: rootHandle };
  const tbf = tbfParameters(rateBps, link.mtu);
  if (shaper === 'cake') {
    netlink.replaceQdisc({
      ...root,
      options: { kind: 'cake', rateBytes: tbf.rateBytes, splitGso: true, ingress: false },
    });
    return;
  }
  const before = netlink.qdiscs(link.ifindex).find((qdisc) => qdisc.handle === rootHandle)?.tbf;
  const hadRoot = before !== undefined;
  const options = { kind: 'tbf', ...tbf } as const;
  // A queued packet that the new bucket cannot hold would wait for ever, and everything behind it: measured, a flow stands
  // still from 100 to 20 Mbit/s. TBF cuts packets that are too large only when they come, so the queue is given up.
  if (before !== undefined && shrinksBelowPacket(before, tbf.burstBytes))
    netlink.replaceQdisc({ ...root, handle: spareHandle, options });
  netlink.replaceQdisc({ ...root, options });
  if (shaper === 'tbf') return;
  try {
    netlink.replaceQdisc({
      ifindex: link.ifindex,
      parent: tcMakeHandle(0x51c, 1),
      handle: childHandle,
      options: { kind: 'fq_codel', ecn: direction === 'egress' },
    });
  } catch (error) {
    if (!hadRoot) netlink.deleteQdisc(link.ifindex, tcHandle.root);
    throw error;
  }
}

function shrinksBelowPacket(before: NonNullable<Qdisc['tbf']>, burstBytes: number): boolean {
  const burstBefore = (before.burstNs * before.rateBytes) / 1e9;
  return burstBytes < maxPacketBytes && burstBytes < Math.floor(burstBefore);
}

function removeRoot(netlink: RtNetlink, link: Link): void {
  if (netlink.qdiscs(link.ifindex).some((qdisc) => qdisc.handle === rootHandle)) {
    netlink.deleteQdisc(link.ifindex, tcHandle.root);
  }
}

/** The redirect is made last: nothing goes to an ifb that is not ready. */
function shapeIngress(netns: Netns, netlink: RtNetlink, link: Link, rateBps: number, ladder: readonly Shaper[]): void {
  const name = ifbName(link.ifindex);
  if (netlink.linkByName(name) === undefined) {
    // A redirect to an ifb that somebody deleted drops everything, whatever gets its name.
    removeRedirect(netlink, link);
    netlink.addLink({ kind: 'ifb', name, mtu: link.mtu });
  }
  const ifb = netlink.mustLink(name);
  if (ifb.mtu !== link.mtu) netlink.setLink(ifb.ifindex, { mtu: link.mtu });
  shape(netlink, { ...ifb, mtu: link.mtu }, rateBps, ladder, 'ingress');
  if (!ifb.up) withNetns(netns, () => netlink.setLink(ifb.ifindex, { up: true }));
  ensureClsact(netlink, link.ifindex);
  if (!hasRedirect(netlink, link)) addRedirect(netlink, link, ifb.ifindex);
}

function removeIngress(netlink: RtNetlink, link: Link): void {
  if (removeRedirect(netlink, link)) removeUnusedClsact(netlink, link);
  const ifb = netlink.linkByName(ifbName(link.ifindex));
  if (ifb !== undefined) netlink.deleteLink(ifb.ifindex);
}

function removeRedirect(netlink: RtNetlink, link: Link): boolean {
  if (!hasRedirect(netlink, link)) return false;
  netlink.deleteFilters(link.ifindex, tcHandle.clsactIngress, redirectPriority);
  return true;
}

/** Programs of tcx links do not need it; our filters, where there is no tcx, do. */
function removeUnusedClsact(netlink: RtNetlink, link: Link): void {
  const parents = [tcHandle.clsactIngress, tcHandle.clsactEgress];
  const isUsed = parents.some((parent) => netlink.filters(link.ifindex, parent).length > 0);
  if (!isUsed) netlink.deleteQdisc(link.ifindex, tcHandle.ingress);
}

function hasClsact(netlink: RtNetlink, link: Link): boolean {
  return netlink.qdiscs(link.ifindex).some((qdisc) => qdisc.kind === 'clsact');
}

function hasRedirect(netlink: RtNetlink, link: Link): boolean {
  if (!hasClsact(netlink, link)) return false;
  return netlink
    .filters(link.ifindex, tcHandle.clsactIngress)
    .some((filter) => filter.priority === redirectPriority && filter.handle !== 0);
}

/** matchall (kernel 4.8) says what is meant; u32 is everywhere. */
function addRedirect(netlink: RtNetlink, link: Link, ifbIfindex: number): void {
  const place = { ifindex: link.ifindex, parent: tcHandle.clsactIngress, priority: redirectPriority };
  try {
    netlink.addFilter({
      ...place,
      handle: redirectHandle,
      options: { kind: 'matchall', redirectToIfindex: ifbIfindex },
    });
  } catch (error) {
    if (!isErrno(error, Errno.ENOENT)) throw error;
    netlink.addFilter({ ...place, handle: u32Handle, options: { kind: 'u32', redirectToIfindex: ifbIfindex } });
  }
}

function read(netlink: RtNetlink, link: Link): AppliedBandwidth {
  const egress = readShaper(netlink.qdiscs(link.ifindex));
  const ifb = netlink.linkByName(ifbName(link.ifindex));
  const redirected = ifb?.up === true && hasRedirect(netlink, link);
  const ingress = redirected ? readShaper(netlink.qdiscs(ifb.ifindex)) : undefined;
  return { egressBps: egress?.rateBps, ingressBps: ingress?.rateBps, egress, ingress };
}

function readShaper(qdiscs: readonly Qdisc[]): LimitState | undefined {
  const root = qdiscs.find((qdisc) => qdisc.handle === rootHandle);
  if (root === undefined) return undefined;
  const { statistics } = root;
  if (root.cakeRateBytes !== undefined) return { rateBps: root.cakeRateBytes * 8, mechanism: 'cake', statistics };
  if (root.tbf === undefined) return undefined;
  const hasFlows = qdiscs.some((qdisc) => qdisc.kind === 'fq_codel' && qdisc.handle === childHandle);
  return { rateBps: root.tbf.rateBytes * 8, mechanism: hasFlows ? 'tbf+fq_codel' : 'tbf', statistics };
}
