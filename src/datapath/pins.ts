/**
 * Names on bpffs. Pins of an endpoint, below `<bpffs>/endpoint/<id>/`:
 *
 *   program-<digest>-to_endpoint, program-<digest>-from_endpoint    loaded once, for all its interfaces
 *   link-<interface>-ingress, link-<interface>-egress               tcx links (kernel 6.6)
 */
import { readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { Errno, isErrno } from '../kernel/index.ts';
import type { Direction } from './abi.ts';
import { programNames } from './programs.ts';

/** Endpoints that have names on bpffs, whichever version gave them. */
export function pinnedEndpointIds(bpffsDir: string): number[] {
  return new EndpointPins(bpffsDir, '').endpointIds();
}

export class EndpointPins {
  readonly #root: string;
  readonly #digest: string;

  constructor(bpffsDir: string, digest: string) {
    this.#root = join(bpffsDir, 'endpoint');
    this.#digest = digest;
  }

  endpointIds(): number[] {
    return listDir(this.#root).map(Number);
  }

  dir(endpointId: number): string {
    return join(this.#root, String(endpointId));
  }

  /** Paths; empty when the endpoint has no pins. */
  all(endpointId: number): string[] {
    const dir = this.dir(endpointId);
    return listDir(dir).map((name) => join(dir, name));
  }

  /** Including a half-made one that is to take another's place. */
  links(endpointId: number): string[] {
    return this.all(endpointId).filter((path) => nameOf(path).startsWith('link-'));
  }

  programs(endpointId: number): string[] {
    return this.all(endpointId).filter((path) => nameOf(path).startsWith('program-'));
  }

  /** Programs of another version than this process has. */
  oldPrograms(endpointId: number): string[] {
    return this.programs(endpointId).filter((path) => !nameOf(path).startsWith(`program-${this.#digest}-`));
  }

  interfaces(endpointId: number): string[] {
    return this.links(endpointId)
      .map((path) => /^link-(.*)-ingress$/.exec(nameOf(path))?.[1])
      .filter((name) => name !== undefined)
      .map(unescapeName);
  }

  program(endpointId: number, direction: Direction): string {
    return join(this.dir(endpointId), `program-${this.#digest}-${programNames[direction]}`);
  }

  link(endpointId: number, interfaceName: string, direction: Direction): string {
    return join(this.dir(endpointId), `link-${escapeName(interfaceName)}-${direction}`);
  }

  removeDir(endpointId: number): void {
    try {
      rmdirSync(this.dir(endpointId));
    } catch (error) {
      if (!isErrno(error, Errno.ENOENT)) throw error;
    }
  }
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function listDir(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isErrno(error, Errno.ENOENT)) return [];
    throw error;
  }
}

/** bpffs refuses names with a dot (bpf_lookup in kernel/bpf/inode.c). */
function escapeName(name: string): string {
  return name.replaceAll('%', '%25').replaceAll('.', '%2e');
}

function unescapeName(name: string): string {
  return name.replaceAll('%2e', '.').replaceAll('%25', '%');
}
