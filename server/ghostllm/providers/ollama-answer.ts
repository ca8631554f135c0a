/**
 * One answer of an Ollama host, from its response's head to its end.
 * 1. It comes to its end only after a `done` line, or after an `error` event; a connection that ends otherwise throws.
 * 2. The slot is given back the moment the answer is over, whether or not anyone reads on, and the connection is let go for reuse.
 */
import type { Clock } from "../../base/clock.ts";
import { OperationalError } from "../../base/errors.ts";
import type { HttpResponse } from "../../platform/http-client.ts";
import { OllamaFrames } from "../frames/ollama.ts";
import type { Frame, StreamEvent } from "../stream.ts";

/** Frames before the first content; Ollama sends none or one. More than this is not an answer. */
const MAX_EMPTY_FRAMES = 1000;
/** After the last line only the end of the HTTP body is missing. A server that holds it back loses the connection instead. */
const DRAIN_LIMIT_MS = 1000;

export class OllamaAnswer implements AsyncIterable<Frame> {
  readonly #body: AsyncIterator<Buffer>;
  readonly #frames: OllamaFrames;
  readonly #clock: Clock;
  readonly #onOver: () => void;
  readonly #held: Frame[] = [];
  #over = false;

  constructor(options: {
    readonly response: HttpResponse;
    readonly clock: Clock;
    readonly newCallId: () => string;
    /** Called once, as soon as nothing more is expected from the host. */
    readonly onOver: () => void;
  }) {
    this.#body = options.response.body[Symbol.asyncIterator]();
    this.#frames = new OllamaFrames(options.newCallId);
    this.#clock = options.clock;
    this.#onOver = options.onOver;
  }

  /**
   * The first-chunk gate: resolves when the first frame with content is there; it is kept for the reader.
   * @throws OperationalError when the answer fails before that.
   */
  async untilContent(): Promise<void> {
    for (let empty = 0; empty < MAX_EMPTY_FRAMES; empty += 1) {
      const frame = await this.#read();
      if (frame === undefined) throw new OperationalError("upstream_failed", "the Ollama host answered nothing");
      const [first] = frame.events();
      if (first?.kind === "error") throw new OperationalError("upstream_failed", first.error.message);
      this.#held.push(frame);
      if (frame.events().some(isContent)) return;
    }
    await this.leave();
    throw new OperationalError("upstream_failed", `the Ollama host sent ${MAX_EMPTY_FRAMES} lines without content`);
  }

  /** Ends the upstream's work. Harmless after the end. */
  async leave(): Promise<void> {
    this.#held.length = 0;
    const wasOver = this.#over;
    this.#finish();
    if (!wasOver) await this.#body.return?.();
  }

  [Symbol.asyncIterator](): AsyncIterator<Frame> {
    return {
      next: async () => {
        const frame = this.#held.shift() ?? (await this.#read());
        return frame === undefined ? { value: undefined, done: true } : { value: frame, done: false };
      },
      return: async () => {
        await this.leave();
        return { value: undefined, done: true };
      },
    };
  }

  /** The next frame, or undefined after the end. */
  async #read(): Promise<Frame | undefined> {
    while (!this.#over) {
      const frame = await this.#readChunk();
      if (frame === undefined) continue;
      if (this.#frames.state === "done") {
        this.#finish();
        void this.#drain();
      } else if (this.#frames.state === "failed") await this.leave();
      return frame;
    }
    return undefined;
  }

  async #readChunk(): Promise<Frame | undefined> {
    try {
      const chunk = await this.#body.next();
      if (chunk.done !== true) return this.#frames.push(chunk.value);
      this.#frames.end();
      return undefined;
    } catch (error) {
      await this.leave();
      throw error;
    }
  }

  /** Reads the body to its end, so that the connection can be used again. */
  async #drain(): Promise<void> {
    using _limit = this.#clock.after(DRAIN_LIMIT_MS, () => void this.#body.return?.());
    try {
      while ((await this.#body.next()).done !== true);
    } catch {
      // The answer is whole; how its connection ends concerns nobody.
    }
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#onOver();
  }
}

function isContent(event: StreamEvent): boolean {
  return event.kind === "text" || event.kind === "reasoning" || event.kind === "toolCall" || event.kind === "finish";
}
