/**
 * Events of an answer that are pushed to us, by a program that knows no backpressure, for a reader who takes them when it can.
 * What waits is handed out as one frame, so that a slow reader catches up; it is bounded by the answer itself.
 */
import type { GhostError } from "../../base/errors.ts";
import { eventsFrame, type Frame, type StreamEvent } from "../stream.ts";

export class EventFeed implements AsyncIterable<Frame> {
  readonly #onLeave: () => void;
  #waiting: StreamEvent[] = [];
  #end: { readonly error?: GhostError } | undefined;
  #hasLeft = false;
  #wake: (() => void) | undefined;

  /** @param onLeave called once, when the answer has ended in any way or its reader has gone */
  constructor(onLeave: () => void) {
    this.#onLeave = onLeave;
  }

  push(events: readonly StreamEvent[]): void {
    if (this.#end !== undefined || events.length === 0) return;
    this.#waiting.push(...events);
    this.#wake?.();
  }

  /** The answer is whole. */
  end(): void {
    this.#end ??= {};
    this.#wake?.();
  }

  /** What was not read yet is still read first. */
  fail(error: GhostError): void {
    this.#end ??= { error };
    this.#wake?.();
  }

  [Symbol.asyncIterator](): AsyncIterator<Frame> {
    return {
      next: () => this.#next(),
      return: async () => {
        this.#leave();
        return { value: undefined, done: true };
      },
    };
  }

  async #next(): Promise<IteratorResult<Frame>> {
    while (this.#waiting.length === 0 && this.#end === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.#waiting.length > 0) {
      const events = this.#waiting;
      this.#waiting = [];
      return { value: eventsFrame(events), done: false };
    }
    const end = this.#end;
    this.#leave();
    if (end?.error !== undefined) throw end.error;
    return { value: undefined, done: true };
  }

  #leave(): void {
    this.#end ??= {};
    this.#waiting = [];
    if (this.#hasLeft) return;
    this.#hasLeft = true;
    this.#onLeave();
  }
}

/** The same frames, once the first is there. @throws what the feed fails with before it */
export async function afterFirst(feed: EventFeed): Promise<AsyncIterable<Frame>> {
  const source = feed[Symbol.asyncIterator]();
  let first: IteratorResult<Frame> | undefined = await source.next();
  return {
    [Symbol.asyncIterator]: () => ({
      next() {
        const held = first;
        first = undefined;
        return held === undefined ? source.next() : Promise.resolve(held);
      },
      return: async () => (await source.return?.()) ?? { value: undefined, done: true },
    }),
  };
}
