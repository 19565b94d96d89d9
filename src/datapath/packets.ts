/** Frames for tests: just enough of each protocol for the programs to judge. Checksums stay 0: nobody checks them. */
import { ipToBytes, parseIp } from '../core/ip.ts';

export const tcpFlag = { fin: 1, syn: 2, rst: 4, ack: 16 } as const;

const etherType = { 4: 0x0800, 6: 0x86dd } as const;

export interface IpOptions {
  /** IPv4: offset in bytes, more fragments, identification. IPv6: makes a fragment header. */
  readonly fragment?: { readonly offset: number; readonly more: boolean; readonly id: number };
  readonly hopLimit?: number;
  /** IPv6 extension headers before the payload: type and content, of which the first byte is replaced. */
  readonly extensions?: readonly (readonly [type: number, content: Uint8Array])[];
  /** Written instead of the true length. */
  readonly totalLen?: number;
  readonly version?: number;
  readonly ihl?: number;
}

export function ethernet(type: number, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(14);
  header.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
  new DataView(header.buffer).setUint16(12, type);
  return Buffer.concat([header, payload]);
}

/** A whole frame; the family is that of the addresses. */
export function ip(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions = {},
) {
  return source.includes(':')
    ? ethernet(etherType[6], ipv6(source, destination, protocol, payload, options))
    : ethernet(etherType[4], ipv4(source, destination, protocol, payload, options));
}

export function ipv4(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions = {},
): Uint8Array {
  const header = new Uint8Array(20);
  const view = new DataView(header.buffer);
  view.setUint8(0, ((options.version ?? 4) << 4) | (options.ihl ?? 5));
  view.setUint16(2, options.totalLen ?? 20 + payload.length);
  view.setUint16(4, options.fragment?.id ?? 0);
  view.setUint16(6, (options.fragment?.more === true ? 0x2000 : 0) | ((options.fragment?.offset ?? 0) >> 3));
  view.setUint8(8, options.hopLimit ?? 64);
  view.setUint8(9, protocol);
  header.set(bytesOf(source), 12);
  header.set(bytesOf(destination), 16);
  return Buffer.concat([header, payload]);
}

export function ipv6(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions = {},
): Uint8Array {
  const chain = [...(options.extensions ?? [])];
  if (options.fragment !== undefined) chain.push([44, fragmentHeader(options.fragment)]);
  const types = [...chain.map(([type]) => type), protocol];
  const headers = chain.map(([, content], i) => {
    const bytes = Uint8Array.from(content);
    bytes[0] = types[i + 1] ?? 59;
    return bytes;
  });
  const body = Buffer.concat([...headers, payload]);
  const header = new Uint8Array(40);
  const view = new DataView(header.buffer);
  view.setUint8(0, (options.version ?? 6) << 4);
  view.setUint16(4, options.totalLen ?? body.length);
  view.setUint8(6, types[0] ?? protocol);
  view.setUint8(7, options.hopLimit ?? 64);
  header.set(bytesOf(source), 8);
  header.set(bytesOf(destination), 24);
  return Buffer.concat([header, body]);
}

export function fragmentHeader(fragment: NonNullable<IpOptions['fragment']>): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint16(2, fragment.offset | (fragment.more ? 1 : 0));
  view.setUint32(4, fragment.id);
  return new Uint8Array(view.buffer);
}

export function tcpHeader(sourcePort: number, destinationPort: number, flags: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(20));
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  view.setUint8(12, 5 << 4);
  view.setUint8(13, flags);
  return new Uint8Array(view.buffer);
}

/** UDP, and the first words of SCTP: `word` is the verification tag there. */
export function udpHeader(sourcePort: number, destinationPort: number, word = 0x0008_0000): Uint8Array {
  const view = new DataView(new ArrayBuffer(12));
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  view.setUint32(4, word);
  return new Uint8Array(view.buffer);
}

export function icmpHeader(type: number, code: number, id: number, quoted: Uint8Array = new Uint8Array()): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint8(0, type);
  view.setUint8(1, code);
  view.setUint16(4, id);
  return Buffer.concat([new Uint8Array(view.buffer), quoted]);
}

function bytesOf(text: string): Uint8Array {
  const address = parseIp(text);
  if (address === undefined) throw new TypeError(`not an address: ${text}`);
  return ipToBytes(address);
}
