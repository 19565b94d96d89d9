import { SluiceError } from '../core/error.ts';
import { compareText } from '../core/labels.ts';

/**
 * status.allocatedIPs of a pool: a JSON document in a string,
 * {"172.51.0.100":{"pod":"default/test-abc","podUid":"<uid>"}}, keys in string order, no spaces, absent when empty.
 * Byte for byte what Spiderpool writes, so either can read the other's; `interface` is ours and only written for
 * interfaces other than eth0, since Spiderpool knows one record per pod and pool.
 */

export const firstInterface = 'eth0';

export interface AllocationRecord {
  /** namespace/name */
  readonly pod: string;
  readonly podUid: string;
  readonly interface: string;
}

/** Keys are addresses in canonical text. */
export type AllocationRecords = ReadonlyMap<string, AllocationRecord>;

export function decodeAllocatedIps(text: string | undefined, poolName: string): Map<string, AllocationRecord> {
  const records = new Map<string, AllocationRecord>();
  if (text === undefined || text === '') return records;
  for (const [address, value] of Object.entries(parseDocument(text, poolName))) {
    const record = asRecord(value);
    if (record === undefined) throw unreadable(poolName, new Error(`the record of ${address} is malformed`));
    records.set(address, record);
  }
  return records;
}

/** Undefined when there is no record: the field is then left out of the status. */
export function encodeAllocatedIps(records: AllocationRecords): string | undefined {
  if (records.size === 0) return undefined;
  const members = [...records]
    .sort(([a], [b]) => compareText(a, b))
    .map(([address, record]) => `${JSON.stringify(address)}:${encodeRecord(record)}`);
  return `{${members.join(',')}}`;
}

function encodeRecord(record: AllocationRecord): string {
  const { pod, podUid } = record;
  return JSON.stringify(
    record.interface === firstInterface ? { pod, podUid } : { pod, podUid, interface: record.interface },
  );
}

/**
 * Bytes that the record adds to the object as the API server and etcd keep it: the document is a string in JSON, where
 * each of its quotes takes two.
 */
export function storedBytes(address: string, record: AllocationRecord): number {
  const text = `"${address}":${encodeRecord(record)},`;
  return Buffer.byteLength(text) + (text.match(/["\\]/g)?.length ?? 0);
}

/** A document that cannot be read is never overwritten: the addresses in it are in use. */
function parseDocument(text: string, poolName: string): object {
  try {
    const document: unknown = JSON.parse(text);
    if (typeof document === 'object' && document !== null && !Array.isArray(document)) return document;
  } catch (cause) {
    throw unreadable(poolName, cause);
  }
  throw unreadable(poolName, undefined);
}

/** Checked by hand: a schema costs ten times as much, and a document may hold thousands of records. */
function asRecord(value: unknown): AllocationRecord | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { pod, podUid, interface: name = firstInterface } = value as Readonly<Record<string, unknown>>;
  const isRecord = typeof pod === 'string' && typeof podUid === 'string' && typeof name === 'string';
  return isRecord ? { pod, podUid, interface: name } : undefined;
}

function unreadable(poolName: string, cause: unknown): SluiceError {
  return new SluiceError({
    code: 'invalid_resource',
    operation: 'read status.allocatedIPs of',
    object: `SpiderIPPool ${poolName}`,
    what: 'is not the JSON document it should be',
    remedy: 'correct or remove status.allocatedIPs; nothing is allocated from the pool until then',
    cause,
  });
}
