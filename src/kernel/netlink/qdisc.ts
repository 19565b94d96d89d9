/**
 * Queueing disciplines and HTB classes (include/uapi/linux/pkt_sched.h). Rates are bytes per second on this level,
 * as in the kernel; times in microseconds, sizes in bytes.
 */
import { type Attributes, MessageReader, MessageWriter, type NetlinkMessage } from './codec.ts';

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_STATS2 = 7;
const TCA_STATS_BASIC = 1;
const TCA_STATS_QUEUE = 3;
/** Only when the 32 bits of TCA_STATS_BASIC overflow (5.5). */
const TCA_STATS_PKT64 = 8;

export const tcHandle = {
  root: 0xffff_ffff,
  /** Parent of the ingress and clsact qdiscs. */
  ingress: 0xffff_fff1,
  clsact: 0xffff_0000,
  /** Filter parents on a clsact qdisc. */
  clsactIngress: 0xffff_fff2,
  clsactEgress: 0xffff_fff3,
} as const;

/** "1:10" as the kernel's number. */
export function tcMakeHandle(major: number, minor: number): number {
  return ((major << 16) | minor) >>> 0;
}

/** Byte counts are of the link layer frame: TBF and HTB need no size table then (qdisc_get_rtab). */
const TC_LINKLAYER_ETHERNET = 1;
/** A scheduler tick is 64 ns (PSCHED_SHIFT 6, include/net/pkt_sched.h). */
const nanosecondsPerTick = 64;

export type QdiscOptions =
  | { readonly kind: 'clsact' | 'ingress' }
  | { readonly kind: 'tbf'; readonly rateBytes: number; readonly burstBytes: number; readonly limitBytes: number }
  /** `directQueueLength`: packets without a class, while there is no default class; they are not limited. */
  | {
      readonly kind: 'htb';
      readonly defaultClass: number;
      readonly rateToQuantum?: number;
      readonly directQueueLength?: number;
    }
  | {
      readonly kind: 'fq_codel';
      readonly limitPackets?: number;
      readonly targetUs?: number;
      readonly intervalUs?: number;
      readonly quantumBytes?: number;
      readonly flows?: number;
      readonly memoryLimitBytes?: number;
      readonly ecn?: boolean;
    }
  | {
      readonly kind: 'cake';
      readonly rateBytes: number;
      readonly rttUs?: number;
      readonly splitGso?: boolean;
      readonly ingress?: boolean;
      readonly memoryLimitBytes?: number;
    }
  | { readonly kind: 'fq'; readonly limitPackets?: number; readonly horizonUs?: number }
  | { readonly kind: 'pfifo' | 'bfifo'; readonly limit: number };

export interface QdiscSpec {
  readonly ifindex: number;
  readonly parent: number;
  /** 0 lets the kernel choose. */
  readonly handle: number;
  readonly options: QdiscOptions;
}

export interface HtbClassSpec {
  readonly ifindex: number;
  readonly parent: number;
  readonly handle: number;
  readonly rateBytes: number;
  readonly ceilBytes: number;
  readonly burstBytes: number;
  readonly ceilBurstBytes: number;
  readonly quantumBytes: number;
  /** 0 (the default) goes first. */
  readonly priority?: number;
}

export interface Qdisc {
  readonly ifindex: number;
  readonly kind: string;
  readonly handle: number;
  readonly parent: number;
  /** For tbf. */
  readonly tbf: { readonly rateBytes: number; readonly limitBytes: number; readonly burstNs: number } | undefined;
  /** For cake. */
  readonly cakeRateBytes: number | undefined;
  readonly statistics: QdiscStatistics;
}

/** gnet_stats_basic and gnet_stats_queue: since the qdisc was made. */
export interface QdiscStatistics {
  readonly sentBytes: bigint;
  readonly sentPackets: bigint;
  readonly drops: number;
  /** How often a packet had to wait for its time; not every kind counts this. */
  readonly overlimits: number;
  readonly backlogBytes: number;
  readonly backlogPackets: number;
}

export interface HtbClass {
  readonly ifindex: number;
  readonly handle: number;
  readonly parent: number;
  readonly rateBytes: number;
  readonly ceilBytes: number;
}

/** struct tcmsg. */
export function tcHeader(ifindex: number, handle: number, parent: number, info: number): MessageWriter {
  return new MessageWriter().u8(0).u8(0).u16(0).i32(ifindex).u32(handle).u32(parent).u32(info);
}

export function encodeQdisc(spec: QdiscSpec): Uint8Array {
  const writer = tcHeader(spec.ifindex, spec.handle, spec.parent, 0).stringAttribute(TCA_KIND, spec.options.kind);
  const options = encodeOptions(spec.options);
  if (options !== undefined) writer.attribute(TCA_OPTIONS, options);
  return writer.finish();
}

function encodeOptions(options: QdiscOptions): Uint8Array | undefined {
  switch (options.kind) {
    case 'clsact':
    case 'ingress':
      return undefined;
    case 'tbf':
      return encodeTbf(options);
    case 'htb':
      return encodeHtb(options);
    case 'fq_codel':
      return encodeFqCodel(options);
    case 'cake':
      return encodeCake(options);
    case 'fq':
      return encodeFq(options);
    case 'pfifo':
    case 'bfifo':
      return new MessageWriter().u32(options.limit).finish();
  }
}

function encodeTbf(options: Extract<QdiscOptions, { kind: 'tbf' }>): Uint8Array {
  const parms = new MessageWriter();
  writeRate(parms, options.rateBytes);
  writeRate(parms, 0);
  parms.u32(options.limitBytes).u32(ticksFor(options.burstBytes, options.rateBytes)).u32(0);
  const writer = new MessageWriter().attribute(1, parms.finish());
  if (options.rateBytes >= 2 ** 32) writer.u64Attribute(4, BigInt(options.rateBytes));
  // TCA_TBF_BURST (3.14): the burst in bytes, exact where the tick count above is rounded.
  return writer.u32Attribute(6, options.burstBytes).finish();
}

/** struct tc_htb_glob, version 3. */
function encodeHtb(options: Extract<QdiscOptions, { kind: 'htb' }>): Uint8Array {
  const glob = new MessageWriter()
    .u32(3)
    .u32(options.rateToQuantum ?? 10)
    .u32(options.defaultClass)
    .u32(0)
    .u32(0);
  const writer = new MessageWriter().attribute(2, glob.finish());
  optional(writer, 5, options.directQueueLength);
  return writer.finish();
}

function encodeFqCodel(options: Extract<QdiscOptions, { kind: 'fq_codel' }>): Uint8Array {
  const writer = new MessageWriter();
  optional(writer, 1, options.targetUs);
  optional(writer, 2, options.limitPackets);
  optional(writer, 3, options.intervalUs);
  if (options.ecn !== undefined) writer.u32Attribute(4, options.ecn ? 1 : 0);
  optional(writer, 5, options.flows);
  optional(writer, 6, options.quantumBytes);
  optional(writer, 9, options.memoryLimitBytes);
  return writer.finish();
}

/** `raw`: the length counted is the frame's as it is, without overhead. */
function encodeCake(options: Extract<QdiscOptions, { kind: 'cake' }>): Uint8Array {
  const writer = new MessageWriter().u64Attribute(2, BigInt(options.rateBytes)).u32Attribute(12, 0);
  optional(writer, 7, options.rttUs);
  // The kernel does not derive the target from the interval: left alone it stays 5 ms whatever the RTT (tc: rtt / 20).
  if (options.rttUs !== undefined) writer.u32Attribute(8, Math.max(1, Math.floor(options.rttUs / 20)));
  optional(writer, 10, options.memoryLimitBytes);
  if (options.ingress !== undefined) writer.u32Attribute(15, options.ingress ? 1 : 0);
  if (options.splitGso !== undefined) writer.u32Attribute(17, options.splitGso ? 1 : 0);
  return writer.finish();
}

function encodeFq(options: Extract<QdiscOptions, { kind: 'fq' }>): Uint8Array {
  const writer = new MessageWriter();
  optional(writer, 1, options.limitPackets);
  optional(writer, 14, options.horizonUs);
  return writer.finish();
}

function optional(writer: MessageWriter, type: number, value: number | undefined): void {
  if (value !== undefined) writer.u32Attribute(type, value);
}

/** struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate. */
function writeRate(writer: MessageWriter, rateBytes: number): void {
  writer.u8(0).u8(TC_LINKLAYER_ETHERNET).u16(0).u16(0).u16(0).u32(Math.min(rateBytes, 0xffff_ffff));
}

/** How long `bytes` take at `rateBytes`, in scheduler ticks. */
function ticksFor(bytes: number, rateBytes: number): number {
  return Math.min(Math.ceil((bytes * 1e9) / rateBytes / nanosecondsPerTick), 0xffff_ffff);
}

export function encodeHtbClass(spec: HtbClassSpec): Uint8Array {
  const opt = new MessageWriter();
  writeRate(opt, spec.rateBytes);
  writeRate(opt, spec.ceilBytes);
  opt
    .u32(ticksFor(spec.burstBytes, spec.rateBytes))
    .u32(ticksFor(spec.ceilBurstBytes, spec.ceilBytes))
    .u32(spec.quantumBytes)
    .u32(0)
    .u32(spec.priority ?? 0);
  return tcHeader(spec.ifindex, spec.handle, spec.parent, 0)
    .stringAttribute(TCA_KIND, 'htb')
    .nested(TCA_OPTIONS, (options) => {
      options.attribute(1, opt.finish());
      if (spec.rateBytes >= 2 ** 32) options.u64Attribute(6, BigInt(spec.rateBytes));
      if (spec.ceilBytes >= 2 ** 32) options.u64Attribute(7, BigInt(spec.ceilBytes));
    })
    .finish();
}

export function decodeQdisc(message: NetlinkMessage): Qdisc {
  const { ifindex, handle, parent, attributes } = decodeTc(message);
  const kind = attributes.string(TCA_KIND) ?? '';
  const options = attributes.nested(TCA_OPTIONS);
  return {
    ifindex,
    kind,
    handle,
    parent,
    tbf: kind === 'tbf' ? decodeTbf(options) : undefined,
    cakeRateBytes: kind === 'cake' ? Number(options?.u64(2) ?? 0n) : undefined,
    statistics: decodeStats(attributes.nested(TCA_STATS2)),
  };
}

export function decodeTc(message: NetlinkMessage): {
  ifindex: number;
  handle: number;
  parent: number;
  info: number;
  attributes: Attributes;
} {
  const reader = new MessageReader(message.body);
  reader.skip(4);
  return {
    ifindex: reader.i32(),
    handle: reader.u32(),
    parent: reader.u32(),
    info: reader.u32(),
    attributes: reader.attributes(),
  };
}

function decodeTbf(options: Attributes | undefined): Qdisc['tbf'] {
  const parms = options?.bytes(1);
  if (parms === undefined) return undefined;
  const reader = new MessageReader(parms);
  reader.skip(8);
  const rate = reader.u32();
  reader.skip(12);
  const limitBytes = reader.u32();
  const burstNs = reader.u32() * nanosecondsPerTick;
  return { rateBytes: Number(options?.u64(4) ?? BigInt(rate)), limitBytes, burstNs };
}

/** gnet_stats_basic {u64 bytes, u32 packets} and gnet_stats_queue {qlen, backlog, drops, requeues, overlimits}. */
function decodeStats(stats: Attributes | undefined): QdiscStatistics {
  const basic = new MessageReader(stats?.bytes(TCA_STATS_BASIC) ?? new Uint8Array(12));
  const sentBytes = basic.u64();
  const sentPackets = stats?.u64(TCA_STATS_PKT64) ?? BigInt(basic.u32());
  const queue = new MessageReader(stats?.bytes(TCA_STATS_QUEUE) ?? new Uint8Array(20));
  const [backlogPackets, backlogBytes, drops] = [queue.u32(), queue.u32(), queue.u32()];
  queue.skip(4);
  return { sentBytes, sentPackets, drops, overlimits: queue.u32(), backlogBytes, backlogPackets };
}

export function decodeHtbClass(message: NetlinkMessage): HtbClass | undefined {
  const { ifindex, handle, parent, attributes } = decodeTc(message);
  const options = attributes.nested(TCA_OPTIONS);
  const parms = options?.bytes(1);
  if (attributes.string(TCA_KIND) !== 'htb' || parms === undefined) return undefined;
  const reader = new MessageReader(parms);
  reader.skip(8);
  const rate = reader.u32();
  reader.skip(8);
  const ceil = reader.u32();
  return {
    ifindex,
    handle,
    parent,
    rateBytes: Number(options?.u64(6) ?? BigInt(rate)),
    ceilBytes: Number(options?.u64(7) ?? BigInt(ceil)),
  };
}
