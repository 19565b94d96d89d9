/** Control groups, version 2 only: find the mount, create, fill, kill, remove. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../core/error.ts';
import { Errno, isErrno } from './errno.ts';
import { listMounts } from './mount.ts';

/** Where the unified hierarchy is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1). */
export function findCgroup2Mount(): string {
  const found = listMounts().find((mountPoint) => mountPoint.fsType === 'cgroup2');
  if (found !== undefined) return found.target;
  throw new SluiceError({
    code: 'unsupported_kernel',
    operation: 'find',
    object: 'cgroup2',
    what: 'no cgroup version 2 hierarchy is mounted',
    remedy: 'mount one: mount -t cgroup2 none /sys/fs/cgroup/unified',
  });
}

/** A handle on the cgroup directory `path`; the directory need not exist. */
export class Cgroup {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** The cgroup `name` (may contain slashes) of the unified hierarchy. */
  static named(name: string): Cgroup {
    return new Cgroup(join(findCgroup2Mount(), name));
  }

  child(name: string): Cgroup {
    return new Cgroup(join(this.path, name));
  }

  exists(): boolean {
    return existsSync(this.path);
  }

  /** Succeeds when it exists. */
  create(): void {
    mkdirSync(this.path, { recursive: true });
  }

  /** Moves a process (with all its threads) here; its children are born here. */
  addProcess(pid: number): void {
    writeFileSync(join(this.path, 'cgroup.procs'), String(pid));
  }

  /** Process ids in this cgroup and, with `recursive`, below it; empty when it does not exist. */
  processes(options?: { readonly recursive?: boolean }): number[] {
    const own = readPids(this.path);
    if (options?.recursive !== true) return own;
    return [...own, ...this.children().flatMap((child) => child.processes(options))];
  }

  children(): Cgroup[] {
    try {
      const entries = readdirSync(this.path, { withFileTypes: true });
      return entries.filter((entry) => entry.isDirectory()).map((entry) => this.child(entry.name));
    } catch (error) {
      if (isErrno(error, Errno.ENOENT)) return [];
      throw error;
    }
  }

  /** SIGKILL for everything in it and below it, at once and without races (`cgroup.kill`, Linux 5.14); else one by one. */
  kill(): void {
    if (!this.exists()) return;
    try {
      // r+, not w: asking for a file to be created here is EACCES, which would hide that it is absent.
      writeFileSync(join(this.path, 'cgroup.kill'), '1', { flag: 'r+' });
    } catch (error) {
      if (!isErrno(error, Errno.ENOENT)) throw error;
      this.#killOneByOne();
    }
  }

  /** True once no process is left here or below. Dead processes may take some milliseconds to leave. */
  isEmpty(): boolean {
    return this.processes({ recursive: true }).length === 0;
  }

  /** Removes it and the cgroups below. Throws EBUSY while processes remain; succeeds when it is already gone. */
  remove(): void {
    for (const child of this.children()) child.remove();
    try {
      rmdirSync(this.path);
    } catch (error) {
      if (!isErrno(error, Errno.ENOENT)) throw error;
    }
  }

  /** In rounds, until one finds nobody new: what is killed may have forked in between. */
  #killOneByOne(): void {
    const killed = new Set<number>();
    for (;;) {
      const alive = this.processes({ recursive: true }).filter((pid) => !killed.has(pid));
      if (alive.length === 0) return;
      for (const pid of alive) {
        killed.add(pid);
        killProcess(pid);
      }
    }
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!isErrno(error, Errno.ESRCH)) throw error;
  }
}

function readPids(path: string): number[] {
  try {
    return readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  } catch (error) {
    // ENODEV: the cgroup went away between opening and reading.
    if (isErrno(error, Errno.ENOENT, Errno.ENODEV)) return [];
    throw error;
  }
}
