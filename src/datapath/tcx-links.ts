/**
 * tcx links: pinned, so that they outlive the process; held open, so that a wiped bpffs takes no program off its hook while
 * the process lives; and first on their hook, since a program that runs before ours and says TCX_PASS would skip it
 * (kernel/bpf/mprog.c gives whoever may load programs any place it asks for).
 */
import { existsSync, renameSync } from 'node:fs';
import { BpfLink, type BpfProgram, Errno, isErrno, type Netns, queryTcx, unpin, withNetns } from '../kernel/index.ts';
import type { Direction } from './abi.ts';

/** One hook, and where its link is pinned. */
export interface TcxPlace {
  readonly netns: Netns;
  readonly ifindex: number;
  readonly direction: Direction;
  readonly path: string;
}

export interface HookState {
  /** Undefined: our program is not on the hook. */
  readonly programId: number | undefined;
  /** Whether nothing runs before it. */
  readonly first: boolean;
}

interface HeldLink {
  readonly link: BpfLink;
  readonly id: number;
  /** The device, and the program there, as of the last time it was found in order. */
  sound?: { readonly ifindex: number; readonly programId: number };
}

export class TcxLinks implements Disposable {
  readonly #held = new Map<string, HeldLink>();

  /** `spare` makes another instance of the program, needed to change places without a gap. */
  ensure(place: TcxPlace, program: BpfProgram, spare: () => BpfProgram): void {
    const held = this.#hold(place.path);
    if (held === undefined || held.link.info().ifindex !== place.ifindex) {
      this.remove(place.path); // the device it was on is gone
      this.#attach(place, program, spare);
      return;
    }
    if (held.link.info().programId !== program.info().id) held.link.update(program);
    this.restorePin(place.path);
    if (!this.state(place, program.info().id).first) this.#moveToFront(place, program, spare);
  }

  /** `expected` is the program that is to be there; while another is, `unchanged` is false. */
  state({ netns, ifindex, direction, path }: TcxPlace, expected: number | undefined): HookState {
    const held = this.#hold(path);
    if (held === undefined) return { programId: undefined, first: false };
    const programs = withNetns(netns, () => queryTcx(ifindex, direction));
    const index = programs.findIndex((entry) => entry.linkId === held.id);
    const programId = programs[index]?.programId;
    if (index === 0 && programId !== undefined && programId === expected) held.sound = { ifindex, programId };
    else delete held.sound;
    return { programId, first: index === 0 };
  }

  /** Whether all is as `state` found it last: two system calls for each hook. False also when it never looked. */
  unchanged(netns: Netns, hooks: readonly { readonly path: string; readonly direction: Direction }[]): boolean {
    return withNetns(netns, () =>
      hooks.every(({ path, direction }) => {
        const held = this.#held.get(path);
        if (held?.sound === undefined) return false;
        const [first] = queryTcx(held.sound.ifindex, direction);
        return first?.linkId === held.id && first.programId === held.sound.programId;
      }),
    );
  }

  /** True when a held link had lost its name. */
  restorePin(path: string): boolean {
    const held = this.#held.get(path);
    if (held === undefined || existsSync(path)) return false;
    held.link.pin(path);
    return true;
  }

  /**
   * Takes the program off at once and unpins it. Detached explicitly, since the kernel lets go of an unpinned link from a
   * work queue, some time later (bpf_link_put(), kernel/bpf/syscall.c).
   */
  remove(path: string): void {
    const held = this.#hold(path);
    held?.link.detach();
    held?.link.close();
    this.#held.delete(path);
    unpin(path);
  }

  [Symbol.dispose](): void {
    for (const { link } of this.#held.values()) link.close();
    this.#held.clear();
  }

  #hold(path: string): HeldLink | undefined {
    const held = this.#held.get(path);
    if (held !== undefined) return held;
    const link = BpfLink.openPinned(path);
    if (link === undefined) return undefined;
    const opened = { link, id: link.info().id };
    this.#held.set(path, opened);
    return opened;
  }

  #attach(place: TcxPlace, program: BpfProgram, spare: () => BpfProgram): void {
    const link = attachFirst(place, program) ?? this.#attachSpare(place, spare);
    link.pin(place.path);
    this.#held.set(place.path, { link, id: link.info().id });
  }

  /** The very program is on the hook still, through a link that the kernel has yet to let go of. */
  #attachSpare(place: TcxPlace, spare: () => BpfProgram): BpfLink {
    using program = spare();
    const link = attachFirst(place, program);
    if (link === undefined) throw new Error(`a program that was just loaded is on ${place.path} already`);
    return link;
  }

  /** A second link goes in front before the first one leaves: no packet passes in between. */
  #moveToFront(place: TcxPlace, program: BpfProgram, spare: () => BpfProgram): void {
    const before = this.#hold(place.path);
    const link = this.#attachSpare(place, spare);
    // Renamed over the old name: a crash at any point leaves a link that is pinned and attached.
    const temporary = `${place.path}-new`;
    unpin(temporary);
    link.pin(temporary);
    renameSync(temporary, place.path);
    this.#held.set(place.path, { link, id: link.info().id });
    before?.link.detach();
    before?.link.close();
    link.update(program);
  }
}

/** Undefined when this very program is on the hook already. */
function attachFirst({ netns, ifindex, direction }: TcxPlace, program: BpfProgram): BpfLink | undefined {
  try {
    return withNetns(netns, () => BpfLink.attachTcx({ program, ifindex, hook: direction }));
  } catch (error) {
    if (isErrno(error, Errno.EEXIST)) return undefined;
    throw error;
  }
}
