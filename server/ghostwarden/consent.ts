/**
 * Open questions and their answers.
 * 1. A question ends exactly once: by the first answer of a face of the same user, by withdrawal of its actor, or by expiry, which counts as no.
 *    Whoever comes later learns how it ended. A face that leaves or fails abstains.
 * 2. Faces see and answer the questions of their own user only (I15).
 * 3. A question that nobody can see is not asked: without a face it is answered no at once, because waiting would only look like hanging.
 */
import type { z } from "zod";
import type {
  Approval,
  ApprovalOutcome,
  approvalRespondParams,
  ApprovalRespondResult,
  ApprovalWatchUpdate,
} from "../../protocol/approval.ts";
import { type ApprovalId, approvalIdSchema, type ClientId, type UserId } from "../../protocol/ids.ts";
import { BoundedQueue } from "../base/bounded-queue.ts";
import type { Clock, Ids } from "../base/clock.ts";
import { OperationalError, UserError } from "../base/errors.ts";
import { escapeControls } from "../base/text.ts";

/** Long enough to notice a question in another window and read a diff; an actor that waits longer holds its request, and perhaps a GPU, for nothing. */
export const CONSENT_WAIT_MS = 120_000;
/** Nobody reads more open questions than these; without a bound a runaway agent fills memory and every screen. */
export const MAX_OPEN_QUESTIONS = 32;
/** Endings that are remembered for those who answer late; after so many newer ones, a late answer gets `approval_not_found`. */
const MAX_REMEMBERED = 1000;
/** Updates that wait for one slow face; beyond, its watch fails with `overloaded`, and watching again begins with what is open. */
const MAX_UNREAD_UPDATES = 256;
/** One screen. The reason is the actor's own text, and may be a model's. */
const MAX_REASON_CHARACTERS = 2000;
const MAX_ACTOR_CHARACTERS = 200;

export interface Question {
  readonly userId: UserId;
  readonly actor: string;
  readonly reason: string;
  /** Shown in full: whoever asks bounds them. What is left out of a question was not consented to. */
  readonly effects: readonly string[];
}

/** How a question ended. `unattended` and `overloaded` ones were never asked. */
export type Answer =
  | { readonly kind: ApprovalOutcome; readonly by: ClientId }
  | { readonly kind: "expired" | "withdrawn" | "unattended" | "overloaded" };

interface Responder {
  readonly userId: UserId;
  readonly client: ClientId;
}

interface OpenQuestion {
  readonly userId: UserId;
  readonly approval: Approval;
  settle(answer: Answer): void;
}

interface Ending {
  readonly userId: UserId;
  readonly answer: Answer;
  readonly atMs: number;
}

export class ConsentDesk implements Disposable {
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #open = new Map<ApprovalId, OpenQuestion>();
  readonly #endings = new Map<ApprovalId, Ending>();
  readonly #watchers = new Map<UserId, Set<BoundedQueue<ApprovalWatchUpdate>>>();
  #disposed = false;

  constructor(options: { readonly clock: Clock; readonly ids: Ids }) {
    this.#clock = options.clock;
    this.#ids = options.ids;
  }

  /** Asks the user's faces and waits for the first answer, at most `CONSENT_WAIT_MS`. Never rejects. */
  ask(question: Question, signal: AbortSignal): Promise<Answer> {
    if (signal.aborted || this.#disposed) return Promise.resolve({ kind: "withdrawn" });
    const { userId } = question;
    if ((this.#watchers.get(userId)?.size ?? 0) === 0) return Promise.resolve({ kind: "unattended" });
    if (this.#openOf(userId).length >= MAX_OPEN_QUESTIONS) return Promise.resolve({ kind: "overloaded" });
    const askedAtMs = this.#clock.now();
    const approval: Approval = {
      id: approvalIdSchema.parse(this.#ids.next("apr")),
      actor: forScreen(question.actor, MAX_ACTOR_CHARACTERS),
      reason: forScreen(question.reason, MAX_REASON_CHARACTERS),
      effects: question.effects.map((effect) => escapeInvisible(effect)),
      askedAtMs,
      expiresAtMs: askedAtMs + CONSENT_WAIT_MS,
    };
    return new Promise((resolve) => {
      const settle = (answer: Answer) => {
        if (!this.#open.delete(approval.id)) return;
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", withdraw);
        this.#remember(approval.id, { userId, answer, atMs: this.#clock.now() });
        this.#announce(userId, settled(approval.id, answer));
        resolve(answer);
      };
      const withdraw = () => settle({ kind: "withdrawn" });
      const timer = this.#clock.after(CONSENT_WAIT_MS, () => settle({ kind: "expired" }));
      signal.addEventListener("abort", withdraw, { once: true });
      this.#open.set(approval.id, { userId, approval, settle });
      this.#announce(userId, { kind: "asked", approval });
    });
  }

  /**
   * One compare-and-set: looked up and settled in one turn, so that of two answers one is the first.
   * @throws UserError `approval_not_found` for an id that never was, is long forgotten, or belongs to another user.
   */
  respond(params: z.infer<typeof approvalRespondParams>, by: Responder): ApprovalRespondResult {
    const open = this.#open.get(params.id);
    if (open !== undefined && open.userId === by.userId) {
      open.settle({ kind: params.outcome, by: by.client });
      return { kind: "accepted" };
    }
    const ending = this.#endings.get(params.id);
    if (ending === undefined || ending.userId !== by.userId) {
      throw new UserError("approval_not_found", `there is no question ${params.id}`, { details: { id: params.id } });
    }
    const { answer, atMs } = ending;
    if (!("by" in answer)) return { kind: "expired" };
    return { kind: "alreadyAnswered", by: answer.by, atMs, outcome: answer.kind };
  }

  /** The user's open questions, then every change. The caller counts as a face from this call on, until it leaves the loop or aborts. */
  watch(userId: UserId, signal: AbortSignal): AsyncIterable<ApprovalWatchUpdate> {
    const queue = new BoundedQueue<ApprovalWatchUpdate>({ limit: MAX_UNREAD_UPDATES });
    const leave = this.#attach(userId, queue, signal);
    return {
      [Symbol.asyncIterator]: () => {
        const iterator = queue[Symbol.asyncIterator]();
        return {
          next: () => iterator.next(),
          return: async () => {
            leave();
            return (await iterator.return?.()) ?? { value: undefined, done: true };
          },
        };
      },
    };
  }

  /** Withdraws every open question and ends every watch. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const open of this.#open.values()) open.settle({ kind: "withdrawn" });
    for (const queue of [...this.#watchers.values()].flatMap((queues) => [...queues])) queue.close();
    this.#watchers.clear();
  }

  /** Returns how to leave again. */
  #attach(userId: UserId, queue: BoundedQueue<ApprovalWatchUpdate>, signal: AbortSignal): () => void {
    if (this.#disposed) queue.close();
    else if (signal.aborted) queue.fail(cancelled(signal));
    if (this.#disposed || signal.aborted) return () => {};
    const queues = this.#watchers.get(userId) ?? new Set();
    queues.add(queue);
    this.#watchers.set(userId, queues);
    const leave = () => {
      queues.delete(queue);
      signal.removeEventListener("abort", abort);
    };
    const abort = () => {
      leave();
      queue.fail(cancelled(signal));
    };
    signal.addEventListener("abort", abort, { once: true });
    for (const { approval } of this.#openOf(userId)) queue.push({ kind: "asked", approval });
    return leave;
  }

  #openOf(userId: UserId): readonly OpenQuestion[] {
    return [...this.#open.values()].filter((open) => open.userId === userId);
  }

  #announce(userId: UserId, update: ApprovalWatchUpdate): void {
    const queues = this.#watchers.get(userId);
    for (const queue of queues ?? []) {
      if (queue.push(update)) continue;
      queues?.delete(queue);
      queue.fail(new OperationalError("overloaded", "this face reads the questions of GhostWarden too slowly"));
    }
  }

  #remember(id: ApprovalId, ending: Ending): void {
    this.#endings.set(id, ending);
    if (this.#endings.size <= MAX_REMEMBERED) return;
    for (const oldest of this.#endings.keys()) {
      this.#endings.delete(oldest);
      return;
    }
  }
}

function settled(id: ApprovalId, answer: Answer): ApprovalWatchUpdate {
  if ("by" in answer) return { kind: "settled", id, outcome: answer.kind, by: answer.by };
  return { kind: "settled", id, outcome: answer.kind === "expired" ? "expired" : "withdrawn" };
}

/** Text of an actor, cut to what a person reads; line ends stay. */
function forScreen(text: string, maxCharacters: number): string {
  const cut = text.length > maxCharacters ? `${text.slice(0, maxCharacters)}…` : text;
  return cut.split("\n").map(escapeInvisible).join("\n");
}

/** Control characters and those that only steer the display (direction marks, zero-width ones) become visible: nothing looks like something else. */
function escapeInvisible(text: string): string {
  return escapeControls(text).replace(
    /[\p{Cf}\u2028\u2029]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16) ?? ""}}`,
  );
}

function cancelled(signal: AbortSignal): OperationalError {
  return new OperationalError("cancelled", "the watch was cancelled", { cause: signal.reason });
}
