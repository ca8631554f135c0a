/**
 * How the daemon ends, in three steps: it takes nothing new and lets open answers finish for a while; it ends what is left with an error that its
 * client sees; it takes everything down.
 */
import type { Clock } from "../base/clock.ts";
import type { DisposableStore } from "../base/disposable.ts";
import { type GhostError, OperationalError } from "../base/errors.ts";
import type { Log } from "../platform/log.ts";

/** Long enough for most answers to end by themselves; service managers wait 90 s before they kill. */
export const DRAIN_MS = 10_000;
/** For the errors of what was cut to reach their clients; one that does not read is not waited for. */
const CUT_MS = 1_000;
const DRAIN_CHECK_MS = 25;

/** A front: something that has open work for clients. */
export interface Front {
  readonly open: () => number;
  /** Takes nothing new from now on. */
  readonly drain: () => void;
  /** Ends open work with this error. */
  readonly cut: (reason: GhostError) => void;
}

interface LifecycleOptions {
  readonly clock: Clock;
  readonly store: DisposableStore;
  readonly log: Log;
  readonly openAnswers: () => number;
}

export class Lifecycle {
  readonly #options: LifecycleOptions;
  readonly #done = Promise.withResolvers<void>();
  readonly #fronts: Front[] = [];
  #isStopping = false;

  constructor(options: LifecycleOptions) {
    this.#options = options;
  }

  /** Resolves once everything is down. Never rejects. */
  get stopped(): Promise<void> {
    return this.#done.promise;
  }

  add(front: Front): void {
    this.#fronts.push(front);
  }

  /** Begins to stop, once; returns the number of answers that are still open. */
  stop(): number {
    if (!this.#isStopping) {
      this.#isStopping = true;
      for (const front of this.#fronts) front.drain();
      void this.#takeDown();
    }
    return this.#options.openAnswers();
  }

  async #takeDown(): Promise<void> {
    const { store, log, openAnswers } = this.#options;
    log.info({ event: "daemon.draining", openAnswers: openAnswers() });
    await this.#untilIdle(DRAIN_MS);
    const cutAnswers = openAnswers();
    if (this.#open() > 0) {
      const reason = new OperationalError("daemon_stopping", "the daemon is shutting down");
      for (const front of this.#fronts) front.cut(reason);
      await this.#untilIdle(CUT_MS);
    }
    log.info({ event: "daemon.stopped", cutAnswers });
    try {
      await store[Symbol.asyncDispose]();
    } catch {
      // Each part was asked to stop and the process ends now; the log is closed already.
    }
    this.#done.resolve();
  }

  #open(): number {
    return this.#fronts.reduce((sum, front) => sum + front.open(), this.#options.openAnswers());
  }

  async #untilIdle(limitMs: number): Promise<void> {
    const { clock } = this.#options;
    const until = clock.monotonic() + limitMs;
    // Always one turn: the reply to `daemon.stop` must leave before its socket closes.
    do await clock.sleep(DRAIN_CHECK_MS);
    while (this.#open() > 0 && clock.monotonic() < until);
  }
}
