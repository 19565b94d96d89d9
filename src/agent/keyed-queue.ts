/** Runs tasks: those of one key one after the other, those of different keys side by side up to a limit. */
export class KeyedQueue {
  readonly #concurrency: number;
  readonly #maxWaiting: number;
  readonly #tails = new Map<string, Promise<unknown>>();
  readonly #turns: (() => void)[] = [];
  #running = 0;
  #waiting = 0;

  constructor(limits: { readonly concurrency: number; readonly waiting: number }) {
    this.#concurrency = limits.concurrency;
    this.#maxWaiting = limits.waiting;
  }

  /** Settles as the task does; undefined when too many wait already. The empty key waits for nobody. */
  run<T>(key: string, task: () => Promise<T>): Promise<T> | undefined {
    if (this.#waiting >= this.#maxWaiting) return undefined;
    this.#waiting++;
    const before = key === '' ? undefined : this.#tails.get(key);
    const done = this.#after(before, task);
    if (key !== '') this.#follow(key, done);
    return done;
  }

  #follow(key: string, done: Promise<unknown>): void {
    const tail: Promise<void> = done
      .then(
        () => undefined,
        () => undefined,
      )
      .then(() => {
        if (this.#tails.get(key) === tail) this.#tails.delete(key);
      });
    this.#tails.set(key, tail);
  }

  async #after<T>(before: Promise<unknown> | undefined, task: () => Promise<T>): Promise<T> {
    await before;
    if (this.#running >= this.#concurrency) await new Promise<void>((resolve) => this.#turns.push(resolve));
    else this.#running++;
    this.#waiting--;
    try {
      return await task();
    } finally {
      const next = this.#turns.shift();
      if (next === undefined) this.#running--;
      else next(); // hands its place on
    }
  }
}
