/**
 * The two programs of each endpoint: pinned, so that they outlive the process, and held open, so that a wiped bpffs takes
 * nothing away while the process lives.
 */
import { existsSync } from 'node:fs';
import { type BpfMap, BpfProgram, unpin } from '../kernel/index.ts';
import { directions, type Direction } from './abi.ts';
import type { EndpointPins } from './pins.ts';
import { PreparedPrograms } from './prepared-programs.ts';
import { type EndpointObject, loadEndpointProgram } from './programs.ts';

interface HeldProgram {
  readonly program: BpfProgram;
  readonly id: number;
}

export class EndpointPrograms implements Disposable {
  readonly #pins: EndpointPins;
  readonly #object: EndpointObject;
  readonly #maps: Readonly<Record<string, BpfMap>>;
  readonly #held = new Map<string, HeldProgram>();
  readonly prepared: PreparedPrograms;

  constructor(pins: EndpointPins, object: EndpointObject, maps: Readonly<Record<string, BpfMap>>) {
    this.#pins = pins;
    this.#object = object;
    this.#maps = maps;
    this.prepared = new PreparedPrograms(object, maps);
  }

  /** Of this version and over these maps; undefined when it is yet to be loaded. Not the caller's to close. */
  get(endpointId: number, direction: Direction): HeldProgram | undefined {
    const path = this.#pins.program(endpointId, direction);
    const held = this.#held.get(path);
    if (held !== undefined) return held;
    const program = BpfProgram.openPinned(path);
    if (program === undefined) return undefined;
    if (this.#usesOurMaps(program)) return this.#hold(path, program);
    program.close();
    return undefined;
  }

  ensure(endpointId: number): void {
    if (directions.every((direction) => this.get(endpointId, direction) !== undefined)) return;
    for (const direction of directions) {
      const path = this.#pins.program(endpointId, direction);
      using program = this.prepared.take(endpointId, direction);
      this.#release(path);
      unpin(path);
      program.pin(path);
      this.get(endpointId, direction);
    }
    this.prepared.release(endpointId);
  }

  /** Whether it is one that an agent loaded for the endpoint, of whichever version and over whichever maps. */
  isPinned(endpointId: number, programId: number | undefined): boolean {
    return this.#pins.programs(endpointId).some((path) => {
      using program = BpfProgram.openPinned(path);
      return program !== undefined && program.info().id === programId;
    });
  }

  /** Another instance of the same program, the caller's: a hook takes each program once only. */
  spare(endpointId: number, direction: Direction): BpfProgram {
    return loadEndpointProgram(this.#object, this.#maps, endpointId, direction);
  }

  /** Pins again what lost its name; answers the paths. */
  restorePins(endpointId: number): string[] {
    return directions.flatMap((direction) => {
      const path = this.#pins.program(endpointId, direction);
      const held = this.#held.get(path);
      if (held === undefined || existsSync(path)) return [];
      held.program.pin(path);
      return [path];
    });
  }

  /** Pins of an earlier version of the programs; the links have the new ones by now. */
  removeOld(endpointId: number): void {
    for (const path of this.#pins.oldPrograms(endpointId)) unpin(path);
  }

  forget(endpointId: number): void {
    for (const direction of directions) this.#release(this.#pins.program(endpointId, direction));
  }

  [Symbol.dispose](): void {
    this.prepared[Symbol.dispose]();
    for (const path of [...this.#held.keys()]) this.#release(path);
  }

  /** A program that outlived its maps' pins would go on with a policy that nobody can change any more. */
  #usesOurMaps(program: BpfProgram): boolean {
    const ids = program.mapIds();
    return ['endpoints', 'policy', 'ipcache'].every((name) => ids.includes(this.#maps[name]?.id ?? -1));
  }

  #hold(path: string, program: BpfProgram): HeldProgram {
    const held = { program, id: program.info().id };
    this.#held.set(path, held);
    return held;
  }

  #release(path: string): void {
    this.#held.get(path)?.program.close();
    this.#held.delete(path);
  }
}
