/**
 * Where the kernel has no tcx (before 6.6): cls_bpf filters on clsact. Whoever has CAP_NET_ADMIN in the pod can remove
 * them or put another before them; the kernel tells the agent, which puts them back.
 */
import { type BpfProgram, Errno, isErrno, type Netns, RtNetlink, tcHandle } from '../kernel/index.ts';
import type { Filter } from '../kernel/netlink/filter.ts';
import type { Direction } from './abi.ts';
import { programNames } from './programs.ts';
import type { HookState } from './tcx-links.ts';

/** Our place among the filters: first. The redirect of the shaper comes later. */
const filterPriority = 1;
const filterHandle = 1;
const clsactHandle = 0xffff_0000;

const clsactParent: Readonly<Record<Direction, number>> = {
  ingress: tcHandle.clsactIngress,
  egress: tcHandle.clsactEgress,
};

export function ensureFilter(netns: Netns, ifindex: number, direction: Direction, program: BpfProgram): void {
  using netlink = RtNetlink.open(netns);
  ensureClsact(netlink, ifindex);
  const wanted = program.info().id;
  const [first] = filtersInOrder(netlink, ifindex, direction);
  if (first?.programId !== wanted) {
    // One of our place, be it our earlier version or a stranger's, is replaced in one step.
    const handle = first?.priority === filterPriority && first.kind === 'bpf' ? first.handle : filterHandle;
    putFilter(netlink, ifindex, direction, program, handle);
  }
  for (const other of filtersInOrder(netlink, ifindex, direction).slice(1)) {
    if (other.programId === wanted) netlink.deleteFilter(other);
  }
}

/** `programId` is ours if it is among the filters, else that of whichever comes first. */
export function filterState(
  netlink: RtNetlink,
  ifindex: number,
  direction: Direction,
  expected: number | undefined,
): HookState {
  if (!hasClsact(netlink, ifindex)) return { programId: undefined, first: false };
  const filters = filtersInOrder(netlink, ifindex, direction);
  const ours = expected === undefined ? undefined : filters.find((filter) => filter.programId === expected);
  const shown = ours ?? filters.find((filter) => filter.priority === filterPriority && filter.programId !== undefined);
  return { programId: shown?.programId, first: shown === filters[0] };
}

/** Ids of the cls_bpf programs on a hook, in order. */
export function filterPrograms(netlink: RtNetlink, ifindex: number, direction: Direction): number[] {
  if (!hasClsact(netlink, ifindex)) return [];
  const ids = filtersInOrder(netlink, ifindex, direction).map((filter) => filter.programId);
  return ids.filter((id) => id !== undefined);
}

/** Takes these programs off both hooks. */
export function removeFilters(netlink: RtNetlink, ifindex: number, programIds: ReadonlySet<number>): void {
  if (!hasClsact(netlink, ifindex)) return;
  for (const direction of ['ingress', 'egress'] as const) {
    for (const filter of filtersInOrder(netlink, ifindex, direction)) {
      if (filter.programId !== undefined && programIds.has(filter.programId)) netlink.deleteFilter(filter);
    }
  }
}

/** Shaper and node mark need it too. */
export function ensureClsact(netlink: RtNetlink, ifindex: number): void {
  if (hasClsact(netlink, ifindex)) return;
  netlink.addQdisc({ ifindex, parent: tcHandle.ingress, handle: clsactHandle, options: { kind: 'clsact' } });
}

export function hasClsact(netlink: RtNetlink, ifindex: number): boolean {
  return netlink.qdiscs(ifindex).some((qdisc) => qdisc.kind === 'clsact');
}

/** When no filter is left on it. */
export function removeUnusedClsact(netlink: RtNetlink, ifindex: number): void {
  if (!hasClsact(netlink, ifindex)) return;
  const isUsed = Object.values(clsactParent).some((parent) => netlink.filters(ifindex, parent).length > 0);
  if (!isUsed) netlink.deleteQdisc(ifindex, tcHandle.ingress);
}

/** In the order in which they run: those of chain 0, where every packet begins. Handle 0 is the classifier itself. */
function filtersInOrder(netlink: RtNetlink, ifindex: number, direction: Direction): Filter[] {
  return netlink
    .filters(ifindex, clsactParent[direction])
    .filter((filter) => filter.handle !== 0 && filter.chain === 0);
}

function putFilter(
  netlink: RtNetlink,
  ifindex: number,
  direction: Direction,
  program: BpfProgram,
  handle: number,
): void {
  const put = (): void =>
    netlink.replaceFilter({
      ...{ ifindex, handle, parent: clsactParent[direction], priority: filterPriority },
      options: { kind: 'bpf', programFd: program.fd, name: programNames[direction] },
    });
  try {
    put();
  } catch (error) {
    if (!isErrno(error, Errno.EINVAL, Errno.ENOENT)) throw error;
    // Another kind or protocol took our place after ours was removed.
    const intruder = netlink
      .filters(ifindex, clsactParent[direction])
      .find((filter) => filter.chain === 0 && filter.priority === filterPriority);
    if (intruder === undefined) throw error;
    netlink.deleteFilters(ifindex, intruder.parent, filterPriority, intruder.protocolBe);
    put();
  }
}
