/**
 * The HTTP requests that somebody works for: what a stopping daemon waits for, and cuts when it has waited long enough.
 * 1. A request counts until its last byte was handed over, so that a drain does not take it from a client that reads slowly.
 * 2. Its signal aborts when the client leaves before that (I11), or when the daemon stops.
 */
import type { ServerResponse } from "node:http";
import { type GhostError, OperationalError } from "../../base/errors.ts";

export class OpenRequests {
  readonly #open = new Map<object, AbortController>();
  #isDraining = false;

  /** No new work is taken any more. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  drain(): void {
    this.#isDraining = true;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Counts the request and gives its signal. Call it once for each. */
  track(raw: ServerResponse): AbortSignal {
    const controller = new AbortController();
    this.#open.set(raw, controller);
    raw.once("close", () => {
      this.#open.delete(raw);
      if (!raw.writableFinished) controller.abort(new OperationalError("cancelled", "the client went away"));
    });
    return controller.signal;
  }

  /** The same for work that has no response of its own, as on a WebSocket: it counts until it is disposed. */
  hold(): Disposable & { readonly controller: AbortController } {
    const controller = new AbortController();
    this.#open.set(controller, controller);
    return { controller, [Symbol.dispose]: () => void this.#open.delete(controller) };
  }

  /** Ends all of them: each answers its client with `reason`. */
  cut(reason: GhostError): void {
    for (const controller of this.#open.values()) controller.abort(reason);
  }
}
