/**
 * Events of an answer that are pushed to us, by a program that knows no backpressure, for a reader who takes them when it can.
 * What waits is handed out as one frame, so that a slow reader catches up; it is bounded by the answer itself.
 */
import { type GhostError, OperationalError } from "../../base/errors.ts";
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
    // It is thrown once.
    this.#end = {};
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

/** Frames before the first content: more than this is no answer. */
const MAX_EMPTY_FRAMES = 1_000;

/** The same frames, once the first content is there, so that nothing is promised before it. @throws what the feed fails with until then */
export async function afterFirst(feed: EventFeed): Promise<AsyncIterable<Frame>> {
  const source = feed[Symbol.asyncIterator]();
  const held: IteratorResult<Frame>[] = [];
  for (;;) {
    const next = await source.next();
    held.push(next);
    if (next.done === true || next.value.events().some(({ kind }) => kind !== "usage")) break;
    if (held.length <= MAX_EMPTY_FRAMES) continue;
    await source.return?.();
    throw new OperationalError("upstream_failed", `${MAX_EMPTY_FRAMES} events came without content`);
  }
  return {
    [Symbol.asyncIterator]: () => ({
      next() {
        const first = held.shift();
        return first === undefined ? source.next() : Promise.resolve(first);
      },
      return: async () => (await source.return?.()) ?? { value: undefined, done: true },
    }),
  };
}
