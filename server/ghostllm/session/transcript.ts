/**
 * The transcript: what was asked and answered, kept so that nothing acknowledged or shown is lost when the process is killed.
 * 1. A record is in the spool before anything that depends on it is shown or told: a frame or an end before its caller goes on, what comes before
 *    the first frame together with that, at the latest when the turn ends. SQLite has it a little later (`absorber.ts`) (I7, I8).
 * 2. On opening, what an earlier process left is absorbed first; its answers without an end are then `interrupted`, with all that was shown.
 * 3. Reads include everything that was recorded before the call.
 * 4. Everything is filtered by user (I15).
 */
import {
  type AnswerId,
  type ModelRef,
  type SessionId,
  sessionIdSchema,
  type ThreadId,
  type UserId,
} from "../../../protocol/ids.ts";
import type { RouteDecision } from "../../../protocol/route.ts";
import type { SessionWatchUpdate } from "../../../protocol/session.ts";
import { assert } from "../../base/assert.ts";
import type { Ids } from "../../base/clock.ts";
import { BugError, OperationalError, toGhostError } from "../../base/errors.ts";
import type { Database } from "../../platform/database.ts";
import type { Actor } from "../../platform/permit.ts";
import type { Dialect, Frame, Message, StreamEvent } from "../stream.ts";
import { Absorber, type Change } from "./absorber.ts";
import { type ContextBuffer, createContextBuffer, type Placement } from "./context-buffer.ts";
import {
  createSessionReader,
  type History,
  notFound,
  type SessionDetails,
  type SessionList,
  type SessionReader,
  type UsageSummary,
} from "./session-reader.ts";
import { type Tracked, trackedFromBegin } from "./tracked.ts";
import {
  type Begin,
  beginParts,
  endPart,
  eventBytes,
  messageBytes,
  type Outcome,
  openedPart,
  parseEventBytes,
  parseRecord,
  recordHeader,
} from "./transcript-record.ts";
import { type ReplayOptions, type RequestSource, replayInto, requestFrom } from "./transcript-replay.ts";

export { transcriptMigrations } from "./schema.ts";

/** A request as it is recorded: the client's own bytes where there are any. */
export type RecordedRequest =
  | { readonly kind: "body"; readonly dialect: Dialect; readonly body: Buffer }
  /** All messages of the conversation. With a session of this user they attach within it, without one they found a new one. */
  | {
      readonly kind: "messages";
      readonly messages: readonly Message[];
      readonly sessionId?: SessionId | undefined;
      readonly threadId?: ThreadId | undefined;
    }
  /** Counted in the usage; it stands in no session. */
  | { readonly kind: "completion"; readonly prefix: string; readonly suffix: string };

export interface AnswerStart {
  readonly answerId: AnswerId;
  readonly actor: Actor;
  readonly task: "chat" | "completion";
  /** The model as it was asked for. */
  readonly target: string;
  readonly request: RecordedRequest;
  /** Nothing of it is shown before its end, as when a client asks for one body: it is then written once, with its end. */
  readonly isShownWhole?: boolean;
  /** The repositories that its text came from. */
  readonly labels?: readonly string[];
}

/** One answer while it streams. */
export interface Recording {
  readonly answerId: AnswerId;
  /** Known from the start for `messages`. A `body` finds its session later (`settled`), a completion has none. */
  readonly sessionId: SessionId | undefined;
  /** A model has begun to answer. Whoever asks may be told so afterwards, unless the answer is shown whole. @throws OperationalError `storage_full` */
  opened(model: ModelRef, decision: RouteDecision): void;
  /**
   * Call it before the frame is sent: afterwards it survives a killed process.
   * @throws OperationalError `storage_full` | `overloaded`; the frame is then not recorded, must not be sent, and the answer has to end as failed.
   */
  record(frame: Frame): void;
  /**
   * Call it before the end is shown. An end that cannot be spooled is stored directly, if that is still possible.
   * @throws OperationalError `storage_full` only where a whole answer that is complete cannot be spooled: it must not be shown, and is stored as failed.
   */
  end(outcome: Outcome): void;
}

export interface Transcript extends AsyncDisposable {
  /**
   * Takes the question. It is in the spool when the turn ends; nobody may be told of it before `opened`. A promise is returned for bodies above
   * `LARGE_BODY_BYTES`, and where too much waits to be stored. @throws OperationalError `storage_full` | `overloaded`
   */
  begin(start: AnswerStart): Recording | Promise<Recording>;
  /** Where the answer stands, once it has ended and is in SQLite. @throws OperationalError when it could not be stored. */
  settled(answerId: AnswerId): Promise<Placement>;
  /** A thread's messages for a model, answers that just finished included. @throws UserError `session_not_found` */
  history(userId: UserId, sessionId: SessionId, threadId?: ThreadId): Promise<History>;
  list(userId: UserId, params: Parameters<SessionReader["list"]>[1]): Promise<SessionList>;
  /** @throws UserError `session_not_found` */
  get(
    userId: UserId,
    params: { readonly sessionId: SessionId; readonly threadId?: ThreadId | undefined },
  ): Promise<SessionDetails>;
  /** An answer that is streaming into it goes on, and is not kept. @throws UserError `session_not_found` */
  delete(userId: UserId, params: { readonly sessionId: SessionId }): Promise<{ readonly deletedEntries: number }>;
  /**
   * History after `afterRevision`, then changes as they are stored (every 0.1 s while an answer grows), until the signal aborts.
   * @throws UserError `session_not_found`, also when it is deleted; OperationalError `stream_position_lost`, `overloaded`.
   */
  watch(
    userId: UserId,
    params: { readonly sessionId: SessionId; readonly afterRevision: number },
    signal: AbortSignal,
  ): AsyncIterable<SessionWatchUpdate>;
  usage(userId: UserId, params: { readonly sinceMs: number }): Promise<UsageSummary>;
  /** Answers that have begun and not ended. */
  readonly openAnswers: number;
}

export interface TranscriptOptions extends ReplayOptions {
  /** With `transcriptMigrations` applied. It and the spool are not closed by the transcript. */
  readonly database: Database;
  readonly ids: Ids;
}

/** A larger body takes longer to write than the main thread may be held. */
const LARGE_BODY_BYTES = 256 * 1024;
/** Frames of one answer that wait in memory; what is beyond is read back from the spool. A stream that is faster than SQLite would else be held twice. */
const MAX_WAITING_BYTES = 512 * 1024;
/** Each watcher costs a read for every change of its session; faces have one or two. */
const MAX_WATCHERS = 256;
/** Texts of completions are kept to look into, not for ever: this many are some days of typing. */
const KEPT_COMPLETIONS = 1_000;
/** Pruning after every completion would double its cost. */
const PRUNE_EVERY = 100;

/** Opens the transcript, absorbing what an earlier process left (2). */
export async function openTranscript(options: TranscriptOptions): Promise<Transcript> {
  const buffer = createContextBuffer(options.database);
  const watchers = new Map<SessionId, Set<() => void>>();
  const absorber = new Absorber({
    ...options,
    buffer,
    revision: await buffer.revision(),
    isWatched: (session) => watchers.has(session),
    onChanged: (sessions) => {
      for (const session of sessions) for (const notify of watchers.get(session) ?? []) notify();
    },
  });
  try {
    await replayInto(absorber, buffer, options);
    await buffer.pruneCompletions(KEPT_COMPLETIONS);
  } catch (error) {
    await absorber.stop();
    throw error;
  }
  return new SpooledTranscript(options, { buffer, absorber, watchers });
}

interface Parts {
  readonly buffer: ContextBuffer;
  readonly absorber: Absorber;
  readonly watchers: Map<SessionId, Set<() => void>>;
}

class SpooledTranscript implements Transcript {
  readonly #options: TranscriptOptions;
  readonly #buffer: ContextBuffer;
  readonly #absorber: Absorber;
  readonly #reader: SessionReader;
  readonly #watchers: Map<SessionId, Set<() => void>>;
  readonly #open = new Set<SpooledRecording>();
  #watcherCount = 0;
  #completions = 0;
  #isClosed = false;

  constructor(options: TranscriptOptions, parts: Parts) {
    this.#options = options;
    this.#buffer = parts.buffer;
    this.#absorber = parts.absorber;
    this.#watchers = parts.watchers;
    this.#reader = createSessionReader(options.database);
  }

  get openAnswers(): number {
    return this.#open.size;
  }

  begin(start: AnswerStart): Recording | Promise<Recording> {
    const room = this.#absorber.roomForNew();
    return room === undefined ? this.#beginNow(start) : room.then(() => this.#beginNow(start));
  }

  async settled(answerId: AnswerId): Promise<Placement> {
    this.#refuseWhenClosed();
    const live = this.#absorber.find(answerId);
    if (live === undefined) {
      const placement = await this.#buffer.placement(answerId);
      if (placement === undefined) throw new BugError("internal", `there is no answer ${answerId}`);
      return placement;
    }
    // An end that was just recorded is stored now; whoever asks before the end waits for it. A failure is logged, and tried again.
    this.#absorber.drain(() => false).catch(() => {});
    return new Promise((resolve, reject) => {
      live.onSettled.push((result) => (result instanceof OperationalError ? reject(result) : resolve(result)));
    });
  }

  async history(userId: UserId, sessionId: SessionId, threadId?: ThreadId): Promise<History> {
    await this.#storeAll(sessionId);
    return this.#reader.history(userId, sessionId, threadId);
  }

  async list(userId: UserId, params: Parameters<Transcript["list"]>[1]): Promise<SessionList> {
    await this.#tryStoreAll(undefined);
    return this.#reader.list(userId, params);
  }

  async get(userId: UserId, { sessionId, threadId }: Parameters<Transcript["get"]>[1]): Promise<SessionDetails> {
    await this.#tryStoreAll(sessionId);
    return this.#reader.get(userId, sessionId, threadId);
  }

  async usage(userId: UserId, { sinceMs }: { readonly sinceMs: number }): Promise<UsageSummary> {
    await this.#tryStoreAll(undefined);
    return this.#reader.usage(userId, sinceMs);
  }

  async delete(
    userId: UserId,
    { sessionId }: { readonly sessionId: SessionId },
  ): Promise<{ readonly deletedEntries: number }> {
    await this.#storeAll(sessionId);
    return this.#absorber.exclusively(async () => {
      if (!(await this.#reader.exists(userId, sessionId))) throw notFound(sessionId);
      const deletedEntries = await this.#reader.countEntries(userId, sessionId);
      await this.#buffer.deleteSession(userId, sessionId);
      for (const live of this.#absorber.live) if (live.place?.sessionId === sessionId) live.place = null;
      for (const notify of this.#watchers.get(sessionId) ?? []) notify();
      return { deletedEntries };
    });
  }

  async *watch(
    userId: UserId,
    params: Parameters<Transcript["watch"]>[1],
    signal: AbortSignal,
  ): AsyncIterable<SessionWatchUpdate> {
    const { sessionId, afterRevision } = params;
    this.#refuseWhenClosed();
    if (this.#watcherCount >= MAX_WATCHERS) {
      throw new OperationalError("overloaded", `${MAX_WATCHERS} sessions are being watched already`);
    }
    await this.#tryStoreAll(sessionId);
    if (!(await this.#reader.exists(userId, sessionId))) throw notFound(sessionId);
    if (afterRevision > this.#absorber.revision) {
      throw new OperationalError("stream_position_lost", `the session ${sessionId} has no revision ${afterRevision}`);
    }
    const changed = new Bell();
    using _watching = this.#register(sessionId, () => changed.ring());
    const onAbort = () => changed.ring();
    signal.addEventListener("abort", onAbort);
    using _listening = { [Symbol.dispose]: () => signal.removeEventListener("abort", onAbort) };
    let revision = afterRevision;
    while (!signal.aborted && !this.#isClosed) {
      const ringing = changed.next();
      const updates = await this.#reader.changes(userId, sessionId, revision);
      for (const update of updates) {
        if (signal.aborted) return;
        revision = update.revision;
        yield update;
      }
      if (updates.length > 0) continue;
      if (!(await this.#reader.exists(userId, sessionId))) throw notFound(sessionId);
      await ringing;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      for (const recording of this.#open) recording.interrupt();
      for (const notifiers of this.#watchers.values()) for (const notify of notifiers) notify();
    }
    await this.#absorber.stop();
  }

  #beginNow(start: AnswerStart): Recording | Promise<Recording> {
    this.#refuseWhenClosed();
    const { request } = start;
    const begin: Begin = {
      userId: start.actor.userId,
      client: start.actor.client,
      task: start.task,
      target: start.target,
      atMs: this.#options.clock.now(),
      labels: [...(start.labels ?? [])],
      request: describeRequest(request, this.#options.ids),
    };
    if (request.kind === "completion") return this.#begin(start, begin, Buffer.alloc(0), undefined);
    const body = request.kind === "body" ? request.body : messageBytes(request.messages);
    const source: RequestSource =
      request.kind === "body"
        ? { kind: "body", body, dialect: request.dialect }
        : { kind: "messages", messages: request.messages };
    if (body.length <= LARGE_BODY_BYTES) return this.#begin(start, begin, body, source);
    return this.#beginLarge(start, begin, body, source);
  }

  async #beginLarge(start: AnswerStart, begin: Begin, body: Buffer, source: RequestSource): Promise<Recording> {
    this.#absorber.checkRoom(body.length);
    const large = await this.#options.spool.appendLarge(body);
    this.#refuseWhenClosed();
    const request: Begin["request"] = begin.request.kind === "completion" ? begin.request : { ...begin.request, large };
    return this.#begin(start, { ...begin, request }, Buffer.alloc(0), source);
  }

  /** `body` is empty where it lies beside the records. */
  #begin(start: AnswerStart, begin: Begin, body: Buffer, source: RequestSource | undefined): Recording {
    const { answerId } = start;
    const request = source === undefined ? undefined : requestFrom(begin, source, this.#options);
    this.#absorber.checkRoom(request?.sizeBytes ?? 0);
    const tracked = trackedFromBegin(answerId, begin);
    const recording = new SpooledRecording(tracked, {
      sessionId: begin.request.kind === "messages" ? begin.request.sessionId : undefined,
      isShownWhole: start.isShownWhole ?? false,
      absorber: this.#absorber,
      options: this.#options,
      onEnd: () => this.#ended(recording),
    });
    const parts = [recordHeader("begin", answerId), ...beginParts(begin, body)];
    recording.begin(parts, { kind: "begin", request }, request?.sizeBytes ?? 0);
    this.#absorber.track(tracked);
    this.#open.add(recording);
    return recording;
  }

  #ended(recording: SpooledRecording): void {
    this.#open.delete(recording);
    if (recording.task !== "completion") return;
    this.#completions += 1;
    if (this.#completions % PRUNE_EVERY !== 0) return;
    this.#buffer.pruneCompletions(KEPT_COMPLETIONS).catch((error: unknown) => {
      this.#options.log.warn({ event: "transcript.not_pruned", error });
    });
  }

  #register(sessionId: SessionId, notify: () => void): Disposable {
    const notifiers = this.#watchers.get(sessionId) ?? new Set();
    this.#watchers.set(sessionId, notifiers.add(notify));
    this.#watcherCount += 1;
    return {
      [Symbol.dispose]: () => {
        this.#watcherCount -= 1;
        notifiers.delete(notify);
        if (notifiers.size === 0) this.#watchers.delete(sessionId);
      },
    };
  }

  #storeAll(sessionId: SessionId | undefined): Promise<void> {
    this.#refuseWhenClosed();
    return this.#absorber.drain(({ place }) => sessionId !== undefined && place?.sessionId === sessionId);
  }

  /** A full disk does not keep anybody from reading what is stored. */
  async #tryStoreAll(sessionId: SessionId | undefined): Promise<void> {
    await this.#storeAll(sessionId).catch((error: unknown) => {
      this.#options.log.warn({ event: "transcript.read_without_latest", error });
    });
  }

  #refuseWhenClosed(): void {
    if (this.#isClosed) throw new OperationalError("daemon_stopping", "the transcript is closed");
  }
}

interface RecordingParts {
  readonly sessionId: SessionId | undefined;
  readonly isShownWhole: boolean;
  readonly absorber: Absorber;
  readonly options: TranscriptOptions;
  readonly onEnd: () => void;
}

class SpooledRecording implements Recording {
  readonly answerId: AnswerId;
  readonly sessionId: SessionId | undefined;
  readonly task: "chat" | "completion";
  readonly #tracked: Tracked;
  readonly #parts: RecordingParts;
  #header: { readonly dialect: Dialect; readonly bytes: Buffer } | undefined;
  #position: number;
  #hasEnded = false;
  /** Why a record that had been staged is not in the spool: nothing more is taken then. */
  #lost: { readonly error: unknown } | undefined;
  /** Nobody was told of it then, and nobody will be: it never was. */
  #isBeginLost = false;
  readonly #onLost = (error: unknown) => {
    this.#lost ??= { error };
  };

  constructor(tracked: Tracked, parts: RecordingParts) {
    this.answerId = tracked.answerId;
    this.sessionId = parts.sessionId;
    this.task = tracked.task;
    this.#tracked = tracked;
    this.#parts = parts;
    this.#position = parts.options.spool.next - 1;
  }

  begin(parts: readonly Buffer[], change: Change, sizeBytes: number): void {
    const { spool } = this.#parts.options;
    this.#position = spool.stage(parts, (error) => {
      this.#isBeginLost = true;
      this.#onLost(error);
    });
    this.#push(change, sizeBytes);
  }

  opened(model: ModelRef, decision: RouteDecision): void {
    this.#refuseWhenEnded();
    const opened = { model, decision };
    const parts = [recordHeader("opened", this.answerId), openedPart(opened)];
    this.#spool(parts, { change: { kind: "opened", opened }, sizeBytes: 0, mayWait: this.#parts.isShownWhole });
  }

  record(frame: Frame): void {
    this.#refuseWhenEnded();
    if (this.#header?.dialect !== frame.dialect) {
      this.#header = { dialect: frame.dialect, bytes: recordHeader("frame", this.answerId, frame.dialect) };
    }
    const bytes = frame.dialect === "events" ? eventBytes(frame.events()) : frame.bytes;
    this.#parts.absorber.checkRoom(bytes.length);
    const { isShownWhole: mayWait } = this.#parts;
    if (mayWait || this.#tracked.waitingBytes + bytes.length <= MAX_WAITING_BYTES) {
      const change: Change = { kind: "frame", events: () => frame.events() };
      this.#spool([this.#header.bytes, bytes], { change, sizeBytes: bytes.length, mayWait });
    } else {
      const { options } = this.#parts;
      let position = -1;
      const change: Change = { kind: "frame", events: () => spooledEvents(options.spool.read(position), options) };
      this.#spool([this.#header.bytes, bytes], { change, sizeBytes: 0, mayWait });
      position = this.#position;
    }
  }

  end(outcome: Outcome): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const { options, onEnd } = this.#parts;
    const atMs = options.clock.now();
    try {
      const parts = [recordHeader("end", this.answerId), endPart(outcome, atMs)];
      this.#spool(parts, { change: { kind: "end", outcome, atMs }, sizeBytes: 0, mayWait: false });
    } catch (error) {
      this.#endUnspooled(outcome, error);
    } finally {
      onEnd();
    }
  }

  /** The process stops before the answer has ended. */
  interrupt(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#push({ kind: "end", outcome: { state: "interrupted" }, atMs: this.#parts.options.clock.now() }, 0);
    this.#parts.onEnd();
  }

  #endUnspooled(outcome: Outcome, error: unknown): void {
    const { log, clock } = this.#parts.options;
    log.error({ event: "transcript.end_not_spooled", answer: this.answerId, error });
    if (this.#isBeginLost && this.#parts.absorber.drop(this.#tracked)) {
      if (outcome.state === "complete") throw error;
      return;
    }
    // Its words were to come with its end: a killed process would not have them.
    const isUnsafe = this.#lost !== undefined && this.#parts.isShownWhole && outcome.state === "complete";
    const { code, message, details } = toGhostError(error);
    const stored: Outcome = isUnsafe ? { state: "failed", error: { code, message, details } } : outcome;
    this.#push({ kind: "end", outcome: stored, atMs: clock.now() }, 0);
    if (isUnsafe) throw error;
  }

  #spool(
    parts: readonly Buffer[],
    { change, sizeBytes, mayWait }: { readonly change: Change; readonly sizeBytes: number; readonly mayWait: boolean },
  ): void {
    const { spool } = this.#parts.options;
    if (this.#lost !== undefined) throw this.#lost.error;
    this.#position = mayWait ? spool.stage(parts, this.#onLost) : spool.append(parts);
    this.#push(change, sizeBytes);
  }

  #push(change: Change, sizeBytes: number): void {
    this.#parts.absorber.push(this.#tracked, change, this.#position, sizeBytes);
  }

  #refuseWhenEnded(): void {
    if (!this.#hasEnded) return;
    throw new OperationalError(
      "daemon_stopping",
      `the answer ${this.answerId} has ended; nothing more can be recorded`,
    );
  }
}

/** Remembers that it rang between two waits. */
class Bell {
  #promise: Promise<void> = Promise.resolve();
  #resolve: () => void = () => {};

  next(): Promise<void> {
    this.#promise = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    return this.#promise;
  }

  ring(): void {
    this.#resolve();
  }
}

function spooledEvents(bytes: Buffer, { decodeFrame }: TranscriptOptions): readonly StreamEvent[] {
  const record = parseRecord(bytes);
  assert(record.kind === "frame", "the record is no frame");
  return record.dialect === "events" ? parseEventBytes(record.bytes) : decodeFrame(record.dialect, record.bytes);
}

function describeRequest(request: RecordedRequest, ids: Ids): Begin["request"] {
  switch (request.kind) {
    case "body":
      return { kind: "body", dialect: request.dialect };
    case "messages":
      return {
        kind: "messages",
        sessionId: request.sessionId ?? sessionIdSchema.parse(ids.next("ses")),
        threadId: request.threadId ?? null,
      };
    case "completion":
      return { kind: "completion" };
  }
}
