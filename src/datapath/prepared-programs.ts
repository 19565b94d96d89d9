/**
 * Programs of endpoints to come, verified in advance: that takes several milliseconds, which CNI ADD would wait for. They
 * are held open and not pinned, so a process that ends, however it does, leaves nothing behind.
 */
import type { BpfMap, BpfProgram } from '../kernel/index.ts';
import { type Direction, directions } from './abi.ts';
import { type EndpointObject, loadEndpointProgram } from './programs.ts';

type Pair = Partial<Record<Direction, BpfProgram>>;

export class PreparedPrograms implements Disposable {
  readonly #object: EndpointObject;
  readonly #maps: Readonly<Record<string, BpfMap>>;
  readonly #pairs = new Map<number, Pair>();

  constructor(object: EndpointObject, maps: Readonly<Record<string, BpfMap>>) {
    this.#object = object;
    this.#maps = maps;
  }

  /** Endpoint ids, whole pairs first. */
  ids(): number[] {
    return [...this.#pairs.keys()].sort((a, b) => Number(this.#isWhole(b)) - Number(this.#isWhole(a)));
  }

  /**
   * Loads one program, for a new id from `nextId` when all there are have both. Returns false when there was nothing to do:
   * there are `count` pairs, or no more ids.
   */
  prepareOne(count: number, nextId: () => number | undefined): boolean {
    let id = [...this.#pairs.keys()].find((known) => !this.#isWhole(known));
    if (id === undefined) {
      if (this.#pairs.size >= count) return false;
      id = nextId();
      if (id === undefined) return false;
      this.#pairs.set(id, {});
    }
    const pair = this.#pairs.get(id) ?? {};
    const missing = directions.find((direction) => pair[direction] === undefined);
    if (missing !== undefined) pair[missing] = loadEndpointProgram(this.#object, this.#maps, id, missing);
    return true;
  }

  /** The caller's to close; loaded now when it was not prepared. */
  take(endpointId: number, direction: Direction): BpfProgram {
    const pair = this.#pairs.get(endpointId);
    const program = pair?.[direction];
    if (pair === undefined || program === undefined) {
      return loadEndpointProgram(this.#object, this.#maps, endpointId, direction);
    }
    delete pair[direction];
    return program;
  }

  /** Gives up pairs of ids that somebody else has by now. */
  keepOnly(isFree: (endpointId: number) => boolean): void {
    for (const id of [...this.#pairs.keys()]) if (!isFree(id)) this.release(id);
  }

  /** Closes what was not taken; `endpointId` is no longer reserved. */
  release(endpointId: number): void {
    const pair = this.#pairs.get(endpointId);
    for (const direction of directions) pair?.[direction]?.close();
    this.#pairs.delete(endpointId);
  }

  [Symbol.dispose](): void {
    for (const id of [...this.#pairs.keys()]) this.release(id);
  }

  #isWhole(endpointId: number): boolean {
    const pair = this.#pairs.get(endpointId);
    return directions.every((direction) => pair?.[direction] !== undefined);
  }
}
