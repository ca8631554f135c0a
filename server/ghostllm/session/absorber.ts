/**
 * Brings what was spooled into SQLite, off the hot path: decodes frames in short slices, keeps what each open answer has said since it was last
 * stored, and commits changes in batches.
 * 1. One loop does everything in the order of the spool; nothing is decoded while a batch is being written, so a batch is one consistent state.
 * 2. An answer is written within `END_DELAY_MS` of its end, when `CHUNK_LENGTH` of it are not stored yet, and while it streams every `LIVE_PERIOD_MS`;
 *    everything is written at once when somebody asks (`drain`).
 * 3. What is stored is released from the spool afterwards; each answer's row names its last contained record, so that a crash between the two is
 *    harmless.
 * 4. A full disk is waited out. A batch that fails otherwise is tried answer by answer; one that still fails is given up, loudly, and holds nobody up.
 */
import type { AnswerId, SessionId } from "../../../protocol/ids.ts";
import type { Clock, Ids } from "../../base/clock.ts";
import { OperationalError, toGhostError } from "../../base/errors.ts";
import type { Log } from "../../platform/log.ts";
import type { Position, Spool } from "../../platform/spool.ts";
import type { StreamEvent } from "../stream.ts";
import { addEvent, deltaLength, emptyDelta } from "./answer-delta.ts";
import type { ContextBuffer } from "./context-buffer.ts";
import { type LiveAnswer, type Opening, openingOf, planBatch, wantedPrefixes } from "./placement.ts";
import type { Request, Tracked } from "./tracked.ts";
import type { Opened, Outcome } from "./transcript-record.ts";

/** Frames wait this long for company: one wake-up then serves many streams. */
const GATHER_MS = 10;
/** A slice of work: well below the 2 ms that anything may hold the main thread. */
const SLICE_MS = 1;
/** The same when records come faster than they are stored, up to that limit. */
const PRESSED_SLICE_MS = 1.8;
/** An answer that has ended waits this long for others to share its transaction; it is safe in the spool, and who asks does not wait. */
const END_DELAY_MS = 50;
/** How often growing answers are stored: bounds what a boot after a crash replays, and how far a reader lags. */
const LIVE_PERIOD_MS = 1_000;
/** The same while somebody watches an answer grow. */
const WATCHED_PERIOD_MS = 100;
/** An answer with this much unstored text is stored at once: bounds the memory of one stream. */
const CHUNK_LENGTH = 64 * 1024;
/** Answers, and characters of them, in one batch. A batch costs some ten turns of a busy loop (20 ms) before its first row: many small ones would fall
 * behind. The second is for when records come faster than they are stored; its transaction takes about 0.2 s, away from the main thread. */
const MAX_BATCH_ANSWERS = 256;
const PRESSED_BATCH_ANSWERS = 1_024;
const MAX_BATCH_LENGTH = 512 * 1024;
/** Bytes of frames, requests and text that wait for SQLite. Beyond it a stalled disk would take the whole process down. */
const MAX_HELD_BYTES = 64 * 1024 * 1024;
/** What a waiting record takes besides its bytes, roughly. */
const RECORD_OVERHEAD_BYTES = 512;
/** Beyond this a new answer waits before it begins, so that a client that asks without end is slowed to what can be stored, and those that stream have
 * the rest of the room. */
const MAX_HELD_FOR_NEW_BYTES = 32 * 1024 * 1024;
/** A disk that makes nobody's room for this long has stalled: who waits is better told. */
const ROOM_WAIT_MS = 5_000;
/** Each who waits holds a connection and a body. */
const MAX_WAITING = 4_096;
/** Requests waiting to be attached hold their bodies; this much of them is stored without waiting for the period. */
const EAGER_HELD_BYTES = 4 * 1024 * 1024;
const RETRY_MS = 1_000;
/** A batch of one that failed this often will not succeed: it is our fault, and what follows must not wait for it. */
const MAX_ATTEMPTS = 3;

export type Change =
  | { readonly kind: "begin"; readonly request: Request | undefined }
  | { readonly kind: "opened"; readonly opened: Opened }
  | { readonly kind: "frame"; readonly events: () => readonly StreamEvent[] }
  | { readonly kind: "end"; readonly outcome: Outcome | { readonly state: "interrupted" }; readonly atMs: number };

interface Item {
  readonly answer: Tracked;
  readonly change: Change;
  readonly position: Position;
  readonly sizeBytes: number;
}

export interface AbsorberOptions {
  readonly buffer: ContextBuffer;
  readonly spool: Spool;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Log;
  /** The highest revision in the store. */
  readonly revision: number;
  /** Called after each commit with the sessions that changed. */
  readonly onChanged: (sessions: ReadonlySet<SessionId>) => void;
  readonly isWatched: (session: SessionId) => boolean;
}

export class Absorber {
  readonly #options: AbsorberOptions;
  readonly #live = new Map<AnswerId, Tracked>();
  /** Answers with something to store, in the order in which they got it. */
  readonly #dirty = new Set<Tracked>();
  #queue: Item[] = [];
  #taken = 0;
  #revision: number;
  #heldBytes = 0;
  /** When the next batch is to be written, apart from growing answers; infinite when nothing waits. */
  #dueAtMs = Number.POSITIVE_INFINITY;
  #drains: { readonly mine: (answer: Tracked) => boolean; resolve(): void; reject(error: unknown): void }[] = [];
  #jobs: (() => Promise<void>)[] = [];
  /** Those who wait for room, oldest first. */
  readonly #waiting = new Set<() => void>();
  #storedAtMs: number;
  #retryAtMs = 0;
  /** The batch that is being written. */
  #storing: ReadonlySet<Tracked> = new Set();
  #wake: (() => void) | undefined;
  #stopped = false;
  readonly #running: Promise<void>;

  constructor(options: AbsorberOptions) {
    this.#options = options;
    this.#revision = options.revision;
    this.#storedAtMs = options.clock.monotonic();
    this.#running = this.#run();
  }

  get revision(): number {
    return this.#revision;
  }

  /** Answers that have not ended, or whose end is not stored yet. */
  find(answerId: AnswerId): Tracked | undefined {
    return this.#live.get(answerId);
  }

  get live(): Iterable<Tracked> {
    return this.#live.values();
  }

  track(answer: Tracked): void {
    this.#live.set(answer.answerId, answer);
  }

  /** @throws OperationalError `overloaded` when too much waits for SQLite; call it before spooling. */
  checkRoom(sizeBytes: number): void {
    if (this.#heldBytes + sizeBytes > MAX_HELD_BYTES) throw overloaded();
  }

  /** Undefined where an answer may begin; else resolves when it may. @throws OperationalError `overloaded` after `ROOM_WAIT_MS`. */
  roomForNew(): Promise<void> | undefined {
    if (this.#heldBytes <= MAX_HELD_FOR_NEW_BYTES || this.#stopped) return undefined;
    if (this.#waiting.size >= MAX_WAITING) return Promise.reject(overloaded());
    return new Promise((resolve, reject) => {
      const proceed = () => {
        timer[Symbol.dispose]();
        this.#waiting.delete(proceed);
        resolve();
      };
      const timer = this.#options.clock.after(ROOM_WAIT_MS, () => {
        this.#waiting.delete(proceed);
        reject(overloaded());
      });
      this.#waiting.add(proceed);
    });
  }

  /** Takes over what was just spooled. */
  push(answer: Tracked, change: Change, position: Position, bodyBytes: number): void {
    const sizeBytes = bodyBytes + RECORD_OVERHEAD_BYTES;
    this.#heldBytes += sizeBytes;
    if (change.kind === "frame") answer.waitingBytes += bodyBytes;
    this.#queue.push({ answer, change, position, sizeBytes });
    if (this.#queue.length === 1) this.#wake?.();
  }

  /** Leaves out an answer whose question was refused after all; false where it is on its way into SQLite, or there. */
  drop(answer: Tracked): boolean {
    if (answer.isStored || this.#storing.has(answer)) return false;
    answer.isDropped = true;
    if (answer.request?.large !== undefined) this.#removeLarge(answer.request.large);
    if (this.#dirty.has(answer)) this.#forget(answer);
    else this.#live.delete(answer.answerId);
    const refused = new OperationalError("storage_full", `${answer.answerId} was refused, and is not kept`);
    for (const settle of answer.onSettled) settle(refused);
    return true;
  }

  /** Resolves when everything pushed before is decoded and stored, of answers that have not ended only `mine`. */
  drain(mine: (answer: Tracked) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#drains.push({ mine, resolve, reject });
      this.#wake?.();
    });
  }

  /** Runs `job` between two batches. */
  exclusively<Result>(job: () => Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#jobs.push(() => job().then(resolve, reject));
      this.#wake?.();
    });
  }

  /** Stores what is left and stops. What cannot be stored stays in the spool. */
  async stop(): Promise<void> {
    if (!this.#stopped) {
      await this.drain(() => true).catch((error: unknown) => {
        this.#options.log.error({ event: "transcript.left_in_spool", error });
      });
      this.#stopped = true;
      this.#wake?.();
    }
    await this.#running;
    this.#admit();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      await this.#pause();
      try {
        await this.#step();
      } catch (error) {
        // Nothing here is expected to throw; the loop must live on all the same.
        this.#options.log.error({ event: "transcript.failed", error: toGhostError(error) });
        this.#retryAtMs = this.#options.clock.monotonic() + RETRY_MS;
        this.#failDrains(error);
      }
      this.#admit();
    }
  }

  async #step(): Promise<void> {
    for (let job = this.#jobs.shift(); job !== undefined; job = this.#jobs.shift()) await job();
    // Those who ask from here on may mean records that this step does not see.
    const drains = this.#drains;
    this.#drains = [];
    const isDraining = drains.length > 0;
    try {
      const until = isDraining ? this.#queue.at(-1) : undefined;
      await this.#decode(until);
      const { clock } = this.#options;
      const now = clock.monotonic();
      const isLate = now - this.#storedAtMs >= this.#period();
      const isDue = now >= this.#retryAtMs && (isLate || now >= this.#dueAtMs || this.#isPressed);
      if ((isDraining || isDue) && this.#dirty.size > 0) {
        await this.#store((answer) => isLate || drains.some(({ mine }) => mine(answer)));
        if (isLate) this.#storedAtMs = clock.monotonic();
      }
      for (const { resolve } of drains) resolve();
    } catch (error) {
      for (const { reject } of drains) reject(error);
      if (!isDraining) throw error;
    }
    this.#release();
  }

  /** Waits until there is something to do: at once for who asks, else gathered. */
  async #pause(): Promise<void> {
    const { clock } = this.#options;
    const isAsked = () => this.#drains.length > 0 || this.#jobs.length > 0 || this.#stopped;
    if (isAsked()) return;
    if (this.#queue.length > 0) {
      // What a slice left over goes on as soon as others had their turn.
      await clock.sleep(0);
      return;
    }
    const now = clock.monotonic();
    const dueAtMs = Math.min(this.#storedAtMs + this.#period(), this.#dueAtMs);
    await this.#sleep(this.#dirty.size > 0 ? Math.max(dueAtMs - now, this.#retryAtMs - now, 0) : undefined);
    // A first record wakes the loop; its companions are a few milliseconds behind.
    if (!isAsked() && this.#queue.length > 0) await this.#sleep(GATHER_MS);
  }

  async #sleep(delayMs: number | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = delayMs === undefined ? undefined : this.#options.clock.after(delayMs, resolve);
      this.#wake = () => {
        timer?.[Symbol.dispose]();
        resolve();
      };
    });
    this.#wake = undefined;
  }

  #period(): number {
    for (const { place, request } of this.#dirty) {
      // A question that is not attached yet names its session where a face asked it.
      const sessionId = place?.sessionId ?? request?.sessionId ?? null;
      if (sessionId !== null && this.#options.isWatched(sessionId)) return WATCHED_PERIOD_MS;
    }
    return LIVE_PERIOD_MS;
  }

  /**
   * Decodes in slices: for `drain` all up to and with `until`; else what is there, or as much as makes a batch. An answer that has become long ends it
   * too, and is stored before it grows on: what is built and bound for one answer stays small.
   */
  async #decode(until: Item | undefined): Promise<void> {
    const last = until ?? this.#queue.at(-1);
    let ended = 0;
    const breathe = this.#slices();
    for (let item = this.#queue[this.#taken]; item !== undefined; item = this.#queue[this.#taken]) {
      this.#taken += 1;
      this.#heldBytes -= item.sizeBytes;
      if (item.change.kind === "frame") item.answer.waitingBytes -= item.sizeBytes - RECORD_OVERHEAD_BYTES;
      this.#apply(item);
      if (item === last) break;
      if (item.change.kind === "end") ended += 1;
      // Those that are still open come on top.
      const isEnough = ended >= (this.#batchAnswers() * 2) / 3 || deltaLength(item.answer.delta) >= CHUNK_LENGTH;
      if (until === undefined && isEnough) break;
      const breath = breathe();
      if (breath !== undefined) await breath;
    }
    if (this.#taken === this.#queue.length) this.#queue = [];
    else if (this.#taken > 0) this.#queue = this.#queue.slice(this.#taken);
    this.#taken = 0;
  }

  get #isPressed(): boolean {
    return this.#heldBytes > EAGER_HELD_BYTES;
  }

  #batchAnswers(): number {
    return this.#isPressed ? PRESSED_BATCH_ANSWERS : MAX_BATCH_ANSWERS;
  }

  /** To be called between two pieces of work: gives others their turn when a slice is over. */
  #slices(): () => Promise<void> | undefined {
    const { clock } = this.#options;
    const start = () => clock.monotonic() + (this.#isPressed ? PRESSED_SLICE_MS : SLICE_MS);
    let end = start();
    return () =>
      clock.monotonic() < end
        ? undefined
        : clock.sleep(0).then(() => {
            end = start();
          });
  }

  #apply({ answer, change, position }: Item): void {
    if (answer.isDropped) {
      if (change.kind === "begin" && change.request?.large !== undefined) this.#removeLarge(change.request.large);
      return;
    }
    if (this.#dirty.size === 0) this.#storedAtMs = this.#options.clock.monotonic();
    answer.absorbed = position;
    answer.unstoredFrom ??= position;
    this.#dirty.add(answer);
    switch (change.kind) {
      case "begin":
        answer.request = change.request;
        this.#heldBytes += change.request?.sizeBytes ?? 0;
        return;
      case "opened":
        answer.model = change.opened.model;
        answer.decision = change.opened.decision;
        return;
      case "frame":
        this.#applyFrame(answer, change.events);
        return;
      case "end":
        // An in-band error is a failure, however cleanly the stream ended afterwards.
        answer.state =
          change.outcome.state === "complete" && answer.findings.error !== undefined ? "failed" : change.outcome.state;
        answer.failure = change.outcome.state === "failed" ? change.outcome.error : null;
        answer.endedAtMs = change.atMs;
        this.#dueWithin(END_DELAY_MS);
        return;
    }
  }

  #applyFrame(answer: Tracked, events: () => readonly StreamEvent[]): void {
    try {
      for (const event of events()) this.#heldBytes += addEvent(answer.delta, answer.findings, event);
    } catch (error) {
      this.#options.log.error({ event: "transcript.frame_unreadable", answer: answer.answerId, error });
    }
    if (deltaLength(answer.delta) >= CHUNK_LENGTH) this.#dueWithin(0);
  }

  #dueWithin(delayMs: number): void {
    this.#dueAtMs = Math.min(this.#dueAtMs, this.#options.clock.monotonic() + delayMs);
  }

  /** Stores all requests and ends, and of growing answers those that are long or `wanted`. */
  async #store(wanted: (answer: Tracked) => boolean): Promise<void> {
    this.#dueAtMs = Number.POSITIVE_INFINITY;
    const due = [...this.#dirty].filter(
      (answer) =>
        answer.state !== "streaming" ||
        answer.request !== undefined ||
        deltaLength(answer.delta) >= CHUNK_LENGTH ||
        wanted(answer),
    );
    for (let next = 0; next < due.length; ) {
      const batch: Tracked[] = [];
      let length = 0;
      for (; next < due.length && batch.length < this.#batchAnswers() && length < MAX_BATCH_LENGTH; next += 1) {
        const answer = due[next];
        if (answer === undefined) break;
        if (answer.isDropped) continue;
        batch.push(answer);
        length += deltaLength(answer.delta) + (answer.request?.sizeBytes ?? 0);
      }
      await this.#storeOrSplit(batch);
    }
  }

  /** (4) */
  async #storeOrSplit(batch: readonly Tracked[]): Promise<void> {
    try {
      await this.#storeBatch(batch);
      return;
    } catch (error) {
      this.#postponeWhenNotOurs(error);
      this.#options.log.warn({ event: "transcript.batch_failed", answers: batch.length, error });
    }
    for (const answer of batch) {
      if (answer.isDropped) continue;
      try {
        await this.#storeBatch([answer]);
      } catch (error) {
        this.#postponeWhenNotOurs(error);
        answer.attempts += 1;
        this.#dueWithin(RETRY_MS);
        if (answer.attempts < MAX_ATTEMPTS) continue;
        this.#options.log.error({ event: "transcript.answer_lost", answer: answer.answerId, error });
        this.#forget(answer);
        for (const settle of answer.onSettled)
          settle(new OperationalError("database_unreadable", `${answer.answerId} could not be stored`));
      }
    }
  }

  /** The machine's failures (disk full, file locked) are rethrown: everything waits and is tried again. Ours are not. */
  #postponeWhenNotOurs(error: unknown): void {
    if (toGhostError(error).family === "bug") return;
    this.#retryAtMs = this.#options.clock.monotonic() + RETRY_MS;
    this.#dueWithin(RETRY_MS);
    throw error;
  }

  async #storeBatch(answers: readonly Tracked[]): Promise<void> {
    this.#storing = new Set(answers);
    try {
      await this.#storeNow(answers);
    } finally {
      this.#storing = new Set();
    }
  }

  async #storeNow(answers: readonly Tracked[]): Promise<void> {
    const { buffer, clock, ids, onChanged } = this.#options;
    const openings = await this.#openings(answers);
    const wanted = [...openings].flatMap(([answer, opening]) => wantedPrefixes(answer.userId, opening));
    const found = await buffer.find(wanted);
    const assembled = answers
      .filter(({ state, chunks }) => state !== "streaming" && chunks > 0)
      .map(({ answerId }) => answerId);
    const chunks = await buffer.chunks(assembled);
    const plan = planBatch({ found, chunks, revision: this.#revision, ids, nowMs: clock.now() });
    const breathe = this.#slices();
    for (const answer of answers) {
      plan.add(answer, openings.get(answer));
      const breath = breathe();
      if (breath !== undefined) await breath;
    }
    const { batch, places } = plan;
    await buffer.commit(batch, breathe);
    this.#revision = batch.revision;
    const sessions = new Set<SessionId>();
    for (const answer of answers) {
      const place = places.get(answer);
      if (place !== undefined) answer.place = place;
      answer.place ??= null;
      if (answer.place !== null) sessions.add(answer.place.sessionId);
      this.#markStored(answer);
    }
    onChanged(sessions);
  }

  /** The messages of requests that are not attached yet, decoded and hashed. */
  async #openings(answers: readonly Tracked[]): Promise<ReadonlyMap<LiveAnswer, Opening>> {
    const { buffer, log } = this.#options;
    const openings = new Map<LiveAnswer, Opening>();
    const requests = answers.flatMap((answer) =>
      answer.request === undefined ? [] : [{ answer, request: answer.request }],
    );
    const owners = await buffer.owners(requests.flatMap(({ request }) => request.sessionId ?? []));
    const breathe = this.#slices();
    for (const { answer, request } of requests) {
      const messages = await request.messages().catch((error: unknown) => {
        // The answer is stored all the same; only what it answers is missing.
        log.error({ event: "transcript.request_unreadable", answer: answer.answerId, error });
        return [];
      });
      const owner = request.sessionId === null ? undefined : owners.get(request.sessionId);
      const { sessionId, threadId } = request;
      const named = { sessionId, threadId, exists: owner === answer.userId, isFree: owner === undefined };
      openings.set(answer, await openingOf(messages, named, breathe));
    }
    return openings;
  }

  #markStored(answer: Tracked): void {
    const { request, delta } = answer;
    answer.isStored = true;
    this.#heldBytes -= deltaLength(delta) + (request?.sizeBytes ?? 0);
    if (deltaLength(delta) > 0 || delta.calls.length > 0) answer.chunks += 1;
    answer.delta = emptyDelta();
    answer.request = undefined;
    answer.unstoredFrom = undefined;
    answer.attempts = 0;
    this.#dirty.delete(answer);
    if (request?.large !== undefined) this.#removeLarge(request.large);
    if (answer.state === "streaming") return;
    this.#live.delete(answer.answerId);
    const { sessionId = null, threadId = null, entryId = null } = answer.place ?? {};
    for (const settle of answer.onSettled) settle({ sessionId, threadId, entryId });
  }

  #forget(answer: Tracked): void {
    this.#heldBytes -= deltaLength(answer.delta) + (answer.request?.sizeBytes ?? 0);
    this.#dirty.delete(answer);
    this.#live.delete(answer.answerId);
  }

  #removeLarge(name: string): void {
    this.#options.spool.removeLarge(name).catch((error: unknown) => {
      this.#options.log.warn({ event: "spool.large_not_removed", name, error });
    });
  }

  /** Lets those begin for whom there is room again, or who will learn that everything stops. */
  #admit(): void {
    for (const proceed of this.#waiting) {
      if (this.#heldBytes > MAX_HELD_FOR_NEW_BYTES && !this.#stopped) return;
      proceed();
    }
  }

  /** (3) */
  #release(): void {
    const { spool } = this.#options;
    let needed = this.#queue[0]?.position ?? spool.next;
    for (const { unstoredFrom } of this.#dirty) needed = Math.min(needed, unstoredFrom ?? needed);
    spool.release(needed);
  }

  #failDrains(error: unknown): void {
    const drains = this.#drains;
    this.#drains = [];
    for (const { reject } of drains) reject(error);
  }
}

function overloaded(): OperationalError {
  return new OperationalError("overloaded", "the transcript cannot be stored as fast as it grows", {
    retryAfterMs: RETRY_MS,
  });
}
