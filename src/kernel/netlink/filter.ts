/** Traffic classifiers and the one action we use (include/uapi/linux/pkt_cls.h, tc_act/tc_mirred.h). */
import { MessageWriter, type NetlinkMessage } from './codec.ts';
import { decodeTc, tcHeader } from './qdisc.ts';

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_CHAIN = 11;
const ETH_P_ALL = 0x0003;
const TCA_BPF = { fd: 6, name: 7, flags: 8, id: 11 } as const;
const TCA_BPF_FLAG_ACT_DIRECT = 1;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
const TC_U32_TERMINAL = 1;

export type FilterOptions =
  /** cls_bpf in direct-action mode, where the program's return value is the verdict; `classify`: it is the class. */
  | { readonly kind: 'bpf'; readonly programFd: number; readonly name: string; readonly classify?: boolean }
  /** Every packet goes to the egress of another link; `u32` where the kernel has no matchall. */
  | { readonly kind: 'u32' | 'matchall'; readonly redirectToIfindex: number };

export interface FilterSpec {
  readonly ifindex: number;
  readonly parent: number;
  /** 1 … 65535; lower runs first. */
  readonly priority: number;
  readonly handle: number;
  readonly options: FilterOptions;
}

export interface Filter {
  readonly ifindex: number;
  readonly parent: number;
  readonly handle: number;
  readonly priority: number;
  /** An Ethernet type in network byte order. */
  readonly protocolBe: number;
  readonly kind: string;
  /** Packets begin in chain 0. */
  readonly chain: number;
  /** For cls_bpf: the kernel's program id. */
  readonly programId: number | undefined;
}

const allProtocolsBe = ETH_P_ALL << 8;

function filterInfo(priority: number, protocolBe = allProtocolsBe): number {
  // info is priority << 16 | protocol in network byte order.
  return ((priority << 16) | protocolBe) >>> 0;
}

export function encodeFilter(spec: FilterSpec): Uint8Array {
  return tcHeader(spec.ifindex, spec.handle, spec.parent, filterInfo(spec.priority))
    .stringAttribute(TCA_KIND, spec.options.kind)
    .nested(TCA_OPTIONS, (options) => {
      writeOptions(options, spec.options);
    })
    .finish();
}

function writeOptions(writer: MessageWriter, options: FilterOptions): void {
  switch (options.kind) {
    case 'bpf':
      writer
        .u32Attribute(TCA_BPF.fd, options.programFd)
        .stringAttribute(TCA_BPF.name, options.name)
        .u32Attribute(TCA_BPF.flags, options.classify === true ? 0 : TCA_BPF_FLAG_ACT_DIRECT);
      return;
    case 'matchall':
      writer.attribute(2, mirredAction(options.redirectToIfindex));
      return;
    case 'u32':
      writer.attribute(5, matchEverything()).attribute(7, mirredAction(options.redirectToIfindex));
      return;
  }
}

/** struct tc_u32_sel with one key whose mask is 0. */
function matchEverything(): Uint8Array {
  return new MessageWriter()
    .u8(TC_U32_TERMINAL)
    .u8(0)
    .u8(1)
    .u8(0)
    .u16(0)
    .u16(0)
    .u16(0)
    .u16(0)
    .u32(0)
    .bytes(new Uint8Array(16))
    .finish();
}

/** Action number 1: mirred, egress redirect; the packet is ours no more (stolen). */
function mirredAction(ifindex: number): Uint8Array {
  const parms = new MessageWriter().u32(0).u32(0).i32(TC_ACT_STOLEN).i32(0).i32(0).i32(TCA_EGRESS_REDIR).u32(ifindex);
  return new MessageWriter()
    .nested(1, (action) => {
      action.stringAttribute(1, 'mirred').nested(2, (options) => {
        options.attribute(2, parms.finish());
      });
    })
    .finish();
}

/** All filters of one parent; for deletion `priority` picks one. */
export function encodeFilterQuery(
  ifindex: number,
  parent: number,
  priority: number,
  handle = 0,
  protocolBe?: number,
): Uint8Array {
  return tcHeader(ifindex, handle, parent, priority === 0 ? 0 : filterInfo(priority, protocolBe)).finish();
}

export function decodeFilter(message: NetlinkMessage): Filter {
  const { ifindex, handle, parent, info, attributes } = decodeTc(message);
  const kind = attributes.string(TCA_KIND) ?? '';
  return {
    ifindex,
    parent,
    handle,
    priority: info >>> 16,
    protocolBe: info & 0xffff,
    kind,
    chain: attributes.u32(TCA_CHAIN) ?? 0,
    programId: kind === 'bpf' ? attributes.nested(TCA_OPTIONS)?.u32(TCA_BPF.id) : undefined,
  };
}
