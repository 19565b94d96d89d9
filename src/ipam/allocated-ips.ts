import { z } from 'zod';
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

const documentSchema = z.record(
  z.string(),
  z.object({ pod: z.string(), podUid: z.string(), interface: z.string().optional() }),
);

export function decodeAllocatedIps(text: string | undefined, poolName: string): Map<string, AllocationRecord> {
  const records = new Map<string, AllocationRecord>();
  if (text === undefined || text === '') return records;
  for (const [address, record] of Object.entries(parseDocument(text, poolName))) {
    const { pod, podUid } = record;
    records.set(address, { pod, podUid, interface: record.interface ?? firstInterface });
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

/** A document that cannot be read is never overwritten: the addresses in it are in use. */
function parseDocument(text: string, poolName: string): z.infer<typeof documentSchema> {
  try {
    return documentSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new SluiceError({
      code: 'invalid_resource',
      operation: 'read status.allocatedIPs of',
      object: `SpiderIPPool ${poolName}`,
      what: 'is not the JSON document it should be',
      remedy: 'correct or remove status.allocatedIPs; nothing is allocated from the pool until then',
      cause,
    });
  }
}
