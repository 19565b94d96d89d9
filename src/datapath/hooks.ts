/**
 * Programs on the hooks of a pod's interface: tcx links (kernel 6.6), else cls_bpf filters on clsact. Pins: pins.ts.
 */
import { existsSync } from 'node:fs';
import {
  BpfLink,
  type BpfMap,
  BpfProgram,
  haveTcx,
  type HookProgram,
  Netns,
  netnsInode,
  queryTcx,
  RtNetlink,
  unpin,
  withNetns,
} from '../kernel/index.ts';
import { SluiceError } from '../core/error.ts';
import { directions, type Direction } from './abi.ts';
import { ensureFilter, filterPrograms, filterState, removeFilters } from './clsact-filters.ts';
import { EndpointPrograms } from './endpoint-programs.ts';
import { EndpointPins } from './pins.ts';
import type { PreparedPrograms } from './prepared-programs.ts';
import type { EndpointObject } from './programs.ts';
import { type HookState, TcxLinks, type TcxPlace } from './tcx-links.ts';

export { ensureClsact } from './clsact-filters.ts';

export type AttachMechanism = 'tcx' | 'clsact';

/** Something that is not in the kernel as it should be. */
export interface Finding {
  readonly problem:
    | 'interface_missing'
    | 'hook_missing'
    | 'wrong_program'
    /** Something runs before our program and may skip it. */
    | 'not_first'
    /** Ours, of another version of this software, or over maps that it has replaced. */
    | 'outdated_program'
    | 'not_programmed';
  readonly message: string;
}

export interface InterfacePlace {
  readonly netns: string;
  readonly interfaceName: string;
}

export interface NamedHookProgram extends HookProgram {
  readonly name: string;
}

export class EndpointHooks implements Disposable {
  readonly #pins: EndpointPins;
  readonly #programs: EndpointPrograms;
  readonly #links = new TcxLinks();
  #mechanism: AttachMechanism | undefined;

  constructor(
    bpffsDir: string,
    object: EndpointObject,
    maps: Readonly<Record<string, BpfMap>>,
    mechanism?: AttachMechanism,
  ) {
    this.#pins = new EndpointPins(bpffsDir, object.digest);
    this.#programs = new EndpointPrograms(this.#pins, object, maps);
    this.#mechanism = mechanism;
  }

  get mechanism(): AttachMechanism {
    return (this.#mechanism ??= haveTcx() ? 'tcx' : 'clsact');
  }

  /** Programs of endpoints to come. */
  get prepared(): PreparedPrograms {
    return this.#programs.prepared;
  }

  attach(endpointId: number, netns: string, interfaceName: string): void {
    using handle = Netns.openPath(netns);
    const ifindex = findInterface(handle, interfaceName);
    this.#programs.ensure(endpointId);
    for (const direction of directions) {
      const held = this.#programs.get(endpointId, direction);
      if (held === undefined) throw vanished(endpointId, direction);
      if (this.mechanism === 'clsact') ensureFilter(handle, ifindex, direction, held.program);
      else {
        const place = this.#place(endpointId, handle, ifindex, interfaceName, direction);
        this.#links.ensure(place, held.program, () => this.#programs.spare(endpointId, direction));
      }
    }
    this.#programs.removeOld(endpointId);
  }

  check(endpointId: number, netns: string, interfaceName: string): Finding[] {
    using handle = Netns.openPath(netns);
    using netlink = RtNetlink.open(handle);
    const link = netlink.linkByName(interfaceName);
    if (link === undefined) {
      return [{ problem: 'interface_missing', message: `there is no ${interfaceName} in ${netns}` }];
    }
    return directions.flatMap((direction) => {
      const expected = this.#programs.get(endpointId, direction)?.id;
      const state =
        this.mechanism === 'tcx'
          ? this.#links.state(this.#place(endpointId, handle, link.ifindex, interfaceName, direction), expected)
          : filterState(netlink, link.ifindex, direction, expected);
      const outdated = expected === undefined && this.#programs.isPinned(endpointId, state.programId);
      return findingsOf(`${direction} hook of ${interfaceName} in ${netns}`, state, expected, outdated);
    });
  }

  /** Ids of endpoints with pins, and the interfaces their links are on. */
  pinned(): Map<number, string[]> {
    return new Map(this.#pins.endpointIds().map((id) => [id, this.#pins.interfaces(id)]));
  }

  /** Gives back the names that held programs and links have lost; answers the paths. */
  restorePins(endpointIds: Iterable<number>, interfaces: (endpointId: number) => readonly string[]): string[] {
    const restored: string[] = [];
    for (const id of endpointIds) {
      restored.push(...this.#programs.restorePins(id));
      for (const interfaceName of this.mechanism === 'tcx' ? interfaces(id) : []) {
        const paths = directions.map((direction) => this.#pins.link(id, interfaceName, direction));
        restored.push(...paths.filter((path) => this.#links.restorePin(path)));
      }
    }
    return restored;
  }

  /** Ids of the pinned links whose device still lives; always empty on kernels without tcx. */
  liveLinks(endpointId: number): number[] {
    return this.#pins.links(endpointId).flatMap((path) => {
      using link = BpfLink.openPinned(path);
      const info = link?.info();
      return info === undefined || info.ifindex === 0 ? [] : [info.id];
    });
  }

  /** Everything on both hooks of the interface, whoever put it there. */
  programsOn(place: InterfacePlace): NamedHookProgram[] {
    return this.#programsOn(place).map((entry) => {
      using program = BpfProgram.openById(entry.programId);
      return { ...entry, name: program?.info().name ?? '' };
    });
  }

  #programsOn({ netns, interfaceName }: InterfacePlace): HookProgram[] {
    using handle = Netns.openPath(netns);
    using netlink = RtNetlink.open(handle);
    const { ifindex } = netlink.mustLink(interfaceName);
    return directions.flatMap((direction) =>
      this.mechanism === 'tcx'
        ? withNetns(handle, () => queryTcx(ifindex, direction))
        : filterPrograms(netlink, ifindex, direction).map((programId) => ({ programId, linkId: 0 })),
    );
  }

  /** False: something may have changed since the last `check`, which then tells what. */
  unchanged(endpointId: number, netns: string, interfaceNames: readonly string[]): boolean {
    if (this.mechanism === 'clsact') {
      return interfaceNames.every((name) => this.check(endpointId, netns, name).length === 0);
    }
    using handle = Netns.openPath(netns);
    const hooks = interfaceNames.flatMap((name) =>
      directions.map((direction) => ({ direction, path: this.#pins.link(endpointId, name, direction) })),
    );
    return this.#links.unchanged(handle, hooks);
  }

  /** False when somebody removed the endpoint's pins; a look at one directory. */
  hasPins(endpointId: number): boolean {
    return existsSync(this.#pins.dir(endpointId));
  }

  /** Takes the programs off and unpins everything. Filters of interfaces that are not named go with the interface. */
  remove(endpointId: number, interfaces: readonly InterfacePlace[] = []): void {
    if (this.mechanism === 'clsact') this.#removeFilters(endpointId, interfaces);
    for (const path of this.#pins.links(endpointId)) this.#links.remove(path);
    this.#programs.forget(endpointId);
    for (const path of this.#pins.all(endpointId)) unpin(path);
    this.#pins.removeDir(endpointId);
  }

  [Symbol.dispose](): void {
    this.#programs[Symbol.dispose]();
    this.#links[Symbol.dispose]();
  }

  #removeFilters(endpointId: number, interfaces: readonly InterfacePlace[]): void {
    const programIds = new Set<number>();
    for (const direction of directions) {
      const held = this.#programs.get(endpointId, direction);
      if (held !== undefined) programIds.add(held.id);
    }
    for (const path of this.#pins.programs(endpointId)) {
      using program = BpfProgram.openPinned(path);
      if (program !== undefined) programIds.add(program.info().id);
    }
    for (const { netns, interfaceName } of interfaces) {
      if (netnsInode(netns) === undefined) continue;
      using netlink = RtNetlink.open(netns);
      const link = netlink.linkByName(interfaceName);
      if (link !== undefined) removeFilters(netlink, link.ifindex, programIds);
    }
  }

  #place(endpointId: number, netns: Netns, ifindex: number, interfaceName: string, direction: Direction): TcxPlace {
    return { netns, ifindex, direction, path: this.#pins.link(endpointId, interfaceName, direction) };
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

function findingsOf(
  place: string,
  { programId, first }: HookState,
  expected: number | undefined,
  outdated: boolean,
): Finding[] {
  if (programId === undefined) return [{ problem: 'hook_missing', message: `nothing is attached to the ${place}` }];
  const findings: Finding[] = [];
  if (outdated) {
    findings.push({ problem: 'outdated_program', message: `the ${place} has another version of our program` });
  } else if (programId !== expected) {
    const ours = expected === undefined ? 'ours' : String(expected);
    return [{ problem: 'wrong_program', message: `the ${place} has program ${programId} instead of ${ours}` }];
  }
  if (!first) findings.push({ problem: 'not_first', message: `something runs before our program on the ${place}` });
  return findings;
}

function vanished(endpointId: number, direction: Direction): SluiceError {
  return new SluiceError({
    code: 'datapath_incomplete',
    operation: 'attach',
    object: `endpoint ${endpointId}`,
    what: `its pinned ${direction} program vanished`,
  });
}
