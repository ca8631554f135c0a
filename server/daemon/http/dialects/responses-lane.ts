/** The events of one answer on their way into a WebSocket, no faster than its reader takes them. */
import type { WebSocket } from "ws";
import type { ResponseStream } from "./responses-stream.ts";

/** What waits for a reader that is slower than the model; then the model waits too. */
const MAX_UNSENT_BYTES = 1024 * 1024;

export class LaneWriter {
  readonly signal: AbortSignal;
  /** Set when the answer has begun: then its own events say how it fails. */
  stream: ResponseStream | undefined;
  readonly #socket: WebSocket;
  readonly #lane: string;
  #events: string[] = [];
  #sent: Promise<void> = Promise.resolve();

  constructor(socket: WebSocket, lane: string, signal: AbortSignal) {
    this.#socket = socket;
    this.#lane = lane;
    this.signal = signal;
  }

  add(json: string): void {
    this.#events.push(json);
  }

  /** Waits where the reader is behind. @throws the signal's reason */
  async flush(): Promise<void> {
    this.flushNow();
    if (this.#socket.bufferedAmount > MAX_UNSENT_BYTES) await this.#untilSent();
  }

  /** Waits until the last event was handed over: a daemon that stops does not take it from a reader that is slow. */
  async flushAll(): Promise<void> {
    this.flushNow();
    await this.#untilSent();
  }

  flushNow(): void {
    const events = this.#events;
    this.#events = [];
    for (const [index, json] of events.entries()) {
      const text = inLane(json, this.#lane);
      if (index < events.length - 1) this.#socket.send(text, ignoreClosed);
      else this.#sent = new Promise((resolve) => this.#socket.send(text, () => resolve()));
    }
  }

  #untilSent(): Promise<void> {
    const { signal } = this;
    const sent = this.#sent;
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason);
      if (signal.aborted) abort();
      signal.addEventListener("abort", abort, { once: true });
      void sent.then(() => {
        signal.removeEventListener("abort", abort);
        resolve();
      });
    });
  }
}

/** Whose socket has closed hears nothing more, and its answers are aborted by that. */
export const ignoreClosed = (): void => {};

/** An event as its lane's. */
export function inLane(json: string, lane: string): string {
  return lane === "" ? json : `${json.slice(0, json.lastIndexOf("}"))},"stream_id":${JSON.stringify(lane)}}`;
}
