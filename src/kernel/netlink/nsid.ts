/** Numbers that a network namespace has for another one (include/uapi/linux/net_namespace.h). */
import { MessageReader, MessageWriter, type NetlinkMessage } from './codec.ts';
import { AddressFamily } from './constants.ts';

const NETNSA_NSID = 1;
const NETNSA_FD = 3;
const NETNSA_NSID_NOT_ASSIGNED = -1;

/** struct rtgenmsg, padded to four bytes. */
export function encodeNsidQuery(netnsFd: number): Uint8Array {
  const header = new MessageWriter().u8(AddressFamily.unspecified).u8(0).u8(0).u8(0);
  return header.u32Attribute(NETNSA_FD, netnsFd).finish();
}

/** Gives it the lowest free number. */
export function encodeNsidAssignment(netnsFd: number): Uint8Array {
  const header = new MessageWriter().u8(AddressFamily.unspecified).u8(0).u8(0).u8(0);
  return header.u32Attribute(NETNSA_FD, netnsFd).u32Attribute(NETNSA_NSID, NETNSA_NSID_NOT_ASSIGNED).finish();
}

/** Undefined when no link of the namespace ever had an end in the other one. */
export function decodeNsid(message: NetlinkMessage): number | undefined {
  const reader = new MessageReader(message.body);
  reader.skip(4);
  const id = reader.attributes().u32(NETNSA_NSID);
  return id === undefined || (id | 0) === NETNSA_NSID_NOT_ASSIGNED ? undefined : id;
}
