/**
 * The node's end of a veth pair to a pod: a filter there tells what the node itself sends from what it only forwards, by
 * skb->tc_index, which the pod's ingress program reads (bpf/policy.h, sent_by_node()). Kubernetes lets a node reach its own
 * pods always; a packet that is masqueraded on the way has the node's address too, and is somebody else's.
 *
 * The filter lives and dies with the interface. Without it the node itself is not believed either.
 */
import { BpfProgram, ProgramType } from '../kernel/bpf/program.ts';
import type { Link } from '../kernel/netlink/link.ts';
import { tcHandle } from '../kernel/netlink/qdisc.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { NODE_TC_INDEX } from './abi.ts';
import { ensureClsact, hasClsact, removeUnusedClsact } from './clsact-filters.ts';

/** Before everybody else's: a program that answers TC_ACT_OK ends the walk. */
const filterPriority = 1;
const filterHandle = 0x51ce;
const filterName = 'sluice_node';

/**
 * `skb->tc_index = skb->ingress_ifindex ? 0 : NODE_TC_INDEX; return TC_ACT_UNSPEC` ("next filter"). Only what came in from
 * somewhere has an ingress_ifindex. Opcodes: Documentation/bpf/standardization; offsets 36 and 44 of struct __sk_buff.
 */
const markOwn = Uint8Array.of(
  ...[0x61, 0x12, 36, 0, 0, 0, 0, 0], // r2 = ingress_ifindex
  ...[0xb7, 0x03, 0, 0, NODE_TC_INDEX & 0xff, NODE_TC_INDEX >> 8, 0, 0], // r3 = NODE_TC_INDEX
  ...[0x15, 0x02, 1, 0, 0, 0, 0, 0], // if r2 == 0 skip one
  ...[0xb7, 0x03, 0, 0, 0, 0, 0, 0], // r3 = 0
  ...[0x63, 0x31, 44, 0, 0, 0, 0, 0], // tc_index = r3
  ...[0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
  ...[0x95, 0x00, 0, 0, 0, 0, 0, 0],
);

/**
 * `elsewhere`: the interface is no veth, or its other end is not in the calling thread's network namespace. `ifindex`: of the pod's
 * end of a pair that is marked.
 */
export type NodeMarkState = { readonly ifindex: number } | 'unmarked' | 'elsewhere';

/** Idempotent. Answers the index of the pod's end; undefined when the other one is elsewhere. */
export function ensureNodeMark(podNetns: string, interfaceName: string): number | undefined {
  using node = RtNetlink.open();
  const end = nodeEnd(node, podNetns, interfaceName);
  if (end === undefined) return undefined;
  if (isMarked(node, end)) return end.parentIfindex;
  ensureClsact(node, end.ifindex);
  using program = BpfProgram.load({
    name: filterName,
    type: ProgramType.schedCls,
    instructions: markOwn,
    license: 'Apache-2.0',
  });
  node.replaceFilter({
    ifindex: end.ifindex,
    parent: tcHandle.clsactEgress,
    priority: filterPriority,
    handle: filterHandle,
    options: { kind: 'bpf', programFd: program.fd, name: filterName },
  });
  return end.parentIfindex;
}

/** Leaves nothing of it; succeeds when there is none. */
export function removeNodeMark(podNetns: string, interfaceName: string): void {
  using node = RtNetlink.open();
  const end = nodeEnd(node, podNetns, interfaceName);
  if (end === undefined || !isMarked(node, end)) return;
  const { ifindex } = end;
  node.deleteFilter({ ifindex, parent: tcHandle.clsactEgress, priority: filterPriority, handle: filterHandle });
  removeUnusedClsact(node, ifindex);
}

export function nodeMarkState(podNetns: string, interfaceName: string): NodeMarkState {
  using node = RtNetlink.open();
  const end = nodeEnd(node, podNetns, interfaceName);
  if (end === undefined) return 'elsewhere';
  return isMarked(node, end) ? { ifindex: end.parentIfindex } : 'unmarked';
}

/** A veth's IFLA_LINK is the index of its other end, in that one's namespace; each must name the other. */
function nodeEnd(node: RtNetlink, podNetns: string, interfaceName: string): NodeEnd | undefined {
  using pod = RtNetlink.open(podNetns);
  const inPod = pod.linkByName(interfaceName);
  if (inPod?.kind !== 'veth' || inPod.parentIfindex === undefined) return undefined;
  const end = node.linkByIndex(inPod.parentIfindex);
  if (end?.kind !== 'veth' || end.parentIfindex !== inPod.ifindex) return undefined;
  return { ...end, parentIfindex: inPod.ifindex };
}

/** Its parentIfindex is that of the pod's end. */
type NodeEnd = Link & { readonly parentIfindex: number };

function isMarked(node: RtNetlink, end: Link): boolean {
  if (!hasClsact(node, end.ifindex)) return false;
  return node
    .filters(end.ifindex, tcHandle.clsactEgress)
    .some(({ priority, handle }) => priority === filterPriority && handle === filterHandle);
}
