/**
 * Finds the cgroup of a pod, in which all its containers are, by the name that the kubelet gives it before it calls CNI:
 * `pod<uid>` (cgroupfs driver), `…-pod<uid>.slice` with underscores (systemd driver), whatever is above it.
 */
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { hasErrorCode } from '../core/error.ts';
import { findCgroup2Mount } from '../kernel/cgroup.ts';
import { agentLimits } from './limits.ts';

const podName = /(^|-)pod[0-9a-f]{8}[-_][0-9a-f-_]{27}(\.slice)?$/;

export class PodCgroups {
  readonly #clock: Clock;
  /** Directories in which pods have theirs. */
  #parents: readonly string[] = [];
  #searchedMs = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `thorough` searches again even right after a search: the pod is new. Undefined also without cgroup version 2. */
  find(uid: string, options: { readonly thorough?: boolean } = {}): string | undefined {
    const found = among(this.#parents, uid);
    if (found !== undefined || uid === '') return found;
    const now = this.#clock.monotonicMs();
    if (options.thorough !== true && now - this.#searchedMs < agentLimits.cgroupSearchMs) return undefined;
    this.#searchedMs = now;
    this.#parents = dirsWithPods();
    return among(this.#parents, uid);
  }
}

function among(parents: readonly string[], uid: string): string | undefined {
  for (const parent of parents) {
    const prefix = basename(parent).replace(/\.slice$/, '');
    for (const name of [`pod${uid}`, `${prefix}-pod${uid.replaceAll('-', '_')}.slice`]) {
      const path = join(parent, name);
      if (existsSync(path)) return path;
    }
  }
  return undefined;
}

function dirsWithPods(): string[] {
  try {
    return search(findCgroup2Mount(), agentLimits.cgroupDepth);
  } catch (error) {
    if (hasErrorCode(error, 'unsupported_kernel')) return [];
    throw error;
  }
}

/** Does not look into pods. */
function search(dir: string, depth: number): string[] {
  const names = subdirs(dir);
  const others = depth === 0 ? [] : names.filter((name) => !podName.test(name));
  return [
    ...(names.some((name) => podName.test(name)) ? [dir] : []),
    ...others.flatMap((name) => search(join(dir, name), depth - 1)),
  ];
}

function subdirs(dir: string): string[] {
  try {
    const entries = readdirSync(dir, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch {
    return []; // it ended meanwhile
  }
}
