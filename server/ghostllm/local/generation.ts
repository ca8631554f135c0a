/**
 * An answer on its way from the engine to its reader.
 * While the reader is slow, pieces are joined: what waits is bounded by the answer itself, that is by the model's window.
 */
import type { EngineUsage } from "./engine-protocol.ts";

export type GenerationEvent =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "finished"; readonly reason: "stop" | "length"; readonly usage: EngineUsage };

export class GenerationStream implements AsyncIterable<GenerationEvent> {
  readonly #onLeave: () => void;
  #text = "";
  #end: { readonly finished: GenerationEvent } | { readonly error: unknown } | "read" | undefined;
  #wake: (() => void) | undefined;

  /** `onLeave` is called when the reader goes before the end. */
  constructor(onLeave: () => void) {
    this.#onLeave = onLeave;
  }

  pushText(text: string): void {
    if (this.#end !== undefined) return;
    this.#text += text;
    this.#wake?.();
  }

  finish(finished: GenerationEvent): void {
    if (this.#end !== undefined) return;
    this.#end = { finished };
    this.#wake?.();
  }

  /** What was not read yet is still read first, except after `drop`. */
  fail(error: unknown, unread: "keep" | "drop"): void {
    if (this.#end !== undefined && unread === "keep") return;
    if (unread === "drop") this.#text = "";
    this.#end = { error };
    this.#wake?.();
  }

  [Symbol.asyncIterator](): AsyncIterator<GenerationEvent> {
    return {
      next: () => this.#next(),
      return: async () => {
        const left = this.#end === undefined;
        this.#end = "read";
        if (left) this.#onLeave();
        return { value: undefined, done: true };
      },
    };
  }

  async #next(): Promise<IteratorResult<GenerationEvent>> {
    while (this.#text === "" && this.#end === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    if (this.#text !== "") {
      const text = this.#text;
      this.#text = "";
      return { value: { kind: "text", text }, done: false };
    }
    const end = this.#end;
    this.#end = "read";
    if (end === "read" || end === undefined) return { value: undefined, done: true };
    if ("error" in end) throw end.error;
    return { value: end.finished, done: false };
  }
}
