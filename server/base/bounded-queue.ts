/**
 * A queue between one producer that pushes and one consumer that iterates, with a bound (I9).
 * When it is full, `push` answers false: the producer must stop (pause its source) until `drained` calls back.
 */
export class BoundedQueue<Item> implements AsyncIterable<Item> {
  readonly #limit: number;
  readonly #items: Item[] = [];
  readonly #onDrained: () => void;
  #waiting: { resolve(result: IteratorResult<Item>): void; reject(error: unknown): void } | undefined;
  #end: { readonly error: unknown } | "clean" | undefined;
  #paused = false;

  constructor(options: { readonly limit: number; readonly onDrained?: () => void }) {
    this.#limit = options.limit;
    this.#onDrained = options.onDrained ?? (() => {});
  }

  get size(): number {
    return this.#items.length;
  }

  /** Adds an item. False means: no more until `onDrained`. Items pushed after the end are dropped. */
  push(item: Item): boolean {
    if (this.#end !== undefined) return true;
    if (this.#waiting !== undefined) {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      waiting.resolve({ value: item, done: false });
      return true;
    }
    this.#items.push(item);
    if (this.#items.length < this.#limit) return true;
    this.#paused = true;
    return false;
  }

  /** Ends the iteration once what is queued was read. */
  close(): void {
    this.#finish("clean");
  }

  /** Ends the iteration with an error once what is queued was read. */
  fail(error: unknown): void {
    this.#finish({ error });
  }

  [Symbol.asyncIterator](): AsyncIterator<Item> {
    return {
      next: () => this.#next(),
      return: async () => {
        this.#items.length = 0;
        this.#finish("clean");
        return { value: undefined, done: true };
      },
    };
  }

  #next(): Promise<IteratorResult<Item>> {
    const item = this.#items.shift();
    if (item !== undefined) {
      if (this.#paused && this.#items.length <= this.#limit / 2) {
        this.#paused = false;
        this.#onDrained();
      }
      return Promise.resolve({ value: item, done: false });
    }
    if (this.#end === "clean") return Promise.resolve({ value: undefined, done: true });
    if (this.#end !== undefined) {
      const { error } = this.#end;
      this.#end = "clean";
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #finish(end: { readonly error: unknown } | "clean"): void {
    if (this.#end !== undefined) return;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) {
      this.#end = end;
      return;
    }
    this.#end = "clean";
    if (end === "clean") waiting.resolve({ value: undefined, done: true });
    else waiting.reject(end.error);
  }
}
