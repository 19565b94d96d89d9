/**
 * Asks the link before an address is used: does somebody else have it, and does its gateway answer? IPv4 by ARP probes
 * (RFC 5227 §2.1.1: sender address 0.0.0.0, so that nobody's cache is poisoned), IPv6 by neighbour solicitations (RFC 4861, and
 * from the unspecified address as duplicate address detection does, RFC 4862 §5.4). Three probes, of which the last is listened
 * for as long as a busy host may take: upstream's single probe of 100 ms misses a slow answer.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { formatIp, ipToBytes, type IpAddress } from '../core/ip.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { formatMac, parseMac } from '../kernel/netlink/link.ts';
import { PacketCapture } from '../kernel/packet-capture.ts';
import { sendFrames } from '../kernel/packet-send.ts';
import { arpRequest, ETH_P_ARP, ETH_P_IPV6, neighbourSolicitation } from './link-frames.ts';

export interface ProbeTiming {
  readonly probes: number;
  /** Between two probes, and after the last one. */
  readonly intervalMs: number;
  readonly lastMs: number;
}

export const detectionTiming: ProbeTiming = { probes: 3, intervalMs: 150, lastMs: 300 };
const pollMs = 10;

export interface ProbePlace {
  readonly netns: string;
  /** The only interface that is asked and listened on. */
  readonly interfaceName: string;
}

/** The link address of another owner; undefined when nobody defends the address. */
export async function findOwner(
  place: ProbePlace,
  address: IpAddress,
  signal: AbortSignal,
  timing: ProbeTiming = detectionTiming,
): Promise<string | undefined> {
  const mac = prepare(place);
  const frame =
    address.family === 4 ? arpRequest(mac, undefined, address) : neighbourSolicitation(mac, undefined, address);
  return ask(place, frame, (received) => ownerIn(received, address, mac), signal, timing);
}

/** Its link address; undefined when it is silent. `source` is the pod's own address, of the same family. */
export async function findGateway(
  place: ProbePlace,
  source: IpAddress,
  gateway: IpAddress,
  signal: AbortSignal,
  timing: ProbeTiming = detectionTiming,
): Promise<string | undefined> {
  const mac = prepare(place);
  const frame = source.family === 4 ? arpRequest(mac, source, gateway) : neighbourSolicitation(mac, source, gateway);
  return ask(place, frame, (received) => answerIn(received, gateway, mac), signal, timing);
}

/** The interface must be up to be heard. */
function prepare({ netns, interfaceName }: ProbePlace): Uint8Array {
  using rt = RtNetlink.open(netns);
  const link = rt.mustLink(interfaceName);
  if (!link.up) rt.setLink(link.ifindex, { up: true });
  return parseMac(link.mac);
}

/**
 * Where answers arrive: on the interface, but for ipvlan, which hands a frame to the interface that has its target address. The
 * pod's has none yet, so the parent is listened on, in the namespace of the calling thread.
 */
function openCapture({ netns, interfaceName }: ProbePlace): PacketCapture {
  using rt = RtNetlink.open(netns);
  const link = rt.mustLink(interfaceName);
  if (link.kind !== 'ipvlan' || link.parentIfindex === undefined) return PacketCapture.open(netns, interfaceName);
  using host = RtNetlink.open();
  const parent = host.linkByIndex(link.parentIfindex);
  return parent === undefined
    ? PacketCapture.open(netns, interfaceName)
    : PacketCapture.open('/proc/thread-self/ns/net', parent.name);
}

async function ask(
  place: ProbePlace,
  frame: Uint8Array,
  find: (frame: Uint8Array) => string | undefined,
  signal: AbortSignal,
  timing: ProbeTiming,
): Promise<string | undefined> {
  using capture = openCapture(place);
  for (let probe = 1; probe <= timing.probes; probe++) {
    sendFrames(place.netns, place.interfaceName, [frame]);
    const endMs = Date.now() + (probe === timing.probes ? timing.lastMs : timing.intervalMs);
    // Looked at last, however late that is: an agent that was kept from running has the answer all the same.
    do {
      signal.throwIfAborted();
      await sleep(pollMs);
      for (const received of capture.drain()) {
        const found = find(received);
        if (found !== undefined) return found;
      }
    } while (Date.now() < endMs);
  }
  return undefined;
}

/** Who says that the address is his, or probes for it at the same moment. */
function ownerIn(frame: Uint8Array, address: IpAddress, own: Uint8Array): string | undefined {
  const arp = arpOf(frame);
  if (arp !== undefined) {
    if (address.family !== 4 || arp.senderMac === formatMac(own)) return undefined;
    const isProbe = arp.operation === 1 && arp.senderIp === '0.0.0.0' && arp.targetIp === formatIp(address);
    return arp.senderIp === formatIp(address) || isProbe ? arp.senderMac : undefined;
  }
  return answerIn(frame, address, own);
}

/** Of an ARP reply or a neighbour advertisement about the address. */
function answerIn(frame: Uint8Array, address: IpAddress, own: Uint8Array): string | undefined {
  const arp = arpOf(frame);
  if (arp !== undefined) {
    const isAnswer = arp.operation === 2 && arp.senderIp === formatIp(address) && arp.senderMac !== formatMac(own);
    return isAnswer ? arp.senderMac : undefined;
  }
  return advertiserOf(frame, address, own);
}

interface Arp {
  readonly operation: number;
  readonly senderMac: string;
  readonly senderIp: string;
  readonly targetIp: string;
}

function arpOf(frame: Uint8Array): Arp | undefined {
  const view = viewOf(frame);
  if (frame.length < 42 || view.getUint16(12) !== ETH_P_ARP) return undefined;
  return {
    operation: view.getUint16(20),
    senderMac: formatMac(frame.subarray(22, 28)),
    senderIp: frame.subarray(28, 32).join('.'),
    targetIp: frame.subarray(38, 42).join('.'),
  };
}

const neighbourAdvertisement = 136;
const targetLinkAddress = 2;

function advertiserOf(frame: Uint8Array, address: IpAddress, own: Uint8Array): string | undefined {
  if (address.family !== 6 || frame.length < 86 || viewOf(frame).getUint16(12) !== ETH_P_IPV6) return undefined;
  if (frame[20] !== 58 || frame[54] !== neighbourAdvertisement || frame[78] !== targetLinkAddress) return undefined;
  if (!ipToBytes(address).every((byte, index) => frame[62 + index] === byte)) return undefined;
  const mac = formatMac(frame.subarray(80, 86));
  return mac === formatMac(own) ? undefined : mac;
}

function viewOf(frame: Uint8Array): DataView {
  return new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
}
