/**
 * IP addresses and prefixes as plain values.
 *
 * An address is its family and its number (0 … 2^32−1 or 2^128−1); a prefix is the masked address and the
 * length. Text forms: IPv4 dotted decimal without leading zeros, IPv6 as RFC 4291 §2.2 writes it and as
 * RFC 5952 prints it. Zones ("%eth0") are refused: an address that needs one is not routable between pods.
 */

export type IpFamily = 4 | 6;

export interface IpAddress {
  readonly family: IpFamily;
  /** The address as an unsigned number, most significant bit first. */
  readonly value: bigint;
}

export interface IpPrefix {
  /** Host bits are zero. */
  readonly address: IpAddress;
  readonly prefixLen: number;
}

/** Number of bits of an address of this family. */
export function bitsOf(family: IpFamily): number {
  return family === 4 ? 32 : 128;
}

/** Undefined when the text is not an address; never throws. */
export function parseIp(text: string): IpAddress | undefined {
  if (text.includes(':')) {
    const value = parseIpv6(text);
    return value === undefined ? undefined : { family: 6, value };
  }
  const value = parseIpv4(text);
  return value === undefined ? undefined : { family: 4, value: BigInt(value) };
}

/** RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups (the first of equals) as "::". */
export function formatIp(ip: IpAddress): string {
  if (ip.family === 4) return formatIpv4(Number(ip.value));
  const groups = ipv6Groups(ip.value);
  // RFC 5952 §5: IPv4-mapped addresses print their last 32 bits in dotted decimal.
  if (ip.value >> 32n === 0xffffn) return `::ffff:${formatIpv4(Number(ip.value & 0xffff_ffffn))}`;
  const run = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (run === undefined) return hex.join(':');
  return `${hex.slice(0, run.start).join(':')}::${hex.slice(run.start + run.length).join(':')}`;
}

/** Network byte order; 4 or 16 bytes. */
export function ipToBytes(ip: IpAddress): Uint8Array {
  const bytes = new Uint8Array(ip.family === 4 ? 4 : 16);
  let rest = ip.value;
  for (let i = bytes.length - 1; i >= 0; i--) {
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

/** The inverse of `ipToBytes`; throws on any other length, which is a bug of the caller and not bad input. */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length !== 4 && bytes.length !== 16) {
    throw new RangeError(`an IP address has 4 or 16 bytes, not ${bytes.length}`);
  }
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return { family: bytes.length === 4 ? 4 : 6, value };
}

/**
 * "10.0.0.1/8" → 10.0.0.0/8: host bits are cleared, as Kubernetes and the kernel both do.
 * Undefined when the text is not a prefix; never throws.
 */
export function parsePrefix(text: string): IpPrefix | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const address = parseIp(text.slice(0, slash));
  const prefixLen = parseDecimal(text.slice(slash + 1));
  if (address === undefined || prefixLen === undefined || prefixLen > bitsOf(address.family)) return undefined;
  return makePrefix(address, prefixLen);
}

export function formatPrefix(prefix: IpPrefix): string {
  return `${formatIp(prefix.address)}/${prefix.prefixLen}`;
}

/** The prefix of that length around the address. */
export function makePrefix(address: IpAddress, prefixLen: number): IpPrefix {
  const value = address.value & prefixMask(address.family, prefixLen);
  return { address: { family: address.family, value }, prefixLen };
}

/** The prefix that holds this one address (/32 or /128). */
export function ipToPrefix(ip: IpAddress): IpPrefix {
  return { address: ip, prefixLen: bitsOf(ip.family) };
}

export function prefixContainsIp(prefix: IpPrefix, ip: IpAddress): boolean {
  if (prefix.address.family !== ip.family) return false;
  const hostBits = BigInt(bitsOf(ip.family) - prefix.prefixLen);
  return prefix.address.value >> hostBits === ip.value >> hostBits;
}

/** Whether every address of `inner` is in `outer`; a prefix contains itself. */
export function prefixContains(outer: IpPrefix, inner: IpPrefix): boolean {
  return outer.prefixLen <= inner.prefixLen && prefixContainsIp(outer, inner.address);
}

/** The first and last address of a prefix, network and broadcast included. */
export function prefixBounds(prefix: IpPrefix): { readonly first: IpAddress; readonly last: IpAddress } {
  const { family, value } = prefix.address;
  const hostMask = (1n << BigInt(bitsOf(family) - prefix.prefixLen)) - 1n;
  return { first: prefix.address, last: { family, value: value | hostMask } };
}

/** IPv4 before IPv6, then by number. */
export function compareIp(a: IpAddress, b: IpAddress): number {
  if (a.family !== b.family) return a.family - b.family;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

/** By address, then the wider prefix first. */
export function comparePrefix(a: IpPrefix, b: IpPrefix): number {
  return compareIp(a.address, b.address) || a.prefixLen - b.prefixLen;
}

function prefixMask(family: IpFamily, prefixLen: number): bigint {
  const bits = bitsOf(family);
  if (!Number.isInteger(prefixLen) || prefixLen < 0 || prefixLen > bits) {
    throw new RangeError(`a prefix length for IPv${family} is 0 to ${bits}, not ${prefixLen}`);
  }
  return ((1n << BigInt(prefixLen)) - 1n) << BigInt(bits - prefixLen);
}

/** Digits only, no sign and no leading zero: "010" means 8 to some readers and 10 to others (CVE-2021-29923). */
function parseDecimal(text: string): number | undefined {
  return /^(0|[1-9][0-9]{0,2})$/.test(text) ? Number(text) : undefined;
}

function parseIpv4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    const byte = parseDecimal(part);
    if (byte === undefined || byte > 255) return undefined;
    value = value * 256 + byte;
  }
  return value;
}

function parseIpv6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0] ?? '', halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? '', true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  let value = 0n;
  for (const group of [...head, ...new Array<number>(missing).fill(0), ...tail]) value = (value << 16n) | BigInt(group);
  return value;
}

/** Groups of one side of "::"; the last may be dotted decimal when this side ends the address. */
function parseGroups(text: string, endsAddress: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(parseInt(part, 16));
      continue;
    }
    const ipv4 = endsAddress && index === parts.length - 1 ? parseIpv4(part) : undefined;
    if (ipv4 === undefined) return undefined;
    groups.push(Math.floor(ipv4 / 0x1_0000), ipv4 % 0x1_0000);
  }
  return groups;
}

function formatIpv4(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

function ipv6Groups(value: bigint): number[] {
  const groups: number[] = [];
  for (let shift = 112n; shift >= 0n; shift -= 16n) groups.push(Number((value >> shift) & 0xffffn));
  return groups;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } | undefined {
  let best: { start: number; length: number } | undefined;
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (start + length < groups.length && groups[start + length] === 0) length++;
    if (length >= 2 && length > (best?.length ?? 0)) best = { start, length };
    if (length > 0) start += length - 1;
  }
  return best;
}
