/**
 * Bandwidth limits, shaped on devices inside the pod's netns:
 *
 *   egress   a root qdisc on the interface
 *   ingress  clsact on the interface redirects everything that our program passed to an ifb, whose root qdisc shapes it;
 *            the ifb hands it back, marked to skip classification, so that to_endpoint sees each packet once
 *
 * The root is the first that the kernel has of: HTB (shaper-htb.ts) with fq_codel, HTB, TBF (shaper-tbf.ts) with fq_codel, TBF.
 * A limit counts link layer frames: at 100 Mbit/s and MTU 1500, TCP carries 100 × 1448/1514 = 95.6 Mbit/s of payload.
 */
import { SluiceError } from '../core/error.ts';
import { Errno, isErrno, Netns, RtNetlink, tcHandle, withNetns } from '../kernel/index.ts';
import type { QdiscStatistics } from '../kernel/netlink/qdisc.ts';
import type { Link } from '../kernel/netlink/link.ts';
import { ensureClsact, hasClsact, removeUnusedClsact } from './clsact-filters.ts';
import { hasHtb, installHtb, openHtb, readHtb } from './shaper-htb.ts';
import { MIN_RATE_BPS } from './shaper-sizes.ts';
import { hasTbf, installTbf, readTbf } from './shaper-tbf.ts';

export type Shaper = 'htb+fq_codel' | 'htb' | 'tbf+fq_codel' | 'tbf';

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

export const shapersBestFirst: readonly Shaper[] = ['htb+fq_codel', 'htb', 'tbf+fq_codel', 'tbf'];
/** After our program (priority 1). */
const redirectPriority = 0xc000;
const redirectHandle = 1;
const u32Handle = 0x8000_0800;
/** How long a limit that is removed waits for its queue to empty. */
const drainMs = 20;

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
  const current = readShaper(netlink, link);
  if (current?.rateBps === inWholeBytes(rateBps) && ladder.includes(current.mechanism)) return;
  const candidates = current === undefined || !ladder.includes(current.mechanism) ? ladder : [current.mechanism];
  let missing: unknown;
  for (const shaper of candidates) {
    try {
      install(netlink, link, rateBps, shaper);
      return;
    } catch (error) {
      // ENOENT: the kernel has no such qdisc or classifier, as a module or built in.
      if (!isErrno(error, Errno.ENOENT)) throw error;
      missing = error;
    }
  }
  throw new SluiceError({
    code: 'unsupported_kernel',
    operation: `limit ${direction} bandwidth of`,
    object: link.name,
    what: `the kernel has none of the qdiscs ${candidates.join(', ')}`,
    remedy: 'load the modules sch_htb, sch_tbf and cls_bpf',
    cause: missing,
  });
}

function install(netlink: RtNetlink, link: Link, rateBps: number, shaper: Shaper): void {
  const leaf = shaper.endsWith('fq_codel') ? 'fq_codel' : 'fifo';
  if (shaper === 'tbf' || shaper === 'tbf+fq_codel') return installTbf(netlink, link, rateBps, leaf);
  installHtb(netlink, link, rateBps, { leaf, replaces: hasTbf(netlink.qdiscs(link.ifindex)) });
}

function removeRoot(netlink: RtNetlink, link: Link): void {
  const qdiscs = netlink.qdiscs(link.ifindex);
  if (!hasHtb(qdiscs) && !hasTbf(qdiscs)) return;
  drain(netlink, link);
  netlink.deleteQdisc(link.ifindex, tcHandle.root);
}

/** A qdisc that is deleted drops what waits in it. */
function drain(netlink: RtNetlink, link: Link): void {
  const waits = (): boolean => {
    const qdiscs = netlink.qdiscs(link.ifindex);
    return hasHtb(qdiscs) && qdiscs.some(({ statistics }) => statistics.backlogPackets > 0);
  };
  if (!waits()) return;
  openHtb(netlink, link);
  for (let ms = 0; ms < drainMs && waits(); ms++) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
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
  if (removeRedirect(netlink, link)) removeUnusedClsact(netlink, link.ifindex);
  const ifb = netlink.linkByName(ifbName(link.ifindex));
  if (ifb === undefined) return;
  drain(netlink, ifb);
  netlink.deleteLink(ifb.ifindex);
}

function removeRedirect(netlink: RtNetlink, link: Link): boolean {
  if (!hasRedirect(netlink, link)) return false;
  netlink.deleteFilters(link.ifindex, tcHandle.clsactIngress, redirectPriority);
  return true;
}

function hasRedirect(netlink: RtNetlink, link: Link): boolean {
  if (!hasClsact(netlink, link.ifindex)) return false;
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
  const egress = readShaper(netlink, link);
  const ifb = netlink.linkByName(ifbName(link.ifindex));
  const redirected = ifb?.up === true && hasRedirect(netlink, link);
  const ingress = redirected ? readShaper(netlink, ifb) : undefined;
  return { egressBps: egress?.rateBps, ingressBps: ingress?.rateBps, egress, ingress };
}

function readShaper(netlink: RtNetlink, link: Link): LimitState | undefined {
  const qdiscs = netlink.qdiscs(link.ifindex);
  const htb = readHtb(netlink, link, qdiscs);
  const found = htb ?? readTbf(qdiscs);
  if (found === undefined) return undefined;
  const root = htb === undefined ? 'tbf' : 'htb';
  return {
    rateBps: found.rateBytes * 8,
    mechanism: found.leaf === 'fq_codel' ? `${root}+fq_codel` : root,
    statistics: found.root.statistics,
  };
}
