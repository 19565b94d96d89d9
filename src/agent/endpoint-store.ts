/** Endpoint records on disk: what the agent must know of a pod's interface when it starts again before the API answers. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { bandwidthSources } from '../api/agent-api.ts';
import { SluiceError } from '../core/error.ts';
import type { Logger } from '../core/log.ts';

const rates = z.object({ ingressBps: z.number().positive().optional(), egressBps: z.number().positive().optional() });
const limit = z.object({ bps: z.number().positive(), source: z.enum(bandwidthSources) });

const recordSchema = z.object({
  formatVersion: z.literal(1),
  endpointId: z.number().int().positive(),
  containerId: z.string().min(1),
  /** The interface ADD was called for, "eth0". */
  ifName: z.string().min(1),
  networkName: z.string(),
  netns: z.string().min(1),
  /** Decimal; tells the namespace from a later one at the same path. */
  netnsInode: z.string(),
  pod: z.object({ namespace: z.string().min(1), name: z.string().min(1), uid: z.string() }),
  /** Addresses without prefix length. */
  ips: z.array(z.string()),
  /** Interfaces of the pod with hooks: ifName, and veth0 when the coordinator made it. */
  interfaces: z.array(z.string()),
  /** runtimeConfig.bandwidth of ADD, without what repeats the pod's annotations. */
  runtimeBandwidth: rates,
  /** The limits in force; absent before they were set for the first time. */
  limits: z.object({ ingress: limit.optional(), egress: limit.optional() }).optional(),
  /** The pod ran before Sluice came: no ADD made this, and no DEL will name its container. */
  adopted: z.boolean().optional(),
  createdAt: z.string(),
});

export type EndpointRecord = Readonly<z.infer<typeof recordSchema>>;

export class EndpointStore {
  readonly #dir: string;
  readonly #records = new Map<string, EndpointRecord>();

  /** Reads what an earlier agent left in `<stateDir>/endpoints`. A damaged file is set aside with a warning, not lost. */
  static open(stateDir: string, log: Logger): EndpointStore {
    const store = new EndpointStore(join(stateDir, 'endpoints'));
    mkdirSync(store.#dir, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(store.#dir)) store.#load(name, log);
    return store;
  }

  private constructor(dir: string) {
    this.#dir = dir;
  }

  list(): EndpointRecord[] {
    return [...this.#records.values()];
  }

  get(containerId: string, ifName: string): EndpointRecord | undefined {
    return this.#records.get(keyOf(containerId, ifName));
  }

  ofContainer(containerId: string): EndpointRecord[] {
    return this.list().filter((record) => record.containerId === containerId);
  }

  /** Written to a new file, synced and renamed: after a crash there is the old record or the new one. */
  put(record: EndpointRecord): void {
    const path = this.#path(record);
    try {
      const fd = openSync(`${path}.new`, 'w', 0o600);
      try {
        writeSync(fd, JSON.stringify(record));
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(`${path}.new`, path);
      this.#syncDirectory();
    } catch (cause) {
      throw new SluiceError({
        code: 'syscall_failed',
        operation: 'write endpoint record',
        object: path,
        what: 'failed',
        cause,
      });
    }
    this.#records.set(keyOf(record.containerId, record.ifName), record);
  }

  remove(record: EndpointRecord): void {
    rmSync(this.#path(record), { force: true });
    this.#records.delete(keyOf(record.containerId, record.ifName));
  }

  #load(name: string, log: Logger): void {
    const path = join(this.#dir, name);
    if (name.endsWith('.new')) return rmSync(path, { force: true });
    if (!name.endsWith('.json')) return;
    try {
      const record = recordSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
      this.#records.set(keyOf(record.containerId, record.ifName), record);
    } catch (error) {
      renameSync(path, `${path}.damaged`);
      log.error({ path, error: String(error) }, 'endpoint record is damaged; set aside as *.damaged');
    }
  }

  #syncDirectory(): void {
    const fd = openSync(this.#dir, 'r');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }

  #path(record: EndpointRecord): string {
    // Container ids have no length limit, file names have.
    const hash = createHash('sha256').update(keyOf(record.containerId, record.ifName)).digest('hex');
    return join(this.#dir, `${hash.slice(0, 32)}.json`);
  }
}

function keyOf(containerId: string, ifName: string): string {
  return `${containerId}/${ifName}`;
}
