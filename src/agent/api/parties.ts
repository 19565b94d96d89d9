/** Who has an address, kept for a while: making the table of a large cluster anew for each event would be most of the work. */
import type { Node, Pod } from '../../api/kubernetes.ts';
import type { Clock } from '../../core/clock.ts';
import { AddressBook } from '../../policy/address-book.ts';
import { agentLimits } from '../limits.ts';

export interface PartiesDeps {
  readonly pods: () => readonly Pod[];
  readonly nodes: () => readonly Node[];
  readonly clock: Clock;
}

export class Parties {
  readonly #deps: PartiesDeps;
  #book: AddressBook | undefined;
  #madeMs = 0;
  #stale = true;

  constructor(deps: PartiesDeps) {
    this.#deps = deps;
  }

  /** Pods or nodes may have changed. */
  markStale(): void {
    this.#stale = true;
  }

  get book(): AddressBook {
    const nowMs = this.#deps.clock.monotonicMs();
    const old = this.#stale && nowMs - this.#madeMs >= agentLimits.addressBookMs;
    if (this.#book === undefined || old) {
      this.#book = new AddressBook(this.#deps.pods(), this.#deps.nodes());
      this.#madeMs = nowMs;
      this.#stale = false;
    }
    return this.#book;
  }
}
