/**
 * One stream, from a handler's iterable to `$/progress` messages.
 * 1. The source is pulled only while the reader has credit and its socket has room: a slow reader slows the handler, and nothing piles up.
 * 2. Items that are ready in the same turn leave in one message; none waits for a later one.
 * 3. When the pump has settled, everything that was pulled has been sent, in order.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { MAX_STREAM_CREDIT } from "../../../protocol/stream.ts";

export interface PumpOptions {
  readonly credit: number;
  readonly maxBatchItems: number;
  readonly maxBatchBytes: number;
  /** The JSON text of an item. @throws when it cannot be sent; the stream ends with that error. */
  encode(item: unknown): string;
  /** For an item whose text takes long to make: resolves with what sends it, alone. Undefined for all others. */
  encodeLarge(item: unknown): Promise<() => void> | undefined;
  send(items: readonly string[]): void;
  /** False: the socket is full; `wake` is called when that changes. */
  hasRoom(): boolean;
}

export class StreamPump {
  readonly #options: PumpOptions;
  #credit: number;
  #batch: string[] = [];
  #batchBytes = 0;
  #flushing: NodeJS.Immediate | undefined;
  #waiting: (() => void) | undefined;

  constructor(options: PumpOptions) {
    this.#options = options;
    this.#credit = options.credit;
  }

  grant(credit: number): void {
    this.#credit = Math.min(this.#credit + credit, MAX_STREAM_CREDIT);
    this.wake();
  }

  /** Looks again whether there is room. */
  wake(): void {
    this.#waiting?.();
  }

  /** Resolves at the source's end, rejects with its error, and with the signal's reason once it aborts. */
  async run(source: AsyncIterable<unknown>, signal: AbortSignal): Promise<void> {
    const iterator = source[Symbol.asyncIterator]();
    const abort = () => this.wake();
    signal.addEventListener("abort", abort);
    try {
      for (;;) {
        await this.#untilReady(signal);
        signal.throwIfAborted();
        const item = await iterator.next();
        if (item.done === true) break;
        this.#credit -= 1;
        const large = this.#options.encodeLarge(item.value);
        if (large === undefined) await this.#add(this.#options.encode(item.value));
        else await this.#sendLarge(large);
      }
    } catch (error) {
      // The source has failed or is no longer wanted; how its clean-up ends changes nothing.
      void Promise.resolve(iterator.return?.()).catch(() => {});
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
      this.#flush();
    }
  }

  async #untilReady(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && (this.#credit <= 0 || !this.#options.hasRoom())) {
      this.#flush();
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
      this.#waiting = undefined;
    }
  }

  async #sendLarge(encoding: Promise<() => void>): Promise<void> {
    const send = await encoding;
    this.#flush();
    send();
  }

  async #add(json: string): Promise<void> {
    const { maxBatchItems, maxBatchBytes } = this.#options;
    if (this.#batchBytes + json.length > maxBatchBytes) this.#flush();
    this.#batch.push(json);
    this.#batchBytes += json.length;
    if (this.#batch.length >= maxBatchItems || this.#batchBytes >= maxBatchBytes) {
      this.#flush();
      // A source that is always ready would otherwise never let the loop turn.
      await nextTurn();
      return;
    }
    this.#flushing ??= setImmediate(() => this.#flush());
  }

  #flush(): void {
    clearImmediate(this.#flushing);
    this.#flushing = undefined;
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#options.send(batch);
  }
}
