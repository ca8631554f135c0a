/** A bag of things to dispose, in reverse order of their making; one failing does not keep the others from it. */
export class DisposableStore implements AsyncDisposable {
  readonly #items: (Disposable | AsyncDisposable)[] = [];
  #disposed = false;

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Registers `item` and returns it. After disposal it is disposed at once, so nothing leaks through a late start. */
  use<Item extends Disposable | AsyncDisposable>(item: Item): Item {
    if (this.#disposed) void disposeOne(item);
    else this.#items.push(item);
    return item;
  }

  defer(dispose: () => void | Promise<void>): void {
    this.use({ [Symbol.asyncDispose]: async () => dispose() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const failures: unknown[] = [];
    for (const item of this.#items.toReversed()) {
      try {
        await disposeOne(item);
      } catch (error) {
        failures.push(error);
      }
    }
    this.#items.length = 0;
    if (failures.length > 0) throw new AggregateError(failures, "some parts failed to stop");
  }
}

async function disposeOne(item: Disposable | AsyncDisposable): Promise<void> {
  if (Symbol.asyncDispose in item) await item[Symbol.asyncDispose]();
  else item[Symbol.dispose]();
}

export function onDispose(dispose: () => void): Disposable {
  return { [Symbol.dispose]: dispose };
}
