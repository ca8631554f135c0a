/**
 * Our own queue in front of one model on one host. Ollama queues without bound and without telling (facts: "Scheduler"), so the wait happens here,
 * where it is bounded, ordered and can be cancelled.
 * 1. Completions go before chats, chats before background work; inside a lane the first come goes first.
 * 2. Where there are several slots, one is kept free of chats and background work, so that a completion need not wait for them.
 * 3. A completion waits at most `MAX_COMPLETION_WAIT_MS` (I13); then another model is the better answer.
 */
import type { Clock } from "../../base/clock.ts";
import { onDispose } from "../../base/disposable.ts";
import { OperationalError } from "../../base/errors.ts";

export type Lane = "completion" | "chat" | "background";

/** Ghost text that comes later than this after the model could have begun is not looked at any more. */
const MAX_COMPLETION_WAIT_MS = 50;
/** Beyond this many waiting requests, the last in line would wait for hours; it is told so instead. */
const MAX_WAITING = 256;
const LANES: readonly Lane[] = ["completion", "chat", "background"];

interface Waiter {
  readonly lane: Lane;
  enter(): void;
}

export class SlotQueue {
  readonly #name: string;
  readonly #slots: number;
  readonly #clock: Clock;
  readonly #running: Record<Lane, number> = { completion: 0, chat: 0, background: 0 };
  #waiting: readonly Waiter[] = [];

  constructor(options: { readonly name: string; readonly slots: number; readonly clock: Clock }) {
    this.#name = options.name;
    this.#slots = options.slots;
    this.#clock = options.clock;
  }

  /**
   * Resolves with the slot; disposing it twice is harmless.
   * @throws OperationalError `overloaded` when too many wait, or a completion has waited too long; the signal's reason when it aborts.
   */
  async acquire(lane: Lane, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#waiting.length === 0 && this.#hasPlace(lane)) return this.#take(lane);
    if (this.#waiting.length >= MAX_WAITING) {
      throw new OperationalError("overloaded", `${MAX_WAITING} requests already wait for ${this.#name}`);
    }
    return new Promise<Disposable>((resolve, reject) => {
      const leave = (reason: unknown) => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        settle();
        // Whoever came behind may have a place that this one could not take.
        this.#admit();
        reject(
          reason instanceof Error
            ? reason
            : new OperationalError("cancelled", "the request was cancelled", { cause: reason }),
        );
      };
      const onAbort = () => leave(signal.reason);
      const limit =
        lane === "completion"
          ? this.#clock.after(MAX_COMPLETION_WAIT_MS, () =>
              leave(
                new OperationalError(
                  "overloaded",
                  `${this.#name} had no free slot within ${MAX_COMPLETION_WAIT_MS} ms`,
                ),
              ),
            )
          : undefined;
      const settle = () => {
        limit?.[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
      };
      const waiter: Waiter = {
        lane,
        enter: () => {
          settle();
          resolve(this.#take(lane));
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting = [...this.#waiting, waiter];
      this.#admit();
    });
  }

  #take(lane: Lane): Disposable {
    this.#running[lane] += 1;
    let held = true;
    return onDispose(() => {
      if (!held) return;
      held = false;
      this.#running[lane] -= 1;
      this.#admit();
    });
  }

  #admit(): void {
    for (const lane of LANES) {
      for (const waiter of this.#waiting.filter((other) => other.lane === lane)) {
        if (!this.#hasPlace(lane)) break;
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        waiter.enter();
      }
    }
  }

  #hasPlace(lane: Lane): boolean {
    const slow = this.#running.chat + this.#running.background;
    if (slow + this.#running.completion >= this.#slots) return false;
    return lane === "completion" || slow < Math.max(1, this.#slots - 1);
  }
}
