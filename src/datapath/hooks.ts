/**
 * Programs on the hooks of a pod's interface. Pins of an endpoint, below `<bpffs>/endpoint/<id>/`:
 *
 *   program-<digest>-to_endpoint, program-<digest>-from_endpoint    loaded once, for all its interfaces
 *   link-<interface>-ingress, link-<interface>-egress               tcx links (kernel 6.6)
 *
 * Without tcx the programs are cls_bpf filters on clsact, which the interface keeps.
 */
import { readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../core/error.ts';
import {
  BpfLink,
  type BpfMap,
  BpfProgram,
  Errno,
  haveTcx,
  isErrno,
  Netns,
  RtNetlink,
  tcHandle,
  unpin,
  withNetns,
} from '../kernel/index.ts';
import { directions, type Direction } from './abi.ts';
import { type EndpointObject, loadEndpointPrograms, programNames } from './programs.ts';

export type AttachMechanism = 'tcx' | 'clsact';

/** Something that should be in the kernel and is not. */
export interface Finding {
  readonly problem: 'interface_missing' | 'hook_missing' | 'wrong_program' | 'not_programmed';
  readonly message: string;
}

/** Our place among cls_bpf filters: first. The redirect of the shaper comes later. */
const filterPriority = 1;
const filterHandle = 1;
const clsactHandle = 0xffff_0000;

const clsactParent: Readonly<Record<Direction, number>> = {
  ingress: tcHandle.clsactIngress,
  egress: tcHandle.clsactEgress,
};

export class EndpointHooks {
  readonly #bpffsDir: string;
  readonly #object: EndpointObject;
  readonly #maps: Readonly<Record<string, BpfMap>>;
  #mechanism: AttachMechanism | undefined;

  constructor(
    bpffsDir: string,
    object: EndpointObject,
    maps: Readonly<Record<string, BpfMap>>,
    mechanism?: AttachMechanism,
  ) {
    this.#bpffsDir = bpffsDir;
    this.#object = object;
    this.#maps = maps;
    this.#mechanism = mechanism;
  }

  get mechanism(): AttachMechanism {
    return (this.#mechanism ??= haveTcx() ? 'tcx' : 'clsact');
  }

  attach(endpointId: number, netns: string, interfaceName: string): void {
    using handle = Netns.openPath(netns);
    const ifindex = findInterface(handle, interfaceName);
    this.#ensurePrograms(endpointId);
    for (const direction of directions) {
      using program = this.#openProgram(endpointId, direction);
      if (program === undefined) throw vanished(endpointId, direction);
      if (this.mechanism === 'tcx') this.#ensureLink(endpointId, handle, interfaceName, ifindex, direction, program);
      else ensureFilter(handle, ifindex, direction, program);
    }
    this.#removeOldPrograms(endpointId);
  }

  check(endpointId: number, netns: string, interfaceName: string): Finding[] {
    using handle = Netns.openPath(netns);
    using netlink = RtNetlink.open(handle);
    const link = netlink.linkByName(interfaceName);
    if (link === undefined) {
      return [{ problem: 'interface_missing', message: `there is no ${interfaceName} in ${netns}` }];
    }
    return directions.flatMap((direction) => {
      using program = this.#openProgram(endpointId, direction);
      const attached =
        this.mechanism === 'tcx'
          ? this.#linkedProgram(endpointId, interfaceName, link.ifindex, direction)
          : filteredProgram(netlink, link.ifindex, direction);
      return findingsOf(`${direction} hook of ${interfaceName} in ${netns}`, attached, program?.info().id);
    });
  }

  /** Ids of endpoints with pins, and the interfaces their links are on. */
  pinned(): Map<number, string[]> {
    const endpoints = new Map<number, string[]>();
    for (const id of listDir(join(this.#bpffsDir, 'endpoint'))) {
      const interfaces = listDir(this.#dir(Number(id)))
        .map((name) => /^link-(.*)-ingress$/.exec(name)?.[1])
        .filter((name) => name !== undefined)
        .map(unescapeName);
      endpoints.set(Number(id), interfaces);
    }
    return endpoints;
  }

  /**
   * Takes the programs off and unpins everything; filters go with the interface. Links are detached explicitly: the
   * kernel lets go of an unpinned link from a work queue, some time later (bpf_link_put(), kernel/bpf/syscall.c).
   */
  remove(endpointId: number): void {
    const dir = this.#dir(endpointId);
    for (const name of listDir(dir)) {
      const path = join(dir, name);
      if (name.startsWith('link-')) {
        using link = BpfLink.openPinned(path);
        link?.detach();
      }
      unpin(path);
    }
    try {
      rmdirSync(dir);
    } catch (error) {
      if (!isErrno(error, Errno.ENOENT)) throw error;
    }
  }

  #dir(endpointId: number): string {
    return join(this.#bpffsDir, 'endpoint', String(endpointId));
  }

  #programPath(endpointId: number, direction: Direction): string {
    return join(this.#dir(endpointId), `program-${this.#object.digest}-${programNames[direction]}`);
  }

  #linkPath(endpointId: number, interfaceName: string, direction: Direction): string {
    return join(this.#dir(endpointId), `link-${escapeName(interfaceName)}-${direction}`);
  }

  #openProgram(endpointId: number, direction: Direction): BpfProgram | undefined {
    return BpfProgram.openPinned(this.#programPath(endpointId, direction));
  }

  #ensurePrograms(endpointId: number): void {
    using ingress = this.#openProgram(endpointId, 'ingress');
    using egress = this.#openProgram(endpointId, 'egress');
    if (ingress !== undefined && egress !== undefined) return;
    using loaded = loadEndpointPrograms(this.#object, this.#maps, endpointId);
    for (const direction of directions) {
      const path = this.#programPath(endpointId, direction);
      unpin(path);
      loaded.program(programNames[direction]).pin(path);
    }
  }

  /** Pins of an earlier version of the programs; the links have the new ones by now. */
  #removeOldPrograms(endpointId: number): void {
    const dir = this.#dir(endpointId);
    const current = `program-${this.#object.digest}-`;
    for (const name of listDir(dir)) {
      if (name.startsWith('program-') && !name.startsWith(current)) unpin(join(dir, name));
    }
  }

  #ensureLink(
    endpointId: number,
    netns: Netns,
    interfaceName: string,
    ifindex: number,
    direction: Direction,
    program: BpfProgram,
  ): void {
    const path = this.#linkPath(endpointId, interfaceName, direction);
    using existing = BpfLink.openPinned(path);
    const info = existing?.info();
    if (existing !== undefined && info?.ifindex === ifindex) {
      if (info.programId !== program.info().id) existing.update(program);
      return;
    }
    // The device it was on is gone.
    if (existing !== undefined) unpin(path);
    using link = withNetns(netns, () => BpfLink.attachTcx({ program, ifindex, hook: direction }));
    link.pin(path);
  }

  #linkedProgram(endpointId: number, interfaceName: string, ifindex: number, direction: Direction): number | undefined {
    using link = BpfLink.openPinned(this.#linkPath(endpointId, interfaceName, direction));
    const info = link?.info();
    return info?.ifindex === ifindex ? info.programId : undefined;
  }
}

/**
 * The ifindex. Refuses ipvlan in mode l3s: it delivers packets from outside through netfilter's LOCAL_IN, past the
 * ingress hook of the interface (measured, kernel 6.1), so ingress policy would not hold.
 */
function findInterface(netns: Netns, interfaceName: string): number {
  using netlink = RtNetlink.open(netns);
  const link = netlink.mustLink(interfaceName);
  if (link.kind === 'ipvlan' && link.ipvlanMode === 'l3s') {
    throw new SluiceError({
      code: 'invalid_config',
      operation: 'attach to',
      object: `${interfaceName} in ${netns.path}`,
      what: 'it is an ipvlan interface in mode l3s, where traffic from outside does not pass the ingress hook',
      remedy: 'use ipvlan mode l2 or l3',
    });
  }
  return link.ifindex;
}

function ensureFilter(netns: Netns, ifindex: number, direction: Direction, program: BpfProgram): void {
  using netlink = RtNetlink.open(netns);
  ensureClsact(netlink, ifindex);
  if (filteredProgram(netlink, ifindex, direction) === program.info().id) return;
  netlink.replaceFilter({
    ifindex,
    parent: clsactParent[direction],
    priority: filterPriority,
    handle: filterHandle,
    options: { kind: 'bpf', programFd: program.fd, name: programNames[direction] },
  });
}

/** The shaper needs it too. */
export function ensureClsact(netlink: RtNetlink, ifindex: number): void {
  if (netlink.qdiscs(ifindex).some((qdisc) => qdisc.kind === 'clsact')) return;
  netlink.addQdisc({ ifindex, parent: tcHandle.ingress, handle: clsactHandle, options: { kind: 'clsact' } });
}

function filteredProgram(netlink: RtNetlink, ifindex: number, direction: Direction): number | undefined {
  if (!netlink.qdiscs(ifindex).some((qdisc) => qdisc.kind === 'clsact')) return undefined;
  return netlink
    .filters(ifindex, clsactParent[direction])
    .find((filter) => filter.priority === filterPriority && filter.programId !== undefined)?.programId;
}

function findingsOf(place: string, attached: number | undefined, expected: number | undefined): Finding[] {
  if (attached === undefined) return [{ problem: 'hook_missing', message: `nothing is attached to the ${place}` }];
  if (attached === expected) return [];
  return [
    {
      problem: 'wrong_program',
      message: `the ${place} has program ${attached} instead of ${expected === undefined ? 'ours' : expected}`,
    },
  ];
}

function vanished(endpointId: number, direction: Direction): SluiceError {
  return new SluiceError({
    code: 'datapath_incomplete',
    operation: 'attach',
    object: `endpoint ${endpointId}`,
    what: `its pinned ${direction} program vanished`,
  });
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
