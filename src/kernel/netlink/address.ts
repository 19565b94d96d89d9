/** Interface addresses (include/uapi/linux/if_addr.h). */
import { formatIp, ipFromBytes, ipToBytes, type IpAddress } from '../../core/ip.ts';
import { MessageReader, MessageWriter, type NetlinkMessage } from './codec.ts';
import { addressFamily } from './constants.ts';

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 0x02;
const IFA_F_OPTIMISTIC = 0x04;
const IFA_F_DADFAILED = 0x08;
const IFA_F_TENTATIVE = 0x40;

export interface InterfaceAddress {
  readonly ifindex: number;
  readonly address: IpAddress;
  readonly prefixLen: number;
  /** RT_SCOPE_*: 0 global, 253 link, 254 host. */
  readonly scope: number;
  /** IPv6 duplicate address detection still runs: the address cannot be used yet. */
  readonly tentative: boolean;
  /** It ended: somebody else on the link has the address. */
  readonly dadFailed: boolean;
}

export interface AddressSpec {
  readonly ifindex: number;
  readonly address: IpAddress;
  readonly prefixLen: number;
  readonly scope?: number;
  /** IPv6 only: usable at once, without duplicate address detection. */
  readonly noDad?: boolean;
}

export function encodeAddress(spec: AddressSpec): Uint8Array {
  const bytes = ipToBytes(spec.address);
  return addressHeader(addressFamily(spec.address.family), spec.prefixLen, spec.scope ?? 0, spec.ifindex)
    .attribute(IFA_LOCAL, bytes)
    .attribute(IFA_ADDRESS, bytes)
    .u32Attribute(IFA_FLAGS, spec.noDad === true ? IFA_F_NODAD : 0)
    .finish();
}

/** struct ifaddrmsg. */
function addressHeader(family: number, prefixLen: number, scope: number, ifindex: number): MessageWriter {
  return new MessageWriter().u8(family).u8(prefixLen).u8(0).u8(scope).u32(ifindex);
}

export function encodeAddressDump(ifindex: number): Uint8Array {
  return addressHeader(0, 0, 0, ifindex).finish();
}

export function decodeAddress(message: NetlinkMessage): InterfaceAddress | undefined {
  const reader = new MessageReader(message.body);
  reader.skip(1);
  const prefixLen = reader.u8();
  reader.skip(1);
  const scope = reader.u8();
  const ifindex = reader.u32();
  const attributes = reader.attributes();
  const bytes = attributes.bytes(IFA_LOCAL) ?? attributes.bytes(IFA_ADDRESS);
  if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 16)) return undefined;
  const flags = attributes.u32(IFA_FLAGS) ?? 0;
  // An optimistic one (RFC 4429) is in use while it is asked about.
  const tentative = (flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC)) === IFA_F_TENTATIVE;
  const dadFailed = (flags & IFA_F_DADFAILED) !== 0;
  return { ifindex, address: ipFromBytes(bytes), prefixLen, scope, tentative, dadFailed };
}

export function describeAddress(spec: AddressSpec): string {
  return `${formatIp(spec.address)}/${spec.prefixLen} on ifindex ${spec.ifindex}`;
}
