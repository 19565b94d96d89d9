/** Mounts: bind, bpffs, unmount, and what is mounted (`/proc/thread-self/mountinfo`). */
import { mkdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { check } from './errno.ts';
import { mount, umount2 } from './ffi.ts';

const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16384;
const MS_PRIVATE = 1 << 18;
const MS_SHARED = 1 << 20;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

export interface MountPoint {
  readonly mountId: number;
  readonly parentId: number;
  /** Path inside the mounted file system; not `/` for bind mounts, and `net:[INODE]` for namespaces. */
  readonly root: string;
  readonly target: string;
  readonly fsType: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface MountSpec {
  readonly source: string;
  readonly target: string;
  readonly fsType: string;
  readonly options?: string;
}

/** Mounts a file system; nosuid, nodev and noexec, which suits every pseudo file system this project mounts. */
export function mountFs(spec: MountSpec): void {
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  check(
    mount(spec.source, spec.target, spec.fsType, flags, spec.options ?? null),
    `mount ${spec.fsType} on`,
    spec.target,
  );
}

/** Makes `target` (an existing file for a file, a directory for a directory) show `source` too. */
export function bindMount(source: string, target: string, options?: { readonly recursive?: boolean }): void {
  const flags = MS_BIND | (options?.recursive === true ? MS_REC : 0);
  check(mount(source, target, null, flags, null), `bind mount ${source} on`, target);
}

/** Turns an existing bind mount read-only. */
export function remountReadOnly(target: string): void {
  check(mount('none', target, null, MS_REMOUNT | MS_BIND | 1, null), 'remount read-only', target);
}

export function setPropagation(target: string, propagation: 'private' | 'shared', recursive = false): void {
  const flags = (propagation === 'private' ? MS_PRIVATE : MS_SHARED) | (recursive ? MS_REC : 0);
  check(mount('none', target, null, flags, null), `make mount ${propagation}`, target);
}

/** Lazy: gone from the tree at once, freed when its last user leaves. */
export function unmount(target: string, options?: { readonly lazy?: boolean }): void {
  const flags = UMOUNT_NOFOLLOW | (options?.lazy === true ? MNT_DETACH : 0);
  check(umount2(target, flags), 'unmount', target);
}

/** All mounts of this mount namespace, in mount order (a later one on the same target hides an earlier one). */
export function listMounts(): MountPoint[] {
  return parseMountInfo(readFileSync('/proc/thread-self/mountinfo', 'utf8'));
}

/** The mount that is visible at exactly `target`. */
export function findMount(target: string): MountPoint | undefined {
  const wanted = resolve(target);
  return listMounts().findLast((mountPoint) => mountPoint.target === wanted);
}

/** Makes sure a bpffs is mounted at `target` (created if absent). Returns true when this call mounted it. */
export function ensureBpffs(target: string): boolean {
  if (findMount(target)?.fsType === 'bpf') return false;
  mkdirSync(target, { recursive: true, mode: 0o700 });
  mountFs({ source: 'bpf', target, fsType: 'bpf', options: 'mode=0700' });
  return true;
}

/** True when `path` lies on a bpffs (which is where objects can be pinned). */
export function isOnBpffs(path: string): boolean {
  let best: MountPoint | undefined;
  const wanted = resolve(path);
  for (const mountPoint of listMounts()) {
    const inside = wanted === mountPoint.target || wanted.startsWith(`${mountPoint.target.replace(/\/$/, '')}/`);
    if (inside && (best === undefined || mountPoint.target.length >= best.target.length)) best = mountPoint;
  }
  return best?.fsType === 'bpf';
}

/** Parses proc_pid_mountinfo(5). */
export function parseMountInfo(text: string): MountPoint[] {
  const mounts: MountPoint[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    // Optional fields end at a single dash, so what follows has to be found, not counted.
    const dash = fields.indexOf('-', 6);
    if (dash < 0) continue;
    mounts.push({
      mountId: Number(fields[0]),
      parentId: Number(fields[1]),
      root: unescapeOctal(fields[3] ?? ''),
      target: unescapeOctal(fields[4] ?? ''),
      options: (fields[5] ?? '').split(','),
      fsType: fields[dash + 1] ?? '',
      source: unescapeOctal(fields[dash + 2] ?? ''),
    });
  }
  return mounts;
}

/** Space, tab, newline and backslash appear as `\040` and so on. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
