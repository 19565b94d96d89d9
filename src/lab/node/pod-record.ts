/** What the kubelet must know of a pod after it was killed itself: one JSON file per pod, written before it acts. */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessId } from '../process.ts';
import type { NetworkList, RuntimeCapabilities } from './cni-config.ts';

export interface SandboxRecord {
  /** CNI_CONTAINERID: 64 hexadecimal digits, as containerd's. */
  readonly id: string;
  readonly netns: string;
  readonly hostNetwork: boolean;
  readonly hostPid: boolean;
  /** Pid 1 of the pod's pid namespace; absent until it runs. */
  readonly pause?: ProcessId;
}

/** One attachment. Kept from before ADD until DEL has succeeded. */
export interface NetworkRecord {
  /** "namespace/name" of the NetworkAttachmentDefinition. */
  readonly attachment: string;
  readonly interface: string;
  readonly list: NetworkList;
  readonly args: Readonly<Record<string, string>>;
  readonly runtime: RuntimeCapabilities;
  /** Gateways of the pod's default route, where this network is to have it. */
  readonly defaultRoute?: readonly string[];
  /** Absent until ADD has succeeded. */
  readonly result?: unknown;
}

export interface ContainerRecord {
  readonly name: string;
  /** 0 for the first start. */
  readonly attempt: number;
  readonly id: string;
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir?: string;
  /** The process that waits for the container and writes its exit code. */
  readonly waiter?: ProcessId;
  readonly startedAtMs: number;
  readonly finishedAtMs?: number;
  readonly exitCode?: number;
  /** Why it ended, or could not start: Completed, Error, StartError. */
  readonly reason?: string;
  readonly message?: string;
  /** The run before this one. */
  readonly last?: Omit<ContainerRecord, 'last'>;
  /** Delay before the next start after this run has ended, in milliseconds. */
  readonly backoffMs: number;
}

export interface PodRecord {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly startTimeMs: number;
  readonly sandbox?: SandboxRecord;
  /** Those whose ADD has begun, in that order. */
  readonly networks?: readonly NetworkRecord[];
  /** Every network's ADD has succeeded. */
  readonly attached?: boolean;
  readonly podIps: readonly string[];
  readonly containers: Readonly<Record<string, ContainerRecord>>;
}

export class PodRecords {
  readonly #dir: string;

  /** `dir`/UID/record.json. */
  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  podDir(uid: string): string {
    return join(this.#dir, uid);
  }

  save(record: PodRecord): void {
    const dir = this.podDir(record.uid);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const file = join(dir, 'record.json');
    // Environments may hold secrets: readable by root only. Renamed into place, so a reader never sees half a file.
    writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }

  remove(uid: string): void {
    rmSync(this.podDir(uid), { recursive: true, force: true });
  }

  load(): PodRecord[] {
    return readdirSync(this.#dir).flatMap((uid) => {
      try {
        return [JSON.parse(readFileSync(join(this.#dir, uid, 'record.json'), 'utf8')) as PodRecord];
      } catch {
        return []; // the directory was made, the record not yet: nothing of the pod exists
      }
    });
  }
}
