/** Neighbour entries: ARP and neighbour discovery (include/uapi/linux/neighbour.h). */
import { formatIp, ipFromBytes, ipToBytes, type IpAddress } from '../../core/ip.ts';
import { MessageReader, MessageWriter, type NetlinkMessage } from './codec.ts';
import { addressFamily } from './constants.ts';
import { formatMac, parseMac } from './link.ts';

const NDA_DST = 1;
const NDA_LLADDR = 2;
const NUD_PERMANENT = 0x80;

export interface Neighbour {
  readonly ifindex: number;
  readonly address: IpAddress;
  readonly mac: string;
  readonly permanent: boolean;
}

/** A permanent entry: it never expires and is never probed. */
export interface NeighbourSpec {
  readonly ifindex: number;
  readonly address: IpAddress;
  readonly mac?: string;
}

export function encodeNeighbour(spec: NeighbourSpec): Uint8Array {
  const writer = neighbourHeader(addressFamily(spec.address.family), spec.ifindex, NUD_PERMANENT).attribute(
    NDA_DST,
    ipToBytes(spec.address),
  );
  if (spec.mac !== undefined) writer.attribute(NDA_LLADDR, parseMac(spec.mac));
  return writer.finish();
}

/** struct ndmsg. */
function neighbourHeader(family: number, ifindex: number, state: number): MessageWriter {
  return new MessageWriter().u8(family).u8(0).u16(0).i32(ifindex).u16(state).u8(0).u8(0);
}

export function encodeNeighbourDump(): Uint8Array {
  return neighbourHeader(0, 0, 0).finish();
}

export function decodeNeighbour(message: NetlinkMessage): Neighbour | undefined {
  const reader = new MessageReader(message.body);
  reader.skip(4);
  const ifindex = reader.i32();
  const state = reader.u16();
  reader.skip(2);
  const attributes = reader.attributes();
  const bytes = attributes.bytes(NDA_DST);
  if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 16)) return undefined;
  const mac = formatMac(attributes.bytes(NDA_LLADDR) ?? new Uint8Array());
  return { ifindex, address: ipFromBytes(bytes), mac, permanent: (state & NUD_PERMANENT) !== 0 };
}

export function describeNeighbour(spec: NeighbourSpec): string {
  return `${formatIp(spec.address)} on ifindex ${spec.ifindex}`;
}
