/**
 * Sessions and usage as faces read them. Every statement is filtered by user (I15): another user's session does not exist.
 * A growing answer's text is in its chunks until it ends; here the two look alike. Long results are read in pages, so that no single turn of the
 * main thread builds all of it.
 */
import { z } from "zod";
import { finishReasonSchema } from "../../../protocol/chat.ts";
import { wireErrorSchema } from "../../../protocol/errors.ts";
import {
  type AnswerId,
  answerIdSchema,
  type EntryId,
  entryIdSchema,
  modelRefSchema,
  type SessionId,
  sessionIdSchema,
  type ThreadId,
  threadIdSchema,
  type UserId,
} from "../../../protocol/ids.ts";
import {
  answerStateSchema,
  roleSchema,
  type SessionEntry,
  type SessionSummary,
  type SessionWatchUpdate,
  type sessionGetResult,
  type sessionListResult,
} from "../../../protocol/session.ts";
import type { Usage, usageSummaryResult } from "../../../protocol/usage.ts";
import { UserError } from "../../base/errors.ts";
import type { Database, SqlValue } from "../../platform/database.ts";
import type { Message } from "../stream.ts";
import { deltaParts, deltaSchema, joinDeltas } from "./answer-delta.ts";
import { isEmptyAnswer } from "./thread-tree.ts";
import { entryBodySchema } from "./transcript-record.ts";

/** Entries read at once: a page of ordinary messages is built within a millisecond. */
const PAGE = 64;
/** And their bodies, since messages may hold whole files: parsing 256 KiB takes about a millisecond. One that is longer is a page of its own. */
const PAGE_BYTES = 256 * 1024;
/** A session of a client that repeats one request has a thread for each answer; a face shows the newest. */
const MAX_THREADS = 1_000;

export type SessionList = z.infer<typeof sessionListResult>;
export type SessionDetails = z.infer<typeof sessionGetResult>;
export type UsageSummary = z.infer<typeof usageSummaryResult>;

/** A conversation as a model is to see it. */
export interface History {
  readonly threadId: ThreadId;
  readonly messages: readonly Message[];
  /** The thread's last answer is still streaming. */
  readonly isStreaming: boolean;
}

export interface SessionReader {
  /** One page. @throws UserError `invalid_params` for a cursor that is none of ours. */
  list(userId: UserId, options: { readonly limit: number; readonly cursor?: string | undefined }): Promise<SessionList>;
  /** @throws UserError `session_not_found`, also for a thread that is not in the session. */
  get(userId: UserId, sessionId: SessionId, threadId?: ThreadId): Promise<SessionDetails>;
  /** @throws UserError `session_not_found` */
  history(userId: UserId, sessionId: SessionId, threadId?: ThreadId): Promise<History>;
  exists(userId: UserId, sessionId: SessionId): Promise<boolean>;
  countEntries(userId: UserId, sessionId: SessionId): Promise<number>;
  /** One page of what changed after `revision`, in its order; empty when there is nothing. */
  changes(userId: UserId, sessionId: SessionId, afterRevision: number): Promise<readonly SessionWatchUpdate[]>;
  usage(userId: UserId, sinceMs: number): Promise<UsageSummary>;
}

const summaryRow = z.object({
  id: sessionIdSchema,
  title: z.string(),
  client: z.string(),
  created_at: z.number(),
  updated_at: z.number(),
  threads: z.int(),
  messages: z.int(),
});
const threadRow = z.object({ id: threadIdSchema, head: entryIdSchema, updated_at: z.number() });
const pathRow = z.object({ id: entryIdSchema, size: z.int() });
const entryRow = z.object({
  id: entryIdSchema,
  parent: entryIdSchema.nullable(),
  role: roleSchema,
  body: z.string(),
  revision: z.int(),
  created_at: z.number(),
  answer_id: answerIdSchema.nullable(),
  model: modelRefSchema.nullable(),
  state: answerStateSchema.nullable(),
  reason: finishReasonSchema.nullable(),
  prompt_tokens: z.int().nullable(),
  completion_tokens: z.int().nullable(),
  cached_tokens: z.int().nullable(),
  reasoning_tokens: z.int().nullable(),
  error: z.string().nullable(),
  chunks: z.string().nullable(),
});
type EntryRow = z.infer<typeof entryRow>;
const usageRow = z.object({
  model: z.string(),
  answers: z.int(),
  interrupted: z.int(),
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  without_usage: z.int(),
});
const countRow = z.object({ count: z.int() });

const SUMMARY = `SELECT s.id, s.title, s.client, s.created_at, s.updated_at,
    (SELECT count(*) FROM threads t WHERE t.session_id = s.id) AS threads,
    (SELECT count(*) FROM entries e WHERE e.session_id = s.id) AS messages
  FROM sessions s WHERE s.user_id = ?`;
/** Sessions may share a millisecond, so the id decides among them; a page that ended between two of those goes on with the second. */
const AFTER = " AND (s.updated_at, s.id) < (?, ?)";
/** Threads that changed in one batch have one time; the revisions of their heads tell which came last. */
const THREADS = `SELECT id, head, updated_at FROM threads WHERE session_id = ? AND user_id = ?
  ORDER BY updated_at DESC, (SELECT revision FROM entries e WHERE e.id = head) DESC LIMIT ${MAX_THREADS}`;
const THREAD = "SELECT id, head, updated_at FROM threads WHERE id = ? AND session_id = ? AND user_id = ?";
/** From the head up to the root. */
const PATH = `WITH RECURSIVE path (id, parent, depth) AS (
    SELECT id, parent, 0 FROM entries WHERE id = ? AND session_id = ? AND user_id = ?
    UNION ALL SELECT e.id, e.parent, path.depth + 1 FROM path JOIN entries e ON e.id = path.parent)
  SELECT path.id, octet_length(e.body) AS size FROM path JOIN entries e ON e.id = path.id ORDER BY depth DESC`;
const ENTRY_COLUMNS = `e.id, e.parent, e.role, e.body, e.revision, e.created_at, a.id AS answer_id, a.model, a.state, a.reason,
    a.prompt_tokens, a.completion_tokens, a.cached_tokens, a.reasoning_tokens, a.error,
    (SELECT json_group_array(json(body)) FROM (SELECT body FROM answer_chunks c WHERE c.answer_id = a.id ORDER BY sequence)) AS chunks`;
/** The cross join keeps SQLite from walking all of the user's entries. */
const ENTRIES_BY_ID = `SELECT ${ENTRY_COLUMNS} FROM json_each(?) AS w CROSS JOIN entries e ON e.id = w.value AND e.user_id = ?
  LEFT JOIN answers a ON a.id = e.answer_id ORDER BY w.key`;
const CHANGES = `WITH page AS (SELECT id, revision, octet_length(body) AS size FROM entries
    WHERE session_id = ? AND user_id = ? AND revision > ? ORDER BY revision LIMIT ${PAGE}),
  sums AS (SELECT id, size, sum(size) OVER (ORDER BY revision) AS total FROM page)
  SELECT ${ENTRY_COLUMNS} FROM sums CROSS JOIN entries e ON e.id = sums.id LEFT JOIN answers a ON a.id = e.answer_id
  WHERE total <= ${PAGE_BYTES} OR total = size ORDER BY e.revision`;
const USAGE = `SELECT model, count(*) AS answers, sum(state = 'interrupted') AS interrupted,
    coalesce(sum(prompt_tokens), 0) AS prompt_tokens, coalesce(sum(completion_tokens), 0) AS completion_tokens,
    sum(prompt_tokens IS NULL AND completion_tokens IS NULL) AS without_usage
  FROM answers WHERE user_id = ? AND started_at >= ? AND model IS NOT NULL GROUP BY model ORDER BY answers DESC, model`;

export function createSessionReader(database: Database): SessionReader {
  const summary = async (userId: UserId, sessionId: SessionId): Promise<SessionSummary> => {
    const [row] = await database.read(summaryRow, `${SUMMARY} AND s.id = ?`, [userId, sessionId]);
    if (row === undefined) throw notFound(sessionId);
    return summaryOf(row);
  };

  /** What `take` makes of each entry from the root to `head`, page by page. */
  const pathTo = async <Taken>(
    { userId, sessionId, head }: { readonly userId: UserId; readonly sessionId: SessionId; readonly head: EntryId },
    take: (row: EntryRow) => Taken,
  ): Promise<Taken[]> => {
    const path = await database.read(pathRow, PATH, [head, sessionId, userId]);
    const taken: Taken[] = [];
    for (const page of pagesOf(path)) {
      const rows = await database.read(entryRow, ENTRIES_BY_ID, [JSON.stringify(page), userId]);
      for (const row of rows) taken.push(take(row));
    }
    return taken;
  };

  return {
    async list(userId, { limit, cursor }) {
      const after = cursor === undefined ? [] : parseCursor(cursor);
      const sql = `${SUMMARY}${after.length === 0 ? "" : AFTER} ORDER BY s.updated_at DESC, s.id DESC LIMIT ?`;
      // One more than asked for tells whether there is a next page.
      const rows = await database.read(summaryRow, sql, [userId, ...after, limit + 1]);
      const page = rows.slice(0, limit);
      const last = page.at(-1);
      const next = rows.length === page.length || last === undefined ? {} : { nextCursor: cursorAt(last) };
      return { sessions: page.map(summaryOf), ...next };
    },
    async get(userId, sessionId, threadId) {
      const session = await summary(userId, sessionId);
      const { threads, thread } = await findThread(database, userId, sessionId, threadId);
      const entries = await pathTo({ userId, sessionId, head: thread.head }, entryOf);
      return {
        session,
        threads: threads.map(({ id, head, updated_at: updatedAtMs }) => ({ id, head, updatedAtMs })),
        threadId: thread.id,
        entries,
      };
    },
    async history(userId, sessionId, threadId) {
      const { thread } = await findThread(database, userId, sessionId, threadId);
      const said = await pathTo({ userId, sessionId, head: thread.head }, (row) => ({
        message: messageOf(row),
        state: row.state,
      }));
      const messages = said.map(({ message }) => message).filter((message) => !isEmptyAnswer(message));
      return { threadId: thread.id, messages, isStreaming: said.at(-1)?.state === "streaming" };
    },
    exists: async (userId, sessionId) => (await count(database, SESSION_COUNT, [sessionId, userId])) === 1,
    countEntries: (userId, sessionId) => count(database, ENTRY_COUNT, [sessionId, userId]),
    async changes(userId, sessionId, afterRevision) {
      const rows = await database.read(entryRow, CHANGES, [sessionId, userId, afterRevision]);
      return rows.map((row) => ({ revision: row.revision, entry: entryOf(row) }));
    },
    usage: (userId, sinceMs) => readUsage(database, userId, sinceMs),
  };
}

function pagesOf(path: readonly z.infer<typeof pathRow>[]): readonly (readonly EntryId[])[] {
  const pages: EntryId[][] = [];
  let page: EntryId[] = [];
  let sizeBytes = 0;
  for (const { id, size } of path) {
    sizeBytes += size;
    if (page.length === 0 || page.length === PAGE || sizeBytes > PAGE_BYTES) {
      page = [];
      pages.push(page);
      sizeBytes = size;
    }
    page.push(id);
  }
  return pages;
}

const cursorSchema = z.tuple([z.number(), sessionIdSchema]);

/** `[1764223918000, "ses_01…"]` in base64url: the last session of a page by time and id. */
function cursorAt({ updated_at: updatedAtMs, id }: z.infer<typeof summaryRow>): string {
  return Buffer.from(JSON.stringify([updatedAtMs, id])).toString("base64url");
}

function parseCursor(cursor: string): z.infer<typeof cursorSchema> {
  try {
    return cursorSchema.parse(JSON.parse(Buffer.from(cursor, "base64url").toString("utf8")));
  } catch (cause) {
    throw new UserError("invalid_params", "cursor: it is not the `nextCursor` of a page", {
      cause,
      details: { field: "cursor" },
    });
  }
}

/** The session's threads, and of them the one asked for, else the one changed last. */
async function findThread(database: Database, userId: UserId, sessionId: SessionId, wanted: ThreadId | undefined) {
  const threads = await database.read(threadRow, THREADS, [sessionId, userId]);
  let thread = wanted === undefined ? threads[0] : threads.find(({ id }) => id === wanted);
  if (thread === undefined && wanted !== undefined) {
    [thread] = await database.read(threadRow, THREAD, [wanted, sessionId, userId]);
  }
  if (thread === undefined) throw notFound(sessionId, wanted);
  return { threads, thread };
}

const SESSION_COUNT = "SELECT count(*) AS count FROM sessions WHERE id = ? AND user_id = ?";
const ENTRY_COUNT = "SELECT count(*) AS count FROM entries WHERE session_id = ? AND user_id = ?";

async function count(database: Database, sql: string, values: readonly SqlValue[]): Promise<number> {
  return (await database.read(countRow, sql, values))[0]?.count ?? 0;
}

async function readUsage(database: Database, userId: UserId, sinceMs: number): Promise<UsageSummary> {
  const rows = await database.read(usageRow, USAGE, [userId, sinceMs]);
  return {
    models: rows.map((row) => ({
      model: row.model,
      answers: row.answers,
      interrupted: row.interrupted,
      promptTokens: row.prompt_tokens,
      completionTokens: row.completion_tokens,
      answersWithoutUsage: row.without_usage,
    })),
  };
}

export function notFound(sessionId: SessionId, threadId?: ThreadId): UserError {
  const what =
    threadId === undefined ? `there is no session ${sessionId}` : `the session ${sessionId} has no thread ${threadId}`;
  return new UserError("session_not_found", what, {
    details: { sessionId, ...(threadId === undefined ? {} : { threadId }) },
  });
}

function summaryOf(row: z.infer<typeof summaryRow>): SessionSummary {
  const { id, title, client, created_at: createdAtMs, updated_at: updatedAtMs, threads, messages } = row;
  return { id, title, createdAtMs, updatedAtMs, threads, messages, client };
}

function messageOf(row: EntryRow): Message {
  const pieces =
    row.state === "streaming" && row.chunks !== null ? z.array(deltaSchema).parse(JSON.parse(row.chunks)) : [];
  const parts =
    pieces.length === 0 ? entryBodySchema.parse(JSON.parse(row.body)).parts : deltaParts(joinDeltas(pieces));
  return { role: row.role, parts };
}

function entryOf(row: EntryRow): SessionEntry {
  const { role, parts } = messageOf(row);
  const result = parts.find((part) => part.kind === "toolResult");
  return {
    id: row.id,
    parent: row.parent,
    role,
    text: parts.map((part) => (part.kind === "text" || part.kind === "toolResult" ? part.text : "")).join(""),
    toolCalls: parts.flatMap((part) =>
      part.kind === "toolCall" ? [{ callId: part.callId, name: part.name, arguments: part.arguments }] : [],
    ),
    ...(result === undefined ? {} : { toolCallId: result.callId }),
    createdAtMs: row.created_at,
    ...answerOf(row),
  };
}

/** An answer without a model has failed before any was chosen: its model is then called `none`. */
const NO_MODEL = modelRefSchema.parse("none");

function answerOf(row: EntryRow): { answer?: NonNullable<SessionEntry["answer"]> } {
  if (row.answer_id === null || row.state === null) return {};
  const id: AnswerId = row.answer_id;
  const error = row.error === null ? undefined : wireErrorSchema.parse(JSON.parse(row.error)).message;
  return {
    answer: {
      id,
      model: row.model ?? NO_MODEL,
      state: row.state,
      ...(row.reason === null ? {} : { reason: row.reason }),
      usage: usageOf(row),
      ...(error === undefined ? {} : { error }),
    },
  };
}

function usageOf(row: EntryRow): Usage {
  return {
    ...(row.prompt_tokens === null ? {} : { promptTokens: row.prompt_tokens }),
    ...(row.completion_tokens === null ? {} : { completionTokens: row.completion_tokens }),
    ...(row.cached_tokens === null ? {} : { cachedTokens: row.cached_tokens }),
    ...(row.reasoning_tokens === null ? {} : { reasoningTokens: row.reasoning_tokens }),
  };
}
