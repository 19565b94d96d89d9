/**
 * The entries of one policy as the `policy` map takes them, keys and values packed one after the other: a policy may have many
 * thousand, and is written, compared and changed as a whole.
 */
import { SluiceError } from '../core/error.ts';
import {
  ACTION_ALLOW,
  directions,
  type Direction,
  POLICY_ANY_PORT,
  POLICY_EXACT_BITS,
  policyKey,
  policyValue,
  reservedRule,
} from './abi.ts';

/** The same shape as the policy compiler's entries. */
export interface PolicyEntry {
  readonly direction: Direction;
  /** 0 is any. */
  readonly identity: number;
  /** IP protocol number; 0 is any. */
  readonly protocol: number;
  readonly port: number;
  /** 0 … 16: how many leading bits of `port` must match. */
  readonly portPrefixLen: number;
  readonly ruleId: number;
  readonly action: 'allow';
}

/** No two entries have the same key. */
export interface PolicyImage {
  readonly keys: Uint8Array;
  readonly values: Uint8Array;
}

export const emptyImage: PolicyImage = { keys: new Uint8Array(), values: new Uint8Array() };

export function entryCount({ keys }: PolicyImage): number {
  return keys.length / policyKey.size;
}

/** Sorted; of two entries that match the same the first stays. With what is derived from them. */
export function encodePolicy(policyId: number, entries: readonly PolicyEntry[]): PolicyImage {
  const open = withSomePort(entries);
  const count = entries.length + open.length;
  const keys = new Uint8Array(count * policyKey.size);
  const values = new Uint8Array(count * policyValue.size);
  const views = { key: viewOf(keys), value: viewOf(values) };
  let index = 0;
  for (const entry of entries) writeEntry(views, index++, policyId, entry, 0);
  for (const entry of open) writeEntry(views, index++, policyId, entry, POLICY_ANY_PORT);
  return sortImage({ keys, values });
}

/** From single entries of the map, in any order. */
export function imageOf(entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[]): PolicyImage {
  const keys = Buffer.concat(entries.map(([key]) => key));
  return sortImage({ keys, values: Buffer.concat(entries.map(([, value]) => value)) });
}

/** Of several policies. */
export function joinImages(images: readonly PolicyImage[]): PolicyImage {
  return {
    keys: Buffer.concat(images.map(({ keys }) => keys)),
    values: Buffer.concat(images.map(({ values }) => values)),
  };
}

/** Whether both have the same entries, in whatever order. */
export function sameImage(a: PolicyImage, b: PolicyImage): boolean {
  if (a.keys.length !== b.keys.length) return false;
  const [first, second] = [sortImage(a), sortImage(b)];
  return Buffer.compare(first.keys, second.keys) === 0 && Buffer.compare(first.values, second.values) === 0;
}

/** Of each entry, in its place. */
export function forEachIdentity({ keys }: PolicyImage, visit: (identity: number, position: number) => void): void {
  for (let i = 0, at = policyKey.fields.identity[2]; at < keys.length; i++, at += policyKey.size)
    visit(uint32At(keys, at), i);
}

/** Where the entries of the identities are, ascending. */
export function positionsOf(image: PolicyImage, identities: ReadonlySet<number>): number[] {
  if (identities.size === 0) return [];
  const positions: number[] = [];
  let [low, high] = [Infinity, 0];
  // Not Math.min(...identities): there may be more of them than a call takes arguments.
  for (const identity of identities) [low, high] = [Math.min(low, identity), Math.max(high, identity)];
  forEachIdentity(image, (identity, position) => {
    if (identity >= low && identity <= high && identities.has(identity)) positions.push(position);
  });
  return positions;
}

/** The entries of `image` that match nothing an entry of `other` matches just so. */
export function withoutKeysOf(image: PolicyImage, other: PolicyImage): PolicyImage {
  if (entryCount(other) === 0) return image;
  const known = new Set(orderOf(other));
  const order = orderOf(image);
  const positions = Array.from(order.keys()).filter((i) => !known.has(order[i] ?? 0));
  return positions.length === order.length ? image : pickEntries(image, positions);
}

/** What was encoded, without what was derived; sorted. */
export function decodeImage(image: PolicyImage): PolicyEntry[] {
  const sorted = sortImage(image);
  const entries: PolicyEntry[] = [];
  for (let i = 0; i < entryCount(sorted); i++) {
    const key = policyKey.decode(slice(sorted.keys, i, policyKey.size));
    const value = policyValue.decode(slice(sorted.values, i, policyValue.size));
    if (key.direction < POLICY_ANY_PORT) entries.push(decodeEntry(key, value.ruleId));
  }
  return entries;
}

export function ruleIdsOf({ values }: PolicyImage): Set<number> {
  const view = viewOf(values);
  const ids = new Set<number>();
  for (let at = policyValue.fields.ruleId[2]; at < values.length; at += policyValue.size)
    ids.add(view.getUint32(at, true));
  return ids;
}

function sortImage(image: PolicyImage): PolicyImage {
  const order = orderOf(image);
  if (order.every((key, i) => i === 0 || (order[i - 1] ?? 0) < key)) return image;
  const positions = Array.from(order.keys()).sort((a, b) => (order[a] ?? 0) - (order[b] ?? 0));
  const distinct = positions.filter((at, i) => i === 0 || order[positions[i - 1] ?? 0] !== order[at]);
  return pickEntries(image, distinct);
}

/** A number for what each entry matches: direction, identity (24 bits), protocol, port prefix (its bits, a one, zeros). */
function orderOf(image: PolicyImage): Float64Array {
  const view = viewOf(image.keys);
  const { fields: field, size } = policyKey;
  const order = new Float64Array(entryCount(image));
  for (let i = 0, at = 0; i < order.length; i++, at += size) {
    const portPrefixLen = portPrefixLenOf(view.getUint32(at + field.prefixLen[2], true));
    const ports = (view.getUint16(at + field.port[2]) << 1) | (1 << (16 - portPrefixLen));
    const who = view.getUint8(at + field.direction[2]) * 2 ** 24 + view.getUint32(at + field.identity[2], true);
    order[i] = (who * 2 ** 8 + view.getUint8(at + field.protocol[2])) * 2 ** 17 + ports;
  }
  return order;
}

export function pickEntries({ keys, values }: PolicyImage, positions: readonly number[]): PolicyImage {
  return { keys: pickRows(keys, positions, policyKey.size), values: pickRows(values, positions, policyValue.size) };
}

/** Neighbours are copied together. */
function pickRows(rows: Uint8Array, positions: readonly number[], size: number): Uint8Array {
  const picked = new Uint8Array(positions.length * size);
  let from = 0;
  for (let i = 1; i <= positions.length; i++) {
    const first = positions[from] ?? 0;
    if (positions[i] === first + i - from) continue;
    picked.set(rows.subarray(first * size, (first + i - from) * size), from * size);
    from = i;
  }
  return picked;
}

/** What is derived from an entry: some port of this direction, identity and protocol is open, so fragments may wait for their first. */
const somePort = { port: 0, portPrefixLen: 0, ruleId: reservedRule.none };

/** One for each direction, identity and protocol. */
function withSomePort(entries: readonly PolicyEntry[]): readonly PolicyEntry[] {
  if (entries.length <= 1) return entries;
  const seen = new Set<number>();
  return entries.filter((entry) => {
    const key = (entry.identity * 2 + directions.indexOf(entry.direction)) * 256 + entry.protocol;
    return seen.size < seen.add(key).size;
  });
}

/** policyKey and policyValue, written field by field: a policy may have many thousand entries. */
function writeEntry(
  views: { readonly key: DataView; readonly value: DataView },
  index: number,
  policyId: number,
  entry: PolicyEntry,
  space: number,
): void {
  const { port, portPrefixLen, ruleId } = space === POLICY_ANY_PORT ? somePort : entry;
  if (portPrefixLen < 0 || portPrefixLen > 16 || (entry.protocol === 0 && portPrefixLen !== 0)) {
    throw new SluiceError({
      code: 'invalid_argument',
      operation: 'encode policy entry',
      object: `protocol ${entry.protocol} port ${port}/${portPrefixLen}`,
      what: 'a port needs a protocol, and its prefix has 0 to 16 bits',
    });
  }
  const prefixLen = POLICY_EXACT_BITS + (entry.protocol === 0 ? 0 : 8 + portPrefixLen);
  const key = policyKey.fields;
  const keyAt = index * policyKey.size;
  views.key.setUint32(keyAt + key.prefixLen[2], prefixLen, true);
  views.key.setUint32(keyAt + key.policyId[2], policyId, true);
  views.key.setUint32(keyAt + key.identity[2], entry.identity, true);
  views.key.setUint8(keyAt + key.direction[2], directions.indexOf(entry.direction) + space);
  views.key.setUint8(keyAt + key.protocol[2], entry.protocol);
  views.key.setUint16(keyAt + key.port[2], port & (0xffff << (16 - portPrefixLen)) & 0xffff);
  const value = policyValue.fields;
  const valueAt = index * policyValue.size;
  views.value.setUint32(valueAt + value.ruleId[2], ruleId, true);
  views.value.setUint8(valueAt + value.action[2], ACTION_ALLOW);
  views.value.setUint8(valueAt + value.prefixLen[2], prefixLen);
}

function decodeEntry(key: ReturnType<typeof policyKey.decode>, ruleId: number): PolicyEntry {
  const direction = directions[key.direction];
  if (direction === undefined) throw new RangeError(`policy entry with direction ${key.direction}`);
  const { identity, protocol, port } = key;
  return {
    direction,
    identity,
    protocol,
    port,
    portPrefixLen: portPrefixLenOf(key.prefixLen),
    ruleId,
    action: 'allow',
  };
}

function portPrefixLenOf(prefixLen: number): number {
  return Math.max(prefixLen - POLICY_EXACT_BITS - 8, 0);
}

function slice(rows: Uint8Array, index: number, size: number): Uint8Array {
  return rows.subarray(index * size, (index + 1) * size);
}

/** Little endian. A DataView costs more than a few of these. */
function uint32At(bytes: Uint8Array, at: number): number {
  const byte = (i: number): number => bytes[at + i] ?? 0;
  return (byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24)) >>> 0;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
