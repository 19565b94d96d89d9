/**
 * Answers leave the way their question came: what arrives through veth0 is answered through veth0.
 *
 * Without it a client that reaches the pod through the node (a NodePort that keeps the client's address, say) sends
 * its packets in by veth0, and the pod's default route sends the answers out by eth0, where a stateful hop or the
 * client's own check drops them. Upstream marks connections with iptables' CONNMARK. Here a four-instruction program on
 * veth0 marks the packets, and the kernel carries the mark over to the answers (docs/decisions/0003): no connection
 * tracking in the pod's namespace, no iptables, no child process.
 */
import { BpfProgram, ProgramType } from '../kernel/bpf/program.ts';
import { tcHandle } from '../kernel/netlink/qdisc.ts';
import type { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import type { Netns } from '../kernel/netns.ts';
import { writeSysctl } from '../kernel/sysctl.ts';
import { replyMark } from './coordinator-plan.ts';

/** After everything of the datapath, whose filters have low numbers: a packet that policy drops needs no mark. */
const filterPriority = 0xc000;
const filterName = 'sluice_reply';

/**
 * `skb->mark = replyMark; return TC_ACT_UNSPEC` ("next filter"). Opcodes: Documentation/bpf/standardization;
 * offset 8 is `mark` in struct __sk_buff, which a classifier may write.
 */
const markPacket = Uint8Array.of(
  ...[0xb7, 0x02, 0, 0, replyMark, 0, 0, 0],
  ...[0x63, 0x21, 8, 0, 0, 0, 0, 0],
  ...[0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
  ...[0x95, 0x00, 0, 0, 0, 0, 0, 0],
);

/** Idempotent. `ifindex` is veth0's; the filter lives and dies with that interface. */
export function ensureReplyPath(
  pod: RtNetlink,
  netns: Netns,
  veth: { readonly ifindex: number; readonly name: string },
): void {
  const { ifindex } = veth;
  if (!pod.qdiscs(ifindex).some((qdisc) => qdisc.kind === 'clsact'))
    pod.addQdisc({ ifindex, parent: tcHandle.ingress, handle: tcHandle.clsact, options: { kind: 'clsact' } });
  using program = BpfProgram.load({
    name: filterName,
    type: ProgramType.schedCls,
    instructions: markPacket,
    license: 'Apache-2.0',
  });
  pod.replaceFilter({
    ifindex,
    parent: tcHandle.clsactIngress,
    priority: filterPriority,
    handle: 1,
    options: { kind: 'bpf', programFd: program.fd, name: filterName },
  });
  for (const [key, value] of replySysctls(veth.name)) writeSysctl(netns, key, value);
}

export function hasReplyPath(pod: RtNetlink, ifindex: number): boolean {
  if (!pod.qdiscs(ifindex).some((qdisc) => qdisc.kind === 'clsact')) return false;
  return pod.filters(ifindex, tcHandle.clsactIngress).some(({ priority }) => priority === filterPriority);
}

/** Documentation/networking/ip-sysctl; all of them are per namespace. */
function replySysctls(interfaceName: string): [key: string, value: string][] {
  return [
    // A socket that accept() returns, and its SYN-ACK, take the mark of the SYN (TCP over both families, Linux 3.16).
    ['net.ipv4.tcp_fwmark_accept', '1'],
    // Answers that the kernel makes itself (echo replies, resets, unreachables) take the mark of what they answer.
    ['net.ipv4.fwmark_reflect', '1'],
    ['net.ipv6.fwmark_reflect', '1'],
    // Where the reverse path is checked, check it as the answer will be routed: with the mark.
    [`net.ipv4.conf.${interfaceName}.src_valid_mark`, '1'],
  ];
}
