/** How large buckets, queues and allowances are for a rate. */

/** The least that Kubernetes accepts in a bandwidth annotation. */
export const MIN_RATE_BPS = 1000;
/**
 * The bucket holds this much time at the rate. A timer that fires later than that loses rate for good: on a machine with
 * eight runnable tasks per CPU, 5 ms gave 90 of 95 Mbit/s. It is also what a flow may send at once after a pause: 2 % of
 * the first second.
 */
export const BURST_MS = 20;
/** Without flow queues, a packet of bulk waits at most this long, or until the queue has its minimum. */
export const QUEUE_MS = 25;
/** A queue shorter than this many frames makes TCP lose more than it sends. */
export const MIN_QUEUE_FRAMES = 32;
/** What flows that send little may have waiting; only where they would fill the limit together. */
export const SPARSE_QUEUE_MS = 10;
/** Packets of segmentation offload that would take longer than this are cut into frames. */
export const MAX_PACKET_MS = 10;
/** What a flow may send before it counts as bulk, as time at the rate, within the bytes below. */
export const ALLOWANCE_MS = 2;
/** Ten segments, which TCP may send at once in the beginning (RFC 6928), are within it. */
export const MAX_ALLOWANCE_BYTES = 16_384;
/** A flow that sends less than this part of the rate never counts as bulk. */
export const SPARSE_PART = 16;

/** The most that segmentation offload makes, without the headers. */
const maxPacketBytes = 65_536;
/** No packet is larger, also with IPv6's jumbo segmentation offload (512 KiB). */
const cutsNothingBytes = 1 << 20;
const ethernetHeaderBytes = 14;
/** The kernel's fields of sizes have 32 bits. */
const maxBytes = 0xffff_ffff;
/** fq_codel's own: 5 ms and 100 ms. A packet that is being sent must not count as waiting too long. */
const codelTargetUs = 5_000;
const codelIntervalUs = 100_000;
/** Memory of a flood that waits in fq_codel, instead of 32 MiB for each direction of each pod. */
const minCodelMemoryBytes = 1 << 20;
const maxCodelMemoryBytes = 32 << 20;

export interface ShaperSizes {
  readonly rateBytes: number;
  readonly burstBytes: number;
  readonly frameBytes: number;
  /** Larger packets are cut into frames before they wait. */
  readonly cutBytes: number;
  readonly bulkQueueBytes: number;
  readonly sparseQueueBytes: number;
  readonly allowanceBytes: number;
  /** How fast an allowance comes back. */
  readonly nsPerKilobyte: bigint;
  readonly codel: { readonly targetUs: number; readonly intervalUs: number; readonly memoryLimitBytes: number };
}

/** Bursts are ours: runtimes pass 4 GiB there, which would leave the first seconds unlimited. */
export function shaperSizes(rateBps: number, mtu: number): ShaperSizes {
  const rateBytes = Math.ceil(rateBps / 8);
  const frameBytes = mtu + ethernetHeaderBytes;
  const bytesIn = (ms: number, leastBytes: number): number =>
    Math.min(Math.max(Math.ceil((rateBytes * ms) / 1000), leastBytes), maxBytes);
  const cuts = bytesIn(MAX_PACKET_MS, 0) < maxPacketBytes;
  // Two packets of segmentation offload: with room for one, each drop is a whole window (13 of 19 Mbit/s at 20 Mbit/s).
  const minQueueBytes = cuts ? MIN_QUEUE_FRAMES * frameBytes : 2 * maxPacketBytes;
  return {
    ...{ rateBytes, frameBytes, burstBytes: bytesIn(BURST_MS, 2 * frameBytes) },
    cutBytes: cuts ? 2 * frameBytes : cutsNothingBytes,
    bulkQueueBytes: bytesIn(QUEUE_MS, minQueueBytes),
    sparseQueueBytes: bytesIn(SPARSE_QUEUE_MS, maxPacketBytes),
    allowanceBytes: Math.min(bytesIn(ALLOWANCE_MS, 2 * frameBytes), Math.max(MAX_ALLOWANCE_BYTES, 2 * frameBytes)),
    nsPerKilobyte: BigInt(Math.max(1, Math.round((1024e9 * SPARSE_PART) / rateBytes))),
    codel: codelSizes(rateBytes, frameBytes),
  };
}

function codelSizes(rateBytes: number, frameBytes: number): ShaperSizes['codel'] {
  const targetUs = Math.max(codelTargetUs, Math.ceil((1.5 * frameBytes * 1e6) / rateBytes));
  const memory = Math.ceil(rateBytes * 0.4);
  return {
    targetUs,
    intervalUs: codelIntervalUs + targetUs - codelTargetUs,
    memoryLimitBytes: Math.min(Math.max(memory, minCodelMemoryBytes), maxCodelMemoryBytes),
  };
}
