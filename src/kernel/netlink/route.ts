/** Routes (include/uapi/linux/rtnetlink.h). A multipath route is read as one route for each of its hops. */
import {
  formatIp,
  formatPrefix,
  ipFromBytes,
  ipToBytes,
  makePrefix,
  type IpAddress,
  type IpFamily,
  type IpPrefix,
} from '../../core/ip.ts';
import { type Attributes, MessageReader, MessageWriter, type NetlinkMessage, parseAttributes } from './codec.ts';
import { AddressFamily, addressFamily } from './constants.ts';

const Rta = { dst: 1, oif: 4, gateway: 5, priority: 6, prefSrc: 7, multipath: 9, table: 15 } as const;
const RTN_UNICAST = 1;
const rtnexthopLength = 8;
const RTPROT_STATIC = 4;
const RT_SCOPE_NOWHERE = 255;
const RTNH_F_ONLINK = 4;

export const routeTable = { main: 254, local: 255 } as const;
const scopeNumber = { universe: 0, link: 253, host: 254 } as const;
export type RouteScope = keyof typeof scopeNumber;

export interface Route {
  readonly family: IpFamily;
  /** Undefined: the default route. */
  readonly dst: IpPrefix | undefined;
  readonly gateway: IpAddress | undefined;
  readonly ifindex: number | undefined;
  readonly source: IpAddress | undefined;
  readonly table: number;
  readonly metric: number | undefined;
  /** RT_SCOPE_* as a number. */
  readonly scope: number;
  /** RTN_*: 1 unicast, 2 local, 3 broadcast … */
  readonly type: number;
  /** RTPROT_*: 2 kernel, 3 boot, 4 static … */
  readonly protocol: number;
}

export interface RouteSpec {
  readonly family: IpFamily;
  readonly dst?: IpPrefix;
  readonly gateway?: IpAddress;
  readonly ifindex?: number;
  readonly source?: IpAddress;
  readonly table?: number;
  readonly metric?: number;
  readonly scope?: RouteScope;
  /** The gateway is reachable on the link even if no address says so. */
  readonly onlink?: boolean;
}

export function encodeRoute(spec: RouteSpec): Uint8Array {
  const scope = scopeNumber[spec.scope ?? 'universe'];
  return encodeWith(spec, { scope, protocol: RTPROT_STATIC, type: RTN_UNICAST });
}

/** Whoever made the route and of whatever scope it is: the kernel compares what is not zero (fib_table_delete). */
export function encodeRouteDeletion(spec: RouteSpec): Uint8Array {
  return encodeWith(spec, { scope: RT_SCOPE_NOWHERE, protocol: 0, type: 0 });
}

function encodeWith(spec: RouteSpec, kind: { scope: number; protocol: number; type: number }): Uint8Array {
  const table = spec.table ?? routeTable.main;
  const writer = routeHeader({
    ...kind,
    family: addressFamily(spec.family),
    dstLength: spec.dst?.prefixLen ?? 0,
    table: table < 256 ? table : 0,
    flags: spec.onlink === true ? RTNH_F_ONLINK : 0,
  });
  writer.u32Attribute(Rta.table, table);
  if (spec.dst !== undefined) writer.attribute(Rta.dst, ipToBytes(spec.dst.address));
  if (spec.gateway !== undefined) writer.attribute(Rta.gateway, ipToBytes(spec.gateway));
  if (spec.source !== undefined) writer.attribute(Rta.prefSrc, ipToBytes(spec.source));
  if (spec.ifindex !== undefined) writer.u32Attribute(Rta.oif, spec.ifindex);
  if (spec.metric !== undefined) writer.u32Attribute(Rta.priority, spec.metric);
  return writer.finish();
}

/** struct rtmsg. */
function routeHeader(header: {
  family: number;
  dstLength: number;
  table: number;
  protocol: number;
  scope: number;
  type: number;
  flags: number;
}): MessageWriter {
  return new MessageWriter()
    .u8(header.family)
    .u8(header.dstLength)
    .u8(0)
    .u8(0)
    .u8(header.table)
    .u8(header.protocol)
    .u8(header.scope)
    .u8(header.type)
    .u32(header.flags);
}

/** A dump's header must be zero but for the family (strict checking). */
export function encodeRouteDump(family: IpFamily): Uint8Array {
  return new MessageWriter().u8(addressFamily(family)).bytes(new Uint8Array(11)).finish();
}

/** "How would a packet to `dst` leave": what `ip route get` asks. */
export function encodeRouteLookup(dst: IpAddress): Uint8Array {
  return new MessageWriter()
    .u8(addressFamily(dst.family))
    .u8(dst.family === 4 ? 32 : 128)
    .bytes(new Uint8Array(10))
    .attribute(Rta.dst, ipToBytes(dst))
    .finish();
}

export function decodeRoutes(message: NetlinkMessage): Route[] {
  const reader = new MessageReader(message.body);
  const family: IpFamily = reader.u8() === AddressFamily.inet ? 4 : 6;
  const dstLength = reader.u8();
  reader.skip(2);
  const shortTable = reader.u8();
  const protocol = reader.u8();
  const scope = reader.u8();
  const type = reader.u8();
  reader.skip(4);
  const attributes = reader.attributes();
  const dst = address(attributes, Rta.dst);
  const route: Route = {
    family,
    dst: dst === undefined ? undefined : makePrefix(dst, dstLength),
    gateway: address(attributes, Rta.gateway),
    ifindex: attributes.u32(Rta.oif),
    source: address(attributes, Rta.prefSrc),
    table: attributes.u32(Rta.table) ?? shortTable,
    metric: attributes.u32(Rta.priority),
    scope,
    type,
    protocol,
  };
  const hops = decodeHops(attributes.bytes(Rta.multipath) ?? new Uint8Array());
  return hops.length === 0 ? [route] : hops.map((hop) => ({ ...route, ...hop }));
}

/** struct rtnexthop: length, flags, hops, ifindex, then attributes. */
function decodeHops(bytes: Uint8Array): Pick<Route, 'ifindex' | 'gateway'>[] {
  const hops: Pick<Route, 'ifindex' | 'gateway'>[] = [];
  for (let offset = 0; offset + rtnexthopLength <= bytes.length;) {
    const header = new MessageReader(bytes.subarray(offset));
    const length = header.u16();
    header.skip(2);
    const ifindex = header.i32();
    if (length < rtnexthopLength || offset + length > bytes.length) break;
    const attributes = parseAttributes(bytes.subarray(offset + rtnexthopLength, offset + length));
    hops.push({ ifindex, gateway: address(attributes, Rta.gateway) });
    offset += (length + 3) & ~3;
  }
  return hops;
}

function address(attributes: Attributes, type: number): IpAddress | undefined {
  const bytes = attributes.bytes(type);
  return bytes !== undefined && (bytes.length === 4 || bytes.length === 16) ? ipFromBytes(bytes) : undefined;
}

export function describeRoute(spec: RouteSpec): string {
  const dst = spec.dst === undefined ? `default (IPv${spec.family})` : formatPrefix(spec.dst);
  const via = spec.gateway === undefined ? '' : ` via ${formatIp(spec.gateway)}`;
  const table = spec.table === undefined ? '' : ` table ${spec.table}`;
  return `${dst}${via}${table}`;
}
