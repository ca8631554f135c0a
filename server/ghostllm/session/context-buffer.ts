/**
 * The context buffer in SQLite: where conversations are found again, and what a batch of changes writes.
 * 1. Every look-up is filtered by user (I15).
 * 2. A batch is one transaction of a few statements, whatever its size: rows travel as one JSON text per table, so that a busy daemon pays for
 *    statements once per batch and not once per row.
 * 3. A thread grows by compare-and-set: its row names the epoch that the plan was made on, and the database refuses a stale one.
 */
import { z } from "zod";
import {
  type AnswerId,
  answerIdSchema,
  type ClientId,
  clientIdSchema,
  type EntryId,
  entryIdSchema,
  type ModelRef,
  modelRefSchema,
  type SessionId,
  sessionIdSchema,
  type ThreadId,
  threadIdSchema,
  type UserId,
  userIdSchema,
} from "../../../protocol/ids.ts";
import type { FinishReason } from "../../../protocol/chat.ts";
import type { WireError } from "../../../protocol/errors.ts";
import { type RouteDecision, routeDecisionSchema } from "../../../protocol/route.ts";
import type { AnswerState, Role } from "../../../protocol/session.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { branded } from "../../base/brand.ts";
import type { Database, Statement } from "../../platform/database.ts";
import type { Part } from "../stream.ts";
import { type Delta, deltaSchema } from "./answer-delta.ts";
import type { PrefixHash } from "./thread-tree.ts";

export interface SessionRow {
  readonly id: SessionId;
  readonly userId: UserId;
  readonly title: string;
  readonly client: ClientId;
  readonly createdAtMs: number;
}
export interface ThreadRow {
  readonly id: ThreadId;
  readonly sessionId: SessionId;
  readonly userId: UserId;
  readonly head: EntryId;
  readonly epoch: number;
  /** The epoch that was read before; 0 for a new thread (3). */
  readonly basedOn: number;
  readonly atMs: number;
}
export interface EntryRow {
  readonly id: EntryId;
  readonly sessionId: SessionId;
  readonly userId: UserId;
  readonly parent: EntryId | null;
  /** Null while it streams. */
  readonly prefixHash: PrefixHash | null;
  readonly role: Role;
  readonly body: { readonly parts: readonly Part[]; readonly reasoning?: string };
  readonly labels: readonly string[];
  readonly answerId: AnswerId | null;
  readonly revision: number;
  readonly createdAtMs: number;
}
export interface AnswerRow {
  readonly id: AnswerId;
  readonly userId: UserId;
  readonly client: ClientId;
  readonly task: "chat" | "completion";
  readonly target: string;
  readonly placed: { readonly sessionId: SessionId; readonly threadId: ThreadId; readonly entryId: EntryId } | null;
  readonly model: ModelRef | null;
  readonly decision: RouteDecision | null;
  readonly state: AnswerState;
  readonly reason: FinishReason | null;
  readonly usage: Usage;
  readonly error: WireError | null;
  /** A completion's text; a chat's is in its entry. */
  readonly text: string | null;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  /** The position of the last spool record that this row contains. */
  readonly absorbed: number;
}
export interface ChunkRow {
  readonly answerId: AnswerId;
  readonly sequence: number;
  readonly userId: UserId;
  readonly body: Delta;
}

/** Changes that belong together. */
export interface Batch {
  /** New ones. */
  readonly sessions: SessionRow[];
  /** Sessions in which something happened at this time. */
  readonly touched: { readonly id: SessionId; readonly atMs: number }[];
  readonly threads: ThreadRow[];
  readonly entries: EntryRow[];
  readonly answers: AnswerRow[];
  readonly chunks: ChunkRow[];
  /** Answers whose chunks are in their entry now. */
  readonly assembled: AnswerId[];
  /** The highest revision in use after this batch. */
  revision: number;
}

/** An entry that a request may attach to, with the thread that ended there when it was read. */
export interface FoundEntry {
  readonly userId: UserId;
  readonly id: EntryId;
  readonly sessionId: SessionId;
  readonly prefixHash: PrefixHash;
  readonly createdAtMs: number;
  readonly threadId: ThreadId | null;
  readonly epoch: number;
}
export interface WantedPrefix {
  readonly userId: UserId;
  readonly prefixHash: PrefixHash;
  /** Only in this session. */
  readonly sessionId: SessionId | null;
}

/** An answer that an earlier process left without its end. */
export interface OpenAnswerRow {
  readonly row: AnswerRow;
  readonly parentId: EntryId | null;
  readonly parentHash: PrefixHash | null;
  readonly labels: readonly string[];
  readonly epoch: number;
  readonly chunks: number;
}

export interface ContextBuffer {
  find(wanted: readonly WantedPrefix[]): Promise<readonly FoundEntry[]>;
  /** The owners of those sessions that exist. */
  owners(sessions: readonly SessionId[]): Promise<ReadonlyMap<SessionId, UserId>>;
  /** Those of the answers that are stored, in whatever state. */
  known(answers: readonly AnswerId[]): Promise<ReadonlySet<AnswerId>>;
  chunks(answers: readonly AnswerId[]): Promise<ReadonlyMap<AnswerId, readonly Delta[]>>;
  openAnswers(): Promise<readonly OpenAnswerRow[]>;
  revision(): Promise<number>;
  placement(answerId: AnswerId): Promise<Placement | undefined>;
  /**
   * `breathe` is called between two tables, and awaited where it says so: a large batch is not turned into text at one go.
   * @throws what `Database.write` throws; BugError when a thread has grown since it was read (3). Nothing of the batch is stored then.
   */
  commit(batch: Batch, breathe?: () => Promise<void> | undefined): Promise<void>;
  /** Deletes a session with everything in it; its answers stay, without any text, for the usage. */
  deleteSession(userId: UserId, sessionId: SessionId): Promise<void>;
  /** Keeps the texts of the latest `keep` completions. */
  pruneCompletions(keep: number): Promise<void>;
}

export interface Placement {
  readonly sessionId: SessionId | null;
  readonly threadId: ThreadId | null;
  readonly entryId: EntryId | null;
}

/** Identical openings are common (a benchmark, a title prompt): of the entries with one hash only the newest are candidates. */
const MAX_CANDIDATES = 16;

const hashSchema = z.string().transform((text): PrefixHash => branded(text));
const foundRow = z.object({
  user_id: userIdSchema,
  id: entryIdSchema,
  session_id: sessionIdSchema,
  prefix_hash: hashSchema,
  created_at: z.number(),
  thread_id: threadIdSchema.nullable(),
  epoch: z.int().nullable(),
});
const openRow = z.object({
  id: answerIdSchema,
  user_id: userIdSchema,
  client: clientIdSchema,
  task: z.enum(["chat", "completion"]),
  target: z.string(),
  session_id: sessionIdSchema.nullable(),
  thread_id: threadIdSchema.nullable(),
  entry_id: entryIdSchema.nullable(),
  model: modelRefSchema.nullable(),
  decision: z.string().nullable(),
  started_at: z.number(),
  absorbed: z.int(),
  parent: entryIdSchema.nullable(),
  labels: z.string().nullable(),
  parent_hash: hashSchema.nullable(),
  epoch: z.int().nullable(),
  chunks: z.int(),
});
const labelsSchema = z.array(z.string());

const FIND = `SELECT e.user_id, e.id, e.session_id, e.prefix_hash, e.created_at, t.id AS thread_id, t.epoch
  FROM jsonb_each(?) AS w JOIN entries e ON e.id IN (
    SELECT x.id FROM entries x WHERE substr(x.prefix_hash, 1, 8) = substr(w.value->>1, 1, 8)
      AND x.prefix_hash = w.value->>1 AND x.user_id = w.value->>0
      AND (w.value->>2 IS NULL OR x.session_id = w.value->>2) ORDER BY x.rowid DESC LIMIT ${MAX_CANDIDATES})
  LEFT JOIN threads t ON t.head = e.id AND t.user_id = e.user_id`;

const OPEN_ANSWERS = `SELECT a.id, a.user_id, a.client, a.task, a.target, a.session_id, a.thread_id, a.entry_id, a.model, a.decision, a.started_at,
    a.absorbed, e.parent, e.labels, p.prefix_hash AS parent_hash, t.epoch,
    (SELECT count(*) FROM answer_chunks c WHERE c.answer_id = a.id) AS chunks
  FROM answers a LEFT JOIN entries e ON e.id = a.entry_id LEFT JOIN entries p ON p.id = e.parent LEFT JOIN threads t ON t.id = a.thread_id
  WHERE a.state = 'streaming'`;

export function createContextBuffer(database: Database): ContextBuffer {
  return {
    find: (wanted) => findEntries(database, wanted),
    async owners(sessions) {
      if (sessions.length === 0) return new Map();
      const row = z.object({ id: sessionIdSchema, user_id: userIdSchema });
      const sql = "SELECT id, user_id FROM sessions WHERE id IN (SELECT value FROM json_each(?))";
      return new Map(
        (await database.read(row, sql, [JSON.stringify(sessions)])).map(({ id, user_id }) => [id, user_id]),
      );
    },
    async known(answers) {
      if (answers.length === 0) return new Set();
      const row = z.object({ id: answerIdSchema });
      const sql = "SELECT id FROM answers WHERE id IN (SELECT value FROM json_each(?))";
      return new Set((await database.read(row, sql, [JSON.stringify(answers)])).map(({ id }) => id));
    },
    chunks: (answers) => readChunks(database, answers),
    async openAnswers() {
      return (await database.read(openRow, OPEN_ANSWERS, [])).map(openAnswer);
    },
    async revision() {
      const row = z.object({ value: z.int() });
      return (await database.read(row, "SELECT value FROM counters WHERE name = 'revision'", []))[0]?.value ?? 0;
    },
    async placement(answerId) {
      const row = z.object({
        session_id: sessionIdSchema.nullable(),
        thread_id: threadIdSchema.nullable(),
        entry_id: entryIdSchema.nullable(),
      });
      const [found] = await database.read(row, "SELECT session_id, thread_id, entry_id FROM answers WHERE id = ?", [
        answerId,
      ]);
      return found && { sessionId: found.session_id, threadId: found.thread_id, entryId: found.entry_id };
    },
    async commit(batch, breathe) {
      const statements: Statement[] = [];
      for (const statement of statementsOf(batch)) {
        statements.push(statement);
        const breath = breathe?.();
        if (breath !== undefined) await breath;
      }
      await database.write(statements);
    },
    deleteSession: (userId, sessionId) =>
      database.write([
        {
          sql: "DELETE FROM answer_chunks WHERE answer_id IN (SELECT id FROM answers WHERE session_id = ? AND user_id = ?)",
          values: [sessionId, userId],
        },
        {
          sql: `UPDATE answers SET session_id = NULL, thread_id = NULL, entry_id = NULL, decision = NULL, error = NULL, text = NULL
            WHERE session_id = ? AND user_id = ?`,
          values: [sessionId, userId],
        },
        { sql: "DELETE FROM sessions WHERE id = ? AND user_id = ?", values: [sessionId, userId] },
      ]),
    pruneCompletions: (keep) =>
      database.write([
        {
          sql: `UPDATE answers SET text = NULL, decision = NULL WHERE task = 'completion' AND text IS NOT NULL AND started_at < (
            SELECT started_at FROM answers WHERE task = 'completion' AND text IS NOT NULL ORDER BY started_at DESC LIMIT 1 OFFSET ?)`,
          values: [keep - 1],
        },
      ]),
  };
}

async function findEntries(database: Database, wanted: readonly WantedPrefix[]): Promise<readonly FoundEntry[]> {
  if (wanted.length === 0) return [];
  const values = JSON.stringify(wanted.map(({ userId, prefixHash, sessionId }) => [userId, prefixHash, sessionId]));
  const rows = await database.read(foundRow, FIND, [values]);
  return rows.map((row) => ({
    userId: row.user_id,
    id: row.id,
    sessionId: row.session_id,
    prefixHash: row.prefix_hash,
    createdAtMs: row.created_at,
    threadId: row.thread_id,
    epoch: row.epoch ?? 0,
  }));
}

async function readChunks(
  database: Database,
  answers: readonly AnswerId[],
): Promise<ReadonlyMap<AnswerId, readonly Delta[]>> {
  const found = new Map<AnswerId, Delta[]>();
  if (answers.length === 0) return found;
  const row = z.object({ answer_id: answerIdSchema, body: z.string() });
  const sql =
    "SELECT answer_id, body FROM answer_chunks WHERE answer_id IN (SELECT value FROM json_each(?)) ORDER BY answer_id, sequence";
  for (const { answer_id, body } of await database.read(row, sql, [JSON.stringify(answers)])) {
    const chunks = found.get(answer_id) ?? [];
    chunks.push(deltaSchema.parse(JSON.parse(body)));
    found.set(answer_id, chunks);
  }
  return found;
}

const columns = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => `value->>${from + index}`).join(", ");

const INSERT_SESSIONS = `INSERT INTO sessions (id, user_id, title, client, created_at, updated_at)
  SELECT ${columns(0, 5)}, value->>4 FROM jsonb_each(?)`;
const TOUCH_SESSIONS = `UPDATE sessions SET updated_at = max(updated_at, w.value->>1) FROM jsonb_each(?) AS w WHERE sessions.id = w.value->>0`;
const UPSERT_THREADS = `INSERT INTO threads (id, session_id, user_id, head, epoch, based_on, created_at, updated_at)
  SELECT ${columns(0, 7)}, value->>6 FROM jsonb_each(?) WHERE true
  ON CONFLICT (id) DO UPDATE SET head = excluded.head, epoch = excluded.epoch, based_on = excluded.based_on, updated_at = excluded.updated_at`;
/** The body travels as JSON inside JSON and is stored as text again. */
const UPSERT_ENTRIES = `INSERT INTO entries (id, session_id, user_id, parent, prefix_hash, role, body, labels, answer_id, revision, created_at)
  SELECT ${columns(0, 6)}, value->6, value->7, ${columns(8, 11)} FROM jsonb_each(?) WHERE true
  ON CONFLICT (id) DO UPDATE SET prefix_hash = excluded.prefix_hash, body = excluded.body, revision = excluded.revision`;
const UPSERT_ANSWERS = `INSERT INTO answers (id, user_id, client, task, target, session_id, thread_id, entry_id, model, decision, state, reason,
    prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, error, text, started_at, ended_at, absorbed)
  SELECT ${columns(0, 21)} FROM jsonb_each(?) WHERE true
  ON CONFLICT (id) DO UPDATE SET session_id = excluded.session_id, thread_id = excluded.thread_id, entry_id = excluded.entry_id,
    model = excluded.model, decision = excluded.decision, state = excluded.state, reason = excluded.reason,
    prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens, cached_tokens = excluded.cached_tokens,
    reasoning_tokens = excluded.reasoning_tokens, error = excluded.error, text = excluded.text, ended_at = excluded.ended_at,
    absorbed = excluded.absorbed`;
const INSERT_CHUNKS = `INSERT INTO answer_chunks (answer_id, sequence, user_id, body)
  SELECT ${columns(0, 3)}, value->3 FROM jsonb_each(?)`;
const DELETE_CHUNKS = "DELETE FROM answer_chunks WHERE answer_id IN (SELECT value FROM json_each(?))";
const SET_REVISION = `INSERT INTO counters (name, value) VALUES ('revision', ?)
  ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)`;

/** A session's row stands before what refers to it. */
function* statementsOf(batch: Batch): Generator<Statement> {
  const tables: readonly (readonly [sql: string, rows: () => readonly unknown[]])[] = [
    [INSERT_SESSIONS, () => batch.sessions.map((row) => [row.id, row.userId, row.title, row.client, row.createdAtMs])],
    [TOUCH_SESSIONS, () => batch.touched.map((row) => [row.id, row.atMs])],
    [
      UPSERT_THREADS,
      () => batch.threads.map((row) => [row.id, row.sessionId, row.userId, row.head, row.epoch, row.basedOn, row.atMs]),
    ],
    [UPSERT_ENTRIES, () => batch.entries.map(entryValues)],
    [UPSERT_ANSWERS, () => batch.answers.map(answerValues)],
    [INSERT_CHUNKS, () => batch.chunks.map((row) => [row.answerId, row.sequence, row.userId, row.body])],
    [DELETE_CHUNKS, () => batch.assembled],
  ];
  for (const [sql, rowsOf] of tables) {
    const rows = rowsOf();
    if (rows.length > 0) yield { sql, values: [JSON.stringify(rows)] };
  }
  if (batch.entries.length > 0) yield { sql: SET_REVISION, values: [batch.revision] };
}

function entryValues(row: EntryRow): readonly unknown[] {
  const { id, sessionId, userId, parent, prefixHash, role, body, labels, answerId, revision, createdAtMs } = row;
  return [id, sessionId, userId, parent, prefixHash, role, body, labels, answerId, revision, createdAtMs];
}

function answerValues(row: AnswerRow): readonly unknown[] {
  return [
    row.id,
    row.userId,
    row.client,
    row.task,
    row.target,
    row.placed?.sessionId ?? null,
    row.placed?.threadId ?? null,
    row.placed?.entryId ?? null,
    row.model,
    row.decision === null ? null : decisionText(row.decision),
    row.state,
    row.reason,
    row.usage.promptTokens ?? null,
    row.usage.completionTokens ?? null,
    row.usage.cachedTokens ?? null,
    row.usage.reasoningTokens ?? null,
    row.error,
    row.text,
    row.startedAtMs,
    row.endedAtMs,
    row.absorbed,
  ];
}

const decisionTexts = new WeakMap<RouteDecision, string>();

/** Many answers have one decision (`decide`). */
function decisionText(decision: RouteDecision): string {
  const text = decisionTexts.get(decision) ?? JSON.stringify(decision);
  decisionTexts.set(decision, text);
  return text;
}

function openAnswer(row: z.infer<typeof openRow>): OpenAnswerRow {
  const { session_id: sessionId, thread_id: threadId, entry_id: entryId } = row;
  return {
    row: {
      id: row.id,
      userId: row.user_id,
      client: row.client,
      task: row.task,
      target: row.target,
      placed: sessionId === null || threadId === null || entryId === null ? null : { sessionId, threadId, entryId },
      model: row.model,
      decision: row.decision === null ? null : routeDecisionSchema.parse(JSON.parse(row.decision)),
      state: "streaming",
      reason: null,
      usage: {},
      error: null,
      text: null,
      startedAtMs: row.started_at,
      endedAtMs: null,
      absorbed: row.absorbed,
    },
    parentId: row.parent,
    parentHash: row.parent_hash,
    labels: row.labels === null ? [] : labelsSchema.parse(JSON.parse(row.labels)),
    epoch: row.epoch ?? 0,
    chunks: row.chunks,
  };
}
