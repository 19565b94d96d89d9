/** Policy routing rules (include/uapi/linux/fib_rules.h). */
import { formatPrefix, ipFromBytes, ipToBytes, makePrefix, type IpFamily, type IpPrefix } from '../../core/ip.ts';
import { type Attributes, MessageReader, MessageWriter, type NetlinkMessage } from './codec.ts';
import { AddressFamily, addressFamily } from './constants.ts';

const Fra = { dst: 1, src: 2, priority: 6, fwmark: 10, table: 15, fwmask: 16 } as const;
const FR_ACT_TO_TBL = 1;

export interface Rule {
  readonly family: IpFamily;
  readonly priority: number;
  readonly table: number;
  readonly from?: IpPrefix | undefined;
  readonly to?: IpPrefix | undefined;
  readonly fwmark?: number | undefined;
  readonly fwmask?: number | undefined;
}

export function encodeRule(rule: Rule): Uint8Array {
  const writer = new MessageWriter()
    .u8(addressFamily(rule.family))
    .u8(rule.to?.prefixLen ?? 0)
    .u8(rule.from?.prefixLen ?? 0)
    .u8(0)
    .u8(rule.table < 256 ? rule.table : 0)
    .u8(0)
    .u8(0)
    .u8(FR_ACT_TO_TBL)
    .u32(0)
    .u32Attribute(Fra.priority, rule.priority)
    .u32Attribute(Fra.table, rule.table);
  if (rule.to !== undefined) writer.attribute(Fra.dst, ipToBytes(rule.to.address));
  if (rule.from !== undefined) writer.attribute(Fra.src, ipToBytes(rule.from.address));
  if (rule.fwmark !== undefined) writer.u32Attribute(Fra.fwmark, rule.fwmark);
  if (rule.fwmask !== undefined) writer.u32Attribute(Fra.fwmask, rule.fwmask);
  return writer.finish();
}

export function encodeRuleDump(family: IpFamily): Uint8Array {
  return new MessageWriter().u8(addressFamily(family)).bytes(new Uint8Array(11)).finish();
}

export function decodeRule(message: NetlinkMessage): Rule {
  const reader = new MessageReader(message.body);
  const family: IpFamily = reader.u8() === AddressFamily.inet ? 4 : 6;
  const dstLength = reader.u8();
  const srcLength = reader.u8();
  reader.skip(1);
  const shortTable = reader.u8();
  reader.skip(7);
  const attributes = reader.attributes();
  return {
    family,
    priority: attributes.u32(Fra.priority) ?? 0,
    table: attributes.u32(Fra.table) ?? shortTable,
    from: prefix(attributes, Fra.src, srcLength),
    to: prefix(attributes, Fra.dst, dstLength),
    fwmark: attributes.u32(Fra.fwmark),
    fwmask: attributes.u32(Fra.fwmask),
  };
}

function prefix(attributes: Attributes, type: number, length: number): IpPrefix | undefined {
  const bytes = attributes.bytes(type);
  return bytes !== undefined && (bytes.length === 4 || bytes.length === 16)
    ? makePrefix(ipFromBytes(bytes), length)
    : undefined;
}

export function describeRule(rule: Rule): string {
  const from = rule.from === undefined ? '' : ` from ${formatPrefix(rule.from)}`;
  const to = rule.to === undefined ? '' : ` to ${formatPrefix(rule.to)}`;
  const mark = rule.fwmark === undefined ? '' : ` fwmark ${rule.fwmark}`;
  return `pref ${rule.priority}${from}${to}${mark} lookup ${rule.table} (IPv${rule.family})`;
}
