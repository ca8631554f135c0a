/** How the daemon ends: it takes nothing new, lets open answers finish for a while, then takes everything down. */
import type { Clock } from "../base/clock.ts";
import type { DisposableStore } from "../base/disposable.ts";
import type { Log } from "../platform/log.ts";

/** Long enough for most answers to end by themselves; service managers wait 90 s before they kill. */
const DRAIN_MS = 10_000;
const DRAIN_CHECK_MS = 25;

export class Lifecycle {
  readonly #options: { readonly clock: Clock; readonly store: DisposableStore; readonly log: Log; readonly openAnswers: () => number };
  readonly #done = Promise.withResolvers<void>();
  readonly #drains: (() => void)[] = [];
  #isStopping = false;

  constructor(options: { readonly clock: Clock; readonly store: DisposableStore; readonly log: Log; readonly openAnswers: () => number }) {
    this.#options = options;
  }

  /** Resolves once everything is down. Never rejects. */
  get stopped(): Promise<void> {
    return this.#done.promise;
  }

  onDrain(drain: () => void): void {
    this.#drains.push(drain);
  }

  /** Begins to stop, once; returns the number of answers that are still open. */
  stop(): number {
    if (!this.#isStopping) {
      this.#isStopping = true;
      for (const drain of this.#drains) drain();
      void this.#takeDown();
    }
    return this.#options.openAnswers();
  }

  async #takeDown(): Promise<void> {
    const { clock, store, log, openAnswers } = this.#options;
    const until = clock.monotonic() + DRAIN_MS;
    log.info({ event: "daemon.draining", openAnswers: openAnswers() });
    // Always one turn: the reply to `daemon.stop` must leave before its socket closes.
    do await clock.sleep(DRAIN_CHECK_MS);
    while (openAnswers() > 0 && clock.monotonic() < until);
    log.info({ event: "daemon.stopped", cutAnswers: openAnswers() });
    try {
      await store[Symbol.asyncDispose]();
    } catch {
      // Each part was asked to stop and the process ends now; the log is closed already.
    }
    this.#done.resolve();
  }
}
