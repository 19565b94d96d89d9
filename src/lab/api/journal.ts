/**
 * Durability of the store: a snapshot and an append-only log of JSON lines in one directory.
 *
 * Every change is written before it is answered, so it survives the process (kill -9). fsync is batched: a power cut may lose
 * the last `syncDelayMs`. A torn last line, which a crash in the middle of a write leaves, is cut off at recovery.
 */
import { closeSync, existsSync, fdatasync, fsyncSync, ftruncateSync, mkdirSync, openSync } from 'node:fs';
import { readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { encodeStored, type KubeObject } from './json.ts';

export interface JournalEntry {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly resourceVersion: number;
  readonly bucket: string;
  readonly key: string;
  readonly object: KubeObject;
}

export interface SnapshotEntry {
  readonly bucket: string;
  readonly key: string;
  readonly object: KubeObject;
}

export interface Recovered {
  readonly snapshotRevision: number;
  readonly snapshot: readonly SnapshotEntry[];
  readonly entries: readonly JournalEntry[];
}

const syncDelayMs = 50;
/** The log is folded into a snapshot when it grows past this. */
const defaultSnapshotBytes = 64 * 1024 * 1024;

export class Journal {
  private readonly dir: string;
  private readonly snapshotBytes: number;
  private fd: number | undefined;
  private size = 0;
  private syncTimer: NodeJS.Timeout | undefined;

  constructor(dir: string, snapshotBytes = defaultSnapshotBytes) {
    this.dir = dir;
    this.snapshotBytes = snapshotBytes;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  /** Reads snapshot and log, cuts a torn last line off, and opens the log for appending. Call it once, first. */
  recover(): Recovered {
    const { snapshotRevision, snapshot } = this.readSnapshot();
    this.fd = openSync(this.logPath, 'a+', 0o600);
    const text = readFileSync(this.logPath);
    const whole = text.lastIndexOf(0x0a) + 1;
    if (whole < text.length) ftruncateSync(this.fd, whole);
    this.size = whole;
    const lines = text.subarray(0, whole).toString('utf8').split('\n').slice(0, -1);
    const entries = lines.map((line, index) => this.parse(line, index));
    return { snapshotRevision, snapshot, entries };
  }

  append(entry: JournalEntry): void {
    if (this.fd === undefined) throw new Error(`append to ${this.logPath}: the journal is closed`);
    const { type, resourceVersion, bucket, key } = entry;
    const head = JSON.stringify({ type, resourceVersion, bucket, key });
    const line = Buffer.from(`${head.slice(0, -1)},"object":${encodeStored(entry.object)}}\n`);
    this.size += writeAll(this.fd, line);
    this.syncSoon();
  }

  wantsSnapshot(): boolean {
    return this.size > this.snapshotBytes;
  }

  /** Writes all objects beside the log, then empties the log. A crash between the two replays entries the snapshot has: harmless. */
  snapshot(resourceVersion: number, objects: Iterable<SnapshotEntry>): void {
    const temporary = `${this.snapshotPath}.tmp`;
    const fd = openSync(temporary, 'w', 0o600);
    try {
      writeAll(fd, Buffer.from(`${JSON.stringify({ resourceVersion })}\n`));
      for (const { bucket, key, object } of objects) {
        const head = JSON.stringify({ bucket, key }).slice(0, -1);
        writeAll(fd, Buffer.from(`${head},"object":${encodeStored(object)}}\n`));
      }
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, this.snapshotPath);
    if (this.fd !== undefined) ftruncateSync(this.fd, 0);
    this.size = 0;
  }

  close(): void {
    clearTimeout(this.syncTimer);
    if (this.fd === undefined) return;
    fsyncSync(this.fd);
    closeSync(this.fd);
    this.fd = undefined;
  }

  private get logPath(): string {
    return join(this.dir, 'journal.jsonl');
  }

  private get snapshotPath(): string {
    return join(this.dir, 'snapshot.jsonl');
  }

  private readSnapshot(): { snapshotRevision: number; snapshot: SnapshotEntry[] } {
    if (!existsSync(this.snapshotPath)) return { snapshotRevision: 0, snapshot: [] };
    const [head, ...lines] = readFileSync(this.snapshotPath, 'utf8').split('\n').slice(0, -1);
    const { resourceVersion } = JSON.parse(head ?? '{}') as { resourceVersion: number };
    return { snapshotRevision: resourceVersion, snapshot: lines.map((line) => JSON.parse(line) as SnapshotEntry) };
  }

  private parse(line: string, index: number): JournalEntry {
    try {
      return JSON.parse(line) as JournalEntry;
    } catch (cause) {
      throw new Error(`recover ${this.logPath}: line ${index + 1} is damaged`, { cause });
    }
  }

  private syncSoon(): void {
    this.syncTimer ??= setTimeout(() => {
      this.syncTimer = undefined;
      // A failed background fsync shows at close(), which syncs again and throws.
      if (this.fd !== undefined) fdatasync(this.fd, () => undefined);
    }, syncDelayMs);
    this.syncTimer.unref();
  }
}

/** A short write to a regular file happens when the disk is full; the next attempt then reports it. */
function writeAll(fd: number, bytes: Buffer): number {
  let written = 0;
  while (written < bytes.length) written += writeSync(fd, bytes, written);
  return written;
}
