/**
 * One question at a time in a session: a second one would fork from half an answer that nobody has read.
 * 1. A turn belongs to its session until it is disposed, that is until its answer is over and recorded.
 * 2. Who comes meanwhile waits a moment, since an answer that was just cancelled needs one to end, and is then refused with `session_busy`.
 * 3. Sessions of different users never meet, even under one id (I15).
 */
import type { SessionId, UserId } from "../../protocol/ids.ts";
import type { Clock } from "../base/clock.ts";
import { onDispose } from "../base/disposable.ts";
import { OperationalError } from "../base/errors.ts";

/** Long enough for a cancelled answer to end on a busy machine; whoever asks into one that goes on is told soon. */
const WAIT_MS = 2_000;

export interface Turn extends Disposable {
  /** For a new session, which is known only once its answer has begun. No change where it was known before. */
  enter(sessionId: SessionId): void;
}

export class SessionTurns {
  readonly #clock: Clock;
  /** By session: what tells that its turn is over. */
  readonly #open = new Map<string, PromiseWithResolvers<void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws OperationalError `session_busy`, and the signal's reason. */
  async begin(userId: UserId, sessionId: SessionId | undefined, signal: AbortSignal): Promise<Turn> {
    const turn = new OpenTurn(this.#open, userId);
    if (sessionId === undefined) return turn;
    signal.throwIfAborted();
    const isUp = Promise.withResolvers<never>();
    isUp.promise.catch(() => {}); // Whoever waits hears of it; nobody has to.
    using _timer = this.#clock.after(WAIT_MS, () => isUp.reject(sessionBusy(sessionId)));
    const abort = () => isUp.reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    using _listening = onDispose(() => signal.removeEventListener("abort", abort));
    const key = keyOf(userId, sessionId);
    for (let before = this.#open.get(key); before !== undefined; before = this.#open.get(key)) {
      await Promise.race([before.promise, isUp.promise]);
    }
    // In the same turn in which it was found free: of several who wait, one enters.
    turn.enter(sessionId);
    return turn;
  }
}

class OpenTurn implements Turn {
  readonly #open: Map<string, PromiseWithResolvers<void>>;
  readonly #userId: UserId;
  readonly #over = Promise.withResolvers<void>();
  #key: string | undefined;

  constructor(open: Map<string, PromiseWithResolvers<void>>, userId: UserId) {
    this.#open = open;
    this.#userId = userId;
  }

  enter(sessionId: SessionId): void {
    this.#key ??= keyOf(this.#userId, sessionId);
    this.#open.set(this.#key, this.#over);
  }

  [Symbol.dispose](): void {
    if (this.#key !== undefined) this.#open.delete(this.#key);
    this.#over.resolve();
  }
}

export function sessionBusy(sessionId: SessionId): OperationalError {
  return new OperationalError("session_busy", `an answer is still being written in the session ${sessionId}`, {
    details: { sessionId },
  });
}

function keyOf(userId: UserId, sessionId: SessionId): string {
  return `${sessionId} ${userId}`;
}
