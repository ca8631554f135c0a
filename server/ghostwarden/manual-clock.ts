/** For tests: a clock that stands still until it is advanced, and then calls back what came due, in order. */
import type { Clock } from "../base/clock.ts";
import { onDispose } from "../base/disposable.ts";

interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

export class ManualClock implements Clock {
  #nowMs = 1_800_000_000_000;
  readonly #timers = new Set<Timer>();

  /** How many timers are running. */
  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Disposable {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return onDispose(() => this.#timers.delete(timer));
  }

  every(): Disposable {
    throw new Error("ManualClock has no periods");
  }

  sleep(): Promise<void> {
    throw new Error("ManualClock does not sleep");
  }

  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).toSorted((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#nowMs = due.atMs;
      this.#timers.delete(due);
      due.callback();
    }
    this.#nowMs = untilMs;
  }
}
