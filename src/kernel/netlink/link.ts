/** Links: what `ip link` shows, adds and changes (include/uapi/linux/if_link.h). */
import { encodeBond, type BondOptions } from './bond.ts';
import { MessageReader, MessageWriter, type Attributes, type NetlinkMessage } from './codec.ts';

const Ifla = {
  address: 1,
  name: 3,
  mtu: 4,
  link: 5,
  master: 10,
  txQueueLength: 13,
  operState: 16,
  linkInfo: 18,
  stats64: 23,
  netnsFd: 28,
  linkNetnsId: 37,
  parentDeviceName: 56,
} as const;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFLA_MACVLAN_MODE = 1;
const IFLA_IPVLAN_MODE = 1;
const IFLA_IPVLAN_FLAGS = 2;
const IFLA_VLAN_ID = 1;
const IFF_UP = 0x1;
const IFF_LOWER_UP = 0x10000;

export const ipvlanModes = ['l2', 'l3', 'l3s'] as const;
export type IpvlanMode = (typeof ipvlanModes)[number];
export type MacvlanMode = 'private' | 'vepa' | 'bridge' | 'passthru';
const macvlanModeBits: Readonly<Record<MacvlanMode, number>> = { private: 1, vepa: 2, bridge: 4, passthru: 8 };

export interface LinkStats {
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  readonly rxBytes: bigint;
  readonly txBytes: bigint;
  readonly rxDropped: bigint;
  readonly txDropped: bigint;
}

/** A network device as rtnetlink sees it; every index is of the netns it was read in. */
export interface Link {
  readonly ifindex: number;
  readonly name: string;
  /** `veth`, `ipvlan` …; undefined for hardware and the loopback. */
  readonly kind: string | undefined;
  /** "aa:bb:…", empty when the device has none. */
  readonly mac: string;
  readonly mtu: number;
  readonly up: boolean;
  readonly carrier: boolean;
  readonly txQueueLength: number;
  /** Lower device of macvlan/ipvlan/vlan, or the peer of a veth (IFLA_LINK). */
  readonly parentIfindex: number | undefined;
  /** Set when `parentIfindex` counts in another netns. */
  readonly parentNetnsId: number | undefined;
  /** Name of the hardware's device on its bus, as in /sys/bus/pci/devices; not of virtual links, not before Linux 5.14. */
  readonly parentDevice: string | undefined;
  /** Upper device: a bridge or bond (IFLA_MASTER). */
  readonly masterIfindex: number | undefined;
  readonly ipvlanMode: IpvlanMode | undefined;
  /** Tag of a vlan. */
  readonly vlanId: number | undefined;
  readonly stats: LinkStats | undefined;
}

interface LinkCommon {
  readonly name: string;
  readonly mtu?: number;
  readonly mac?: string;
  readonly txQueueLength?: number;
  readonly up?: boolean;
  /** An open netns to make the link in; default: the connection's own. */
  readonly netnsFd?: number;
  readonly masterIfindex?: number;
}

export type LinkSpec = LinkCommon &
  (
    | { readonly kind: 'veth'; readonly peer: LinkCommon }
    | { readonly kind: 'macvlan'; readonly parentIfindex: number; readonly mode: MacvlanMode }
    | { readonly kind: 'ipvlan'; readonly parentIfindex: number; readonly mode: IpvlanMode }
    | { readonly kind: 'vlan'; readonly parentIfindex: number; readonly vlanId: number }
    | { readonly kind: 'bond'; readonly options: BondOptions }
    | { readonly kind: 'bridge' | 'ifb' | 'dummy' }
  );

/** What may change on a link that exists. `masterIfindex: 0` takes it out of its bridge. */
export interface LinkChange {
  readonly name?: string;
  readonly mtu?: number;
  readonly mac?: string;
  readonly txQueueLength?: number;
  readonly up?: boolean;
  readonly netnsFd?: number;
  readonly masterIfindex?: number;
}

/** struct ifinfomsg. */
function linkHeader(writer: MessageWriter, ifindex: number, up: boolean | undefined): MessageWriter {
  return writer
    .u8(0)
    .u8(0)
    .u16(0)
    .i32(ifindex)
    .u32(up === true ? IFF_UP : 0)
    .u32(up === undefined ? 0 : IFF_UP);
}

export function encodeLinkRequest(ifindex: number): Uint8Array {
  return linkHeader(new MessageWriter(), ifindex, undefined).finish();
}

export function encodeLinkByName(name: string): Uint8Array {
  return linkHeader(new MessageWriter(), 0, undefined).stringAttribute(Ifla.name, name).finish();
}

export function encodeLinkChange(ifindex: number, change: LinkChange): Uint8Array {
  const writer = linkHeader(new MessageWriter(), ifindex, change.up);
  writeCommon(writer, change);
  return writer.finish();
}

export function encodeLinkSpec(spec: LinkSpec): Uint8Array {
  const writer = linkHeader(new MessageWriter(), 0, spec.up);
  writeCommon(writer, spec);
  if (spec.kind === 'macvlan' || spec.kind === 'ipvlan' || spec.kind === 'vlan')
    writer.u32Attribute(Ifla.link, spec.parentIfindex);
  writer.nested(Ifla.linkInfo, (info) => {
    info.stringAttribute(IFLA_INFO_KIND, spec.kind);
    const data = encodeKindData(spec);
    if (data !== undefined) info.attribute(IFLA_INFO_DATA, data);
  });
  return writer.finish();
}

export function encodeBondChange(ifindex: number, options: BondOptions): Uint8Array {
  const writer = linkHeader(new MessageWriter(), ifindex, undefined);
  writer.nested(Ifla.linkInfo, (info) => {
    info.stringAttribute(IFLA_INFO_KIND, 'bond').attribute(IFLA_INFO_DATA, encodeBond(options));
  });
  return writer.finish();
}

function encodeKindData(spec: LinkSpec): Uint8Array | undefined {
  const writer = new MessageWriter();
  switch (spec.kind) {
    case 'veth':
      return writer
        .nested(VETH_INFO_PEER, (peer) => {
          linkHeader(peer, 0, spec.peer.up);
          writeCommon(peer, spec.peer);
        })
        .finish();
    case 'macvlan':
      return writer.u32Attribute(IFLA_MACVLAN_MODE, macvlanModeBits[spec.mode]).finish();
    case 'ipvlan':
      return writer
        .u16Attribute(IFLA_IPVLAN_MODE, ipvlanModes.indexOf(spec.mode))
        .u16Attribute(IFLA_IPVLAN_FLAGS, 0)
        .finish();
    case 'vlan':
      return writer.u16Attribute(IFLA_VLAN_ID, spec.vlanId).finish();
    case 'bond':
      return encodeBond(spec.options);
    case 'bridge':
    case 'ifb':
    case 'dummy':
      return undefined;
  }
}

function writeCommon(writer: MessageWriter, common: LinkChange): void {
  if (common.name !== undefined) writer.stringAttribute(Ifla.name, common.name);
  if (common.mac !== undefined) writer.attribute(Ifla.address, parseMac(common.mac));
  if (common.mtu !== undefined) writer.u32Attribute(Ifla.mtu, common.mtu);
  if (common.txQueueLength !== undefined) writer.u32Attribute(Ifla.txQueueLength, common.txQueueLength);
  if (common.masterIfindex !== undefined) writer.u32Attribute(Ifla.master, common.masterIfindex);
  if (common.netnsFd !== undefined) writer.u32Attribute(Ifla.netnsFd, common.netnsFd);
}

export function decodeLink(message: NetlinkMessage): Link {
  const reader = new MessageReader(message.body);
  reader.skip(4);
  const ifindex = reader.i32();
  const flags = reader.u32();
  reader.skip(4);
  const attributes = reader.attributes();
  const info = attributes.nested(Ifla.linkInfo);
  const kind = info?.string(IFLA_INFO_KIND);
  return {
    ifindex,
    name: attributes.string(Ifla.name) ?? '',
    kind,
    mac: formatMac(attributes.bytes(Ifla.address) ?? new Uint8Array()),
    mtu: attributes.u32(Ifla.mtu) ?? 0,
    up: (flags & IFF_UP) !== 0,
    carrier: (flags & IFF_LOWER_UP) !== 0,
    txQueueLength: attributes.u32(Ifla.txQueueLength) ?? 0,
    parentIfindex: attributes.u32(Ifla.link),
    parentNetnsId: attributes.u32(Ifla.linkNetnsId),
    parentDevice: attributes.string(Ifla.parentDeviceName),
    masterIfindex: attributes.u32(Ifla.master),
    ipvlanMode: kind === 'ipvlan' ? ipvlanModes[info?.nested(IFLA_INFO_DATA)?.u16(IFLA_IPVLAN_MODE) ?? -1] : undefined,
    vlanId: kind === 'vlan' ? info?.nested(IFLA_INFO_DATA)?.u16(IFLA_VLAN_ID) : undefined,
    stats: decodeStats(attributes),
  };
}

/** struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped, … */
function decodeStats(attributes: Attributes): LinkStats | undefined {
  const bytes = attributes.bytes(Ifla.stats64);
  if (bytes === undefined) return undefined;
  const reader = new MessageReader(bytes);
  const [rxPackets, txPackets, rxBytes, txBytes] = [reader.u64(), reader.u64(), reader.u64(), reader.u64()];
  reader.skip(16);
  return { rxPackets, txPackets, rxBytes, txBytes, rxDropped: reader.u64(), txDropped: reader.u64() };
}

export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** "aa:bb:cc:dd:ee:ff" → 6 bytes; anything else is a bug of the caller. */
export function parseMac(text: string): Uint8Array {
  if (!/^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$/.test(text)) throw new RangeError(`not a MAC address: ${text}`);
  return Uint8Array.from(text.split(':'), (byte) => parseInt(byte, 16));
}
